"""What steps pass to each other, and what they are built with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sanic import HTTPResponse, Request

from application.accounts.sessions import Authenticate, Caller
from application.chat.messages import GetMessage
from application.chat.streaming import AwaitReply, StreamReply
from application.ports.accounts import MobileNumbers, NumberDigests
from application.ports.runtime import IdempotencyKeys, Ids
from domain.ids import UserId
from entrypoints.container import Container
from entrypoints.http.api.schemas.common import ReplySchema, encode
from entrypoints.http.server.sse import Streams
from entrypoints.http.steps.concurrent import RunningRequests
from entrypoints.http.steps.rate_limits import RateLimits
from entrypoints.settings import Settings


@dataclass(slots=True)
class Call:
    """A request, and the arguments collected for its handler."""

    request: Request
    #: The ids of its path as text.
    path: Mapping[str, str]
    arguments: dict[str, Any] = field(default_factory=dict)
    caller: Caller | None = None
    #: Where it is counted while it runs.
    running: RunningRequests | None = None

    @property
    def user_id(self) -> UserId:
        assert self.caller is not None, "only authenticated calls have a user"
        return self.caller.user.id

    def leave(self) -> None:
        """Stop counting it: from now on it only waits, or streams, which has other limits."""
        if self.running is not None:
            self.running.leave(self.user_id)
            self.running = None


@dataclass(slots=True)
class Answer:
    """A reply that is not encoded yet, or a stored one."""

    status: int
    content: ReplySchema | bytes
    headers: dict[str, str] = field(default_factory=dict)
    #: Tokens for cookies by their names; "" removes a cookie.
    cookies: dict[str, str] = field(default_factory=dict)

    _body: bytes | None = None

    @property
    def body(self) -> bytes:
        if self._body is None:
            self._body = self.content if isinstance(self.content, bytes) else encode(self.content)
        return self._body


#: None if the response was sent already.
Step: TypeAlias = Callable[[Call], Awaitable[Answer | HTTPResponse | None]]


@dataclass(frozen=True, slots=True)
class Kit:
    """What steps need besides their endpoint, built once per process."""

    container: Container
    settings: Settings
    streams: Streams
    rate_limits: RateLimits
    running: RunningRequests
    authenticate: Authenticate
    keys: IdempotencyKeys
    #: The names of the calls that take a key.
    keyed_calls: Sequence[str]
    #: For the hashes of bodies that are stored with an Idempotency-Key.
    hash_key: bytes
    ids: Ids
    mobile_numbers: MobileNumbers
    number_digests: NumberDigests
    stream_reply: StreamReply
    await_reply: AwaitReply
    get_message: GetMessage

    @classmethod
    def of(
        cls, container: Container, streams: Streams, rate_limits: RateLimits, *, keyed_calls: Sequence[str] = ()
    ) -> Kit:
        return cls(
            container=container,
            settings=container.settings(),
            streams=streams,
            rate_limits=rate_limits,
            running=RunningRequests(container.settings().limits.requests_per_user),
            authenticate=container.authenticate(),
            keys=container.idempotency_keys(),
            keyed_calls=keyed_calls,
            hash_key=container.idempotency_hash_key(),
            ids=container.ids(),
            mobile_numbers=container.mobile_numbers(),
            number_digests=container.number_digests(),
            stream_reply=container.stream_reply(),
            await_reply=container.await_reply(),
            get_message=container.get_message(),
        )
