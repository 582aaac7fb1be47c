"""Calls of the model, subject to the budget, the circuit breaker, timeouts and cancellation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from application.chat.breaker import Breaker
from application.chat.setup import WatchSetup
from application.ports.chat import LanguageModel, ModelBudget, ReplyWriter
from application.ports.runtime import Clock
from domain.chat.calls import INTERRUPTED, CallPurpose, ModelCall, TokenUsage, call_outcome
from domain.chat.conversation import Conversation, ReplyChunk
from domain.chat.messages import MAX_THOUGHT_CHARACTERS, Message, MessageStatus, Outcome
from domain.errors import (
    GenerationFailed,
    ModelDeferred,
    ModelError,
    ModelNotConfigured,
    ModelRateLimited,
    ModelTimedOut,
    ModelUnavailable,
    ReplyEmpty,
    Unavailable,
)
from domain.ids import UserId

log = logging.getLogger(__name__)

#: Seconds to wait for the budget. A call whose turn comes later is deferred, so that another worker can make it.
LONGEST_WAIT = 5.0


class Stop:
    """A request to end a call of the model, which may come at any time and takes effect at once."""

    def __init__(self) -> None:
        self.requested = False
        self._call: asyncio.Timeout | None = None

    def request(self) -> None:
        self.requested = True
        if self._call is not None:
            self._call.reschedule(0)
            self._call = None

    @asynccontextmanager
    async def honoured(self) -> AsyncIterator[None]:
        """Raises TimeoutError from the block once the stop is requested."""
        if self.requested:
            raise TimeoutError
        async with asyncio.timeout(None) as self._call:
            try:
                yield
            finally:
                self._call = None


@dataclass(slots=True, eq=False)
class Call:
    """One call of the model: for which user, how to stop it, and its result, however it ends."""

    user_id: UserId
    #: The message has not failed before.
    fresh: bool = True
    stop: Stop = field(default_factory=Stop)
    #: The model that was called; None if none was, and then nothing was spent.
    model: str | None = None
    #: The last reported usage.
    usage: TokenUsage | None = None
    outcome: str = INTERRUPTED

    def booked(self, message: Message, purpose: CallPurpose = CallPurpose.REPLY) -> ModelCall | None:
        """The entry to book; None if no model was called."""
        if self.model is None:
            return None
        return message.call(purpose=purpose, model=self.model, outcome=self.outcome, usage=self.usage)


@dataclass(slots=True)
class _Reply:
    """What the model has written so far."""

    writer: ReplyWriter
    began: float = 0.0
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    thought_characters: int = 0
    thinking_seconds: float | None = None
    finish_reason: str | None = None

    @property
    def is_blank(self) -> bool:
        return all(not piece or piece.isspace() for piece in self.text)

    def add(self, chunk: ReplyChunk) -> None:
        if thought := _sanitised(chunk.thought):
            self.writer.thought(thought)
            kept = thought[: MAX_THOUGHT_CHARACTERS - self.thought_characters]
            self.thought_characters += len(kept)
            self.thoughts.append(kept)
        if text := _sanitised(chunk.text):
            if not self.text:
                self._end_thinking()
            self.text.append(text)
            self.writer.add(text)
        self.finish_reason = chunk.finish_reason or self.finish_reason

    def _end_thinking(self) -> None:
        self.thinking_seconds = asyncio.get_running_loop().time() - self.began

    def ended(self, status: MessageStatus, usage: TokenUsage | None) -> Outcome:
        if not self.text and self.thoughts:
            self._end_thinking()
        has_thought = bool(self.thoughts or (usage and usage.thoughts))
        return Outcome(
            status=status,
            response="".join(self.text) or None,
            thoughts="".join(self.thoughts) or None,
            thinking_seconds=round(self.thinking_seconds, 3) if has_thought and self.thinking_seconds else None,
            finish_reason=self.finish_reason if status is MessageStatus.COMPLETED else None,
            input_tokens=usage.input if usage else None,
            cached_tokens=usage.cached if usage else None,
            output_tokens=usage.output if usage else None,
            thought_tokens=usage.thoughts if usage else None,
        )


@dataclass(frozen=True, slots=True)
class CallModel:
    """One call of the model, from the conversation to the whole reply, which `writer` gets piece by piece.

    If stopped, it ends as cancelled with the text so far. Raises ModelError; ModelDeferred if the model
    was not called at all, because the breaker is open or the budget is used up. However it ends, `call`
    says whether the model was called and what it used.
    """

    model: LanguageModel
    name: str
    budget: ModelBudget
    breaker: Breaker
    setup: WatchSetup
    clock: Clock
    #: Timeouts: until the first chunk, with or without text, and then from each chunk to the next.
    first_token_seconds: float
    silence_seconds: float
    reply_seconds: float

    async def __call__(self, conversation: Conversation, *, call: Call, writer: ReplyWriter) -> Outcome:
        reply = _Reply(writer)
        status = MessageStatus.COMPLETED
        try:
            async with call.stop.honoured():
                await self._ask(conversation, reply, call)
        except (ModelError, TimeoutError) as error:
            if not call.stop.requested:
                call.outcome = call_outcome(error if isinstance(error, ModelError) else ModelTimedOut())
                raise
            status = MessageStatus.CANCELLED
        except Exception:
            call.outcome = GenerationFailed.code
            raise
        call.outcome = status.value
        return replace(reply.ended(status, call.usage), window_from=conversation.window_from)

    async def _ask(self, conversation: Conversation, reply: _Reply, call: Call) -> None:
        began = self.clock.now()
        if (pause := self.breaker.time_until_allowed(began, fresh=call.fresh)) is not None:
            raise ModelDeferred(retry_after=pause)
        try:
            await self._wait_for_budget()
            call.model = self.name
            await self._read(conversation, reply, call, began)
        except ModelDeferred:
            self.breaker.discard(began=began)
            raise
        except ModelError as error:
            self._report(call, began, failed=_counts_as_failure(error))
            if isinstance(error, ModelNotConfigured):
                await self.setup.refused(error)
            raise
        except BaseException:
            self.breaker.discard(began=began)
            raise
        self._report(call, began, failed=False)
        await self.setup.accepted()

    async def _wait_for_budget(self) -> None:
        try:
            wait = await self.budget.reserve(within=LONGEST_WAIT)
        except Unavailable:
            wait = None  # an unavailable database must not look like a dead worker
        if wait is None:
            raise ModelDeferred(retry_after=LONGEST_WAIT)
        await asyncio.sleep(wait)

    async def _read(self, conversation: Conversation, reply: _Reply, call: Call, began: datetime) -> None:
        loop = asyncio.get_running_loop()
        reply.began = loop.time()
        end = reply.began + self.reply_seconds
        is_silent = True
        try:
            async with (
                asyncio.timeout_at(min(reply.began + self.first_token_seconds, end)) as deadline,
                aclosing(self.model.stream(conversation)) as chunks,
            ):
                async for chunk in chunks:
                    deadline.reschedule(min(loop.time() + self.silence_seconds, end))
                    if is_silent:  # it works: other calls need not wait for the end of its thoughts
                        self._report(call, began, failed=False)
                        is_silent = False
                    call.usage = chunk.usage or call.usage
                    reply.add(chunk)
        except TimeoutError:
            raise ModelTimedOut from None
        if reply.is_blank:
            raise ReplyEmpty(reply.finish_reason)

    def _report(self, call: Call, began: datetime, *, failed: bool) -> None:
        if self.breaker.report(call.user_id, failed=failed, began=began, now=self.clock.now()):
            log.warning("model_breaker_opened")


def _counts_as_failure(error: ModelError) -> bool:
    """A limit, a refusal, or a blocked or empty reply comes from a healthy model."""
    return isinstance(error, ModelUnavailable) and not isinstance(error, ModelRateLimited)


def _sanitised(text: str) -> str:
    """Without NUL and lone surrogates, which Postgres refuses as text and which would cost the whole reply."""
    return text.replace("\0", "").encode(errors="replace").decode()
