"""Calls that arrive together share one round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")


class Batched(Generic[Question, Reply]):
    """Asks for many at once what callers ask for one by one. Nothing is kept: each call is answered by a round trip
    that began after it.

    A call waits for one turn of the event loop, so that all that are ready come along, and for the round trip under way
    if there is one. A failed round trip fails all that wait, since they would meet the same. A cancelled call leaves
    the others alone.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Question]], Awaitable[Sequence[Reply]]],
        *,
        size: int = 100,
        context: Callable[[], Context] = Context,
    ) -> None:
        """`ask`: answers in the order of its questions, at most `size` of them. `context`: what it runs in; it works
        for many callers, so by default it sees none of their context variables."""
        self._ask = ask
        self._size = size
        self._context = context
        self._waiting: deque[tuple[Question, asyncio.Future[Reply]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, question: Question) -> Reply:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((question, reply))
        if self._task is None:
            self._task = loop.create_task(self._work(), context=self._context())
        return await reply

    async def _work(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # all that are ready now come along
                if calls := self._next_calls():
                    await self._answer(calls)
        finally:
            self._task = None

    def _next_calls(self) -> list[tuple[Question, asyncio.Future[Reply]]]:
        calls: list[tuple[Question, asyncio.Future[Reply]]] = []
        while self._waiting and len(calls) < self._size:
            call = self._waiting.popleft()
            if not call[1].done():  # cancelled
                calls.append(call)
        return calls

    async def _answer(self, calls: list[tuple[Question, asyncio.Future[Reply]]]) -> None:
        try:
            replies = await self._ask([question for question, _ in calls])
        except BaseException as error:
            calls += self._waiting
            self._waiting.clear()
            for _, future in calls:
                if future.done():
                    continue
                if isinstance(error, Exception):
                    future.set_exception(error)
                else:
                    future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), reply in zip(calls, replies, strict=True):
                if not future.done():
                    future.set_result(reply)
