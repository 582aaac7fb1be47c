"""Bounds how many requests of one user a process serves at a time, so that nobody slows down the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.errors import TooManyConcurrent
from domain.ids import UserId

if TYPE_CHECKING:
    from sanic import HTTPResponse

    from entrypoints.http.steps.call import Answer, Call, Step


class RunningRequests:
    """The number of each user's requests that are being served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of: dict[UserId, int] = {}

    def __len__(self) -> int:
        return sum(self._of.values())

    def enter(self, user_id: UserId) -> None:
        """Raises TooManyConcurrent."""
        running = self._of.get(user_id, 0)
        if running >= self._limit:
            raise TooManyConcurrent
        self._of[user_id] = running + 1

    def leave(self, user_id: UserId) -> None:
        if self._of[user_id] > 1:
            self._of[user_id] -= 1
        else:
            del self._of[user_id]


def concurrent(step: Step, running: RunningRequests) -> Step:
    async def count(call: Call) -> Answer | HTTPResponse | None:
        running.enter(call.user_id)
        call.running = running
        try:
            return await step(call)
        finally:
            call.leave()

    return count
