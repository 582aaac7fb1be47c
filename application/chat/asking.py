"""Asking the model: within its budget, not while it is ill, and not for ever."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass

from application.chat.breaker import Breaker
from application.ports.chat import LanguageModel, ModelBudget
from application.ports.runtime import Clock
from domain.chat import Conversation, MessageStatus, Outcome
from domain.errors import ModelDeferred, ModelError, ModelRateLimited, ModelUnavailable, Unavailable

log = logging.getLogger(__name__)

#: Seconds. A call whose turn comes sooner is waited for; a later one is put off, so that it can run elsewhere.
LONGEST_WAIT = 5.0


@dataclass(frozen=True, slots=True)
class AskModel:
    """One call of the model, from question to whole reply.

    Raises ModelError; ModelDeferred if the model was not asked at all, because it fails at the
    moment or its calls a minute are used up.
    """

    model: LanguageModel
    budget: ModelBudget
    breaker: Breaker
    clock: Clock
    first_token_seconds: float
    reply_seconds: float

    async def __call__(self, conversation: Conversation) -> Outcome:
        began = self.clock.now()
        if (pause := self.breaker.wait(began)) is not None:
            raise ModelDeferred(retry_after=pause)
        try:
            wait = await self._turn()
            if wait is None:
                raise ModelDeferred(retry_after=LONGEST_WAIT)
            await asyncio.sleep(wait)
            outcome = await self._read(conversation)
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
        return outcome

    async def _turn(self) -> float | None:
        try:
            return await self.budget.reserve(within=LONGEST_WAIT)
        except Unavailable:
            return None  # a lost database must not look like a lost worker

    async def _read(self, conversation: Conversation) -> Outcome:
        text: list[str] = []
        finish_reason = input_tokens = output_tokens = None
        end = asyncio.get_running_loop().time() + self.reply_seconds
        try:
            async with (
                asyncio.timeout(min(self.first_token_seconds, self.reply_seconds)) as deadline,
                aclosing(self.model.stream(conversation)) as chunks,
            ):
                async for chunk in chunks:
                    if chunk.text and not text:
                        deadline.reschedule(end)
                    if chunk.text:
                        text.append(chunk.text)
                    finish_reason = chunk.finish_reason or finish_reason
                    input_tokens = chunk.input_tokens or input_tokens
                    output_tokens = chunk.output_tokens or output_tokens
        except TimeoutError:
            raise ModelUnavailable("The model took too long.") from None
        return Outcome(
            status=MessageStatus.COMPLETED,
            response=_storable("".join(text)),
            finish_reason=finish_reason,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )


def _storable(text: str) -> str:
    """Without what Postgres refuses as text, which would cost the whole reply: NUL, and half a surrogate pair."""
    return text.replace("\0", "").encode(errors="replace").decode()
