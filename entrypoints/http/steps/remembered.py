"""Replies that follow from a version of the caller's data are encoded once."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from sanic import HTTPResponse

from domain.ids import UserId
from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.api.schemas.common import Schema
from entrypoints.http.steps.call import Answer, Call, Step

#: Of all users in one process.
MAX_BYTES = 16 * 1024 * 1024
#: Of one user, who has one reply at most.
MAX_USER_BYTES = 64 * 1024


class _Remembered(NamedTuple):
    version: int
    query: Schema
    body: bytes


class RecentReplies:
    """The last reply to each user, the longest unused ones dropped first."""

    def __init__(self) -> None:
        self._replies: OrderedDict[UserId, _Remembered] = OrderedDict()
        self.bytes = 0

    def get(self, user_id: UserId, version: int, query: Schema) -> bytes | None:
        reply = self._replies.get(user_id)
        if reply is None or reply.version != version or (reply.query is not query and reply.query != query):
            return None
        self._replies.move_to_end(user_id)
        return reply.body

    def put(self, user_id: UserId, version: int, query: Schema, body: bytes) -> None:
        if earlier := self._replies.pop(user_id, None):
            self.bytes -= len(earlier.body)
        if len(body) > MAX_USER_BYTES:
            return
        self._replies[user_id] = _Remembered(version, query, body)
        self.bytes += len(body)
        while self.bytes > MAX_BYTES:
            _, dropped = self._replies.popitem(last=False)
            self.bytes -= len(dropped.body)


def remembered(step: Step, endpoint: Endpoint) -> Step:
    """The version is of this request's look-up of its caller, so a reply is never older than that."""
    replies = RecentReplies()

    async def remember(call: Call) -> Answer | HTTPResponse | None:
        assert call.caller is not None, "only authenticated calls have a version"
        user, query = call.caller.user, call.arguments["query"]
        if body := replies.get(user.id, user.chatrooms_version, query):
            return Answer(endpoint.status, body)
        answer = await step(call)
        if isinstance(answer, Answer):
            replies.put(user.id, user.chatrooms_version, query, answer.body)
        return answer

    return remember
