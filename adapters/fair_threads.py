"""Threads for work that is expensive and that strangers can ask for."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from domain.errors import HashingBusy

T = TypeVar("T")

MAX_WAITING = 32
MAX_WAITING_PER_CALLER = 8
MAX_UNDER_WAY = 60
MAX_UNDER_WAY_PER_CALLER = 10


class FairThreads:
    """Runs functions in a few threads, for different callers in turn, so that a crowd behind one caller delays itself.

    Little work waits: a caller's surplus is refused at once, and if too much waits in all, the latest of the caller
    with the most is. A caller that gives up leaves the queue; work that has begun keeps its thread to the end.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="argon2")
        self._free = threads
        #: By caller, in the order of their turns.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def admitted(self, caller: str) -> Iterator[None]:
        """Around all that belongs to a caller's work, such as its statements, so that these are bounded, too.

        Raises HashingBusy at once if too much is under way.
        """
        if self._under_way[caller] >= MAX_UNDER_WAY_PER_CALLER or self._under_way.total() >= MAX_UNDER_WAY:
            raise HashingBusy
        self._under_way[caller] += 1
        try:
            yield
        finally:
            self._under_way[caller] -= 1
            if not self._under_way[caller]:
                del self._under_way[caller]

    async def run(self, caller: str, function: Callable[..., T], *arguments: object) -> T:
        """Raises HashingBusy."""
        loop = asyncio.get_running_loop()
        if self._free:
            self._free -= 1
        else:
            await self._turn(caller, loop.create_future())

        def release(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._release)

        work = self._executor.submit(function, *arguments)
        work.add_done_callback(release)
        return await asyncio.wrap_future(work)

    async def _turn(self, caller: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.setdefault(caller, deque())
        if len(queue) >= MAX_WAITING_PER_CALLER:
            raise HashingBusy
        queue.append(turn)
        if sum(map(len, self._waiting.values())) > MAX_WAITING:
            longest = max(self._waiting.values(), key=len)
            longest.pop().set_exception(HashingBusy())
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # it came too late
                self._release()
            raise
        finally:
            self._leave(caller, turn)

    def _leave(self, caller: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(caller)
        if queue is not None:
            with suppress(ValueError):
                queue.remove(turn)
            if not queue:
                del self._waiting[caller]

    def _release(self) -> None:
        """Pass the thread on to the next caller's first, or keep it free."""
        while self._waiting:
            caller, queue = self._waiting.popitem(last=False)
            turn = queue.popleft() if queue else None
            if queue:
                self._waiting[caller] = queue  # behind the others
            if turn is not None and not turn.done():
                turn.set_result(None)
                return
        self._free += 1
