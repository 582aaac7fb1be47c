"""Asking the model: within its budget, not while it is ill, not for ever, and not when nobody wants the reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from application.chat.breaker import Breaker
from application.ports.chat import LanguageModel, ModelBudget, ReplyWriter
from application.ports.runtime import Clock
from domain.chat import Conversation, MessageStatus, Outcome, TokenUsage
from domain.errors import ModelDeferred, ModelError, ModelRateLimited, ModelUnavailable, ReplyEmpty, Unavailable

log = logging.getLogger(__name__)

#: Seconds. A call whose turn comes sooner is waited for; a later one is put off, so that it can run elsewhere.
LONGEST_WAIT = 5.0


class Stop:
    """A request to end a call of the model, which may come at any moment and takes effect at once."""

    def __init__(self) -> None:
        self.requested = False
        self._call: asyncio.Timeout | None = None

    def request(self) -> None:
        self.requested = True
        if self._call is not None:
            self._call.reschedule(0)
            self._call = None

    @asynccontextmanager
    async def heeded(self) -> AsyncIterator[None]:
        """Raises TimeoutError from the block once it is requested."""
        if self.requested:
            raise TimeoutError
        async with asyncio.timeout(None) as self._call:
            try:
                yield
            finally:
                self._call = None


@dataclass(slots=True)
class _Reply:
    """What the model has said so far."""

    writer: ReplyWriter
    text: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: TokenUsage | None = None

    def add(self, text: str) -> None:
        if text := _storable(text):
            self.text.append(text)
            self.writer.add(text)

    def ended(self, status: MessageStatus) -> Outcome:
        usage = self.usage
        return Outcome(
            status=status,
            response="".join(self.text) or None,
            finish_reason=self.finish_reason if status is MessageStatus.COMPLETED else None,
            input_tokens=usage.input if usage else None,
            cached_tokens=usage.cached if usage else None,
            output_tokens=usage.output if usage else None,
            thought_tokens=usage.thoughts if usage else None,
        )


@dataclass(frozen=True, slots=True)
class AskModel:
    """One call of the model, from question to whole reply, which `writer` is given piece by piece.

    Stopped, it ends as cancelled with what was said until then. Raises ModelError; ModelDeferred if
    the model was not asked at all, because it fails at the moment or its calls a minute are used up.
    """

    model: LanguageModel
    budget: ModelBudget
    breaker: Breaker
    clock: Clock
    first_token_seconds: float
    reply_seconds: float

    async def __call__(self, conversation: Conversation, *, writer: ReplyWriter, stop: Stop) -> Outcome:
        reply = _Reply(writer)
        try:
            async with stop.heeded():
                await self._ask(conversation, reply)
        except (ModelError, TimeoutError):
            if not stop.requested:
                raise
            return reply.ended(MessageStatus.CANCELLED)
        return reply.ended(MessageStatus.COMPLETED)

    async def _ask(self, conversation: Conversation, reply: _Reply) -> None:
        began = self.clock.now()
        if (pause := self.breaker.wait(began)) is not None:
            raise ModelDeferred(retry_after=pause)
        try:
            wait = await self._turn()
            if wait is None:
                raise ModelDeferred(retry_after=LONGEST_WAIT)
            await asyncio.sleep(wait)
            await self._read(conversation, reply)
        except ModelDeferred:
            self.breaker.forget(began=began)
            raise
        except ModelError as error:
            # A limit, a refusal or a blocked reply comes from a model that is well.
            ill = isinstance(error, ModelUnavailable) and not isinstance(error, ModelRateLimited)
            if self.breaker.report(failed=ill, began=began, now=self.clock.now()):
                log.warning("model_breaker_opened")
            raise
        except BaseException:
            self.breaker.forget(began=began)
            raise
        self.breaker.report(failed=False, began=began, now=self.clock.now())

    async def _turn(self) -> float | None:
        try:
            return await self.budget.reserve(within=LONGEST_WAIT)
        except Unavailable:
            return None  # a lost database must not look like a lost worker

    async def _read(self, conversation: Conversation, reply: _Reply) -> None:
        end = asyncio.get_running_loop().time() + self.reply_seconds
        try:
            async with (
                asyncio.timeout(min(self.first_token_seconds, self.reply_seconds)) as deadline,
                aclosing(self.model.stream(conversation)) as chunks,
            ):
                async for chunk in chunks:
                    if chunk.text and not reply.text:
                        deadline.reschedule(end)
                    reply.add(chunk.text)
                    if chunk.thought:
                        reply.writer.thought(_storable(chunk.thought))
                    reply.finish_reason = chunk.finish_reason or reply.finish_reason
                    reply.usage = chunk.usage or reply.usage
        except TimeoutError:
            raise ModelUnavailable("The model took too long.") from None
        if not reply.text:
            raise ReplyEmpty(reply.finish_reason)


def _storable(text: str) -> str:
    """Without what Postgres refuses as text, which would cost the whole reply: NUL, and half a surrogate pair."""
    return text.replace("\0", "").encode(errors="replace").decode()
