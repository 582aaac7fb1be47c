"""A model that follows a script, its budget, and the report on its key."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from adapters.memory.store import Table
from application.ports.chat import LanguageModel, ModelBudget, ModelSetup
from application.ports.runtime import Clock
from domain.chat.calls import TokenUsage
from domain.chat.conversation import Conversation, ReplyChunk, estimated_tokens
from domain.errors import ModelError, ReplyEmpty
from domain.rates import MICROSECONDS, CallRate, within_any_minute


@dataclass(frozen=True, kw_only=True)
class ScriptedReply:
    """What one call does: its thoughts, its pieces, `seconds` before each of them, then `error` or the end.

    With `finish_reason` None and no error it hangs after its pieces until it is closed. `cached` are tokens of the
    prompt that count as cached.
    """

    thoughts: Sequence[str] = ()
    pieces: Sequence[str] = ("Hello", ", ", "world.")
    finish_reason: str | None = "STOP"
    seconds: float = 0.0
    cached: int = 0
    error: Exception | None = None


#: A text is a reply in one piece; an error is raised before the first piece.
Line: TypeAlias = "str | Exception | ScriptedReply"


class ScriptedLanguageModel(LanguageModel):
    """Takes a line of its script for each call, in order, then `default`; or asks a function.

    `asked` keeps every conversation; `open` and `left` count the streams being read and those
    that were closed or cancelled before their end. `unusable` is what a check raises.
    """

    name = "gemini"

    def __init__(
        self,
        script: Iterable[Line] | Callable[[Conversation], Line] = (),
        *,
        default: Line = ScriptedReply(),
    ) -> None:
        self._choose = script if callable(script) else None
        self._script: deque[Line] = deque(() if callable(script) else script)
        self._default = default
        self.asked: list[Conversation] = []
        self.open = 0
        self.left = 0
        self.unusable: ModelError | None = None

    def add(self, *lines: Line) -> None:
        self._script.extend(lines)

    async def start(self) -> None:
        """Nothing to open; the real ones import their SDK here."""

    async def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
        self.asked.append(conversation)
        reply = _reply(self._choose(conversation) if self._choose else self._next())
        usage = TokenUsage(input=sum(estimated_tokens(turn.text) for turn in conversation.turns), cached=reply.cached)
        thoughts = 0
        self.open += 1
        ended = False
        try:
            for thought in reply.thoughts:
                await asyncio.sleep(reply.seconds)
                thoughts += estimated_tokens(thought)
                usage = replace(usage, output=thoughts, thoughts=thoughts)
                yield ReplyChunk(thought=thought, usage=usage)
            written, finish_reason = "", reply.finish_reason
            for piece in reply.pieces:
                await asyncio.sleep(reply.seconds)
                kept = _cut(piece, conversation.max_output_tokens - estimated_tokens(written))
                written += kept
                usage = replace(usage, output=thoughts + estimated_tokens(written))
                yield ReplyChunk(kept, usage=usage)
                if kept != piece:
                    finish_reason = "MAX_TOKENS"
                    break
            if reply.error:
                ended = True
                raise reply.error
            if finish_reason is None:
                await asyncio.Event().wait()
            ended = True
            if not written or written.isspace():
                raise ReplyEmpty(finish_reason)
            yield ReplyChunk(finish_reason=finish_reason, usage=usage)
        finally:
            self.open -= 1
            self.left += not ended

    async def check(self) -> None:
        if self.unusable is not None:
            raise self.unusable

    async def close(self) -> None: ...

    def _next(self) -> Line:
        return self._script.popleft() if self._script else self._default


class MemoryModelBudget(ModelBudget):
    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self._is_limited = per_minute > 0
        self._calls = CallRate(within_any_minute(per_minute))

    async def reserve(self, *, within: float) -> float | None:
        if not self._is_limited:
            return 0.0
        now = int(self._clock.now().timestamp() * MICROSECONDS)
        wait = self._calls.wait(now) / MICROSECONDS
        if wait > within:
            return None
        self._calls = self._calls.counted(now)
        return wait


class MemoryModelSetup(ModelSetup):
    def __init__(self) -> None:
        self._reasons: Table[str, str] = Table()

    async def report(self, refused_for: str | None) -> None:
        self._reasons.put("refused_for", refused_for)

    async def refused_for(self) -> str | None:
        return self._reasons.get("refused_for")


def _reply(line: Line) -> ScriptedReply:
    if isinstance(line, str):
        return ScriptedReply(pieces=(line,))
    if isinstance(line, Exception):
        return ScriptedReply(pieces=(), error=line)
    return line


def _cut(text: str, tokens: int) -> str:
    """As much of the text as the tokens allow, by the estimate's own measure."""
    if estimated_tokens(text) <= tokens:
        return text
    return next((text[:end] for end in range(len(text), 0, -1) if estimated_tokens(text[:end]) <= tokens), "")
