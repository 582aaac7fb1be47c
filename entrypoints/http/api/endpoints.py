"""Declaration of calls: the signature alone serves routing, validation, serialisation and OpenAPI."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack, get_type_hints

from domain.errors import DomainError
from entrypoints.http.api.schemas.common import ReplySchema, Schema

H = TypeVar("H", bound=Callable[..., Awaitable[Any]])

#: Arguments of handlers that come from the request. All others are use cases, or made by the call.
_OF_REQUEST = {"caller", "device", "body", "query", "after"}


class Declared(TypedDict, total=False):
    """What the signature does not say about a call."""

    #: The status of its success.
    status: int
    errors: tuple[type[DomainError], ...]
    #: Names of the rate limit rules that apply: by default "reads" or "writes" to a call with a token, else none.
    limits: tuple[str, ...]
    #: It must not be refused because of what other sessions of its user do.
    urgent: bool
    #: The handler's argument for the id of the created resource. Such a call is idempotent.
    creates: str
    #: It takes an Idempotency-Key; other POSTs refuse one. Its handler may take `request_id`: see idempotent.py.
    idempotent: bool
    #: Its reply is a message. The caller may wait for its end (Prefer: wait) or, if it was just accepted, stream it.
    takes_preference: bool
    #: Seconds that such a call waits for the end without a preference.
    default_wait: int
    #: On request the refresh token is set as a cookie, or the cookie is removed: see refresh_cookie.py.
    refresh_cookie: bool
    #: Its reply follows from its query and the caller's `chatrooms_version`.
    of_chatrooms_version: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A call. Its handler gets `caller`, `device`, `body`, `query` and the path's ids by name, and use cases by type.

    It returns its reply, or a stream that begins `after` a position.
    """

    method: str
    path: str
    tag: str
    handler: Callable[..., Awaitable[Any]]
    #: The handler's arguments and their types.
    takes: dict[str, Any]
    #: None means a stream.
    reply: type[ReplySchema] | None
    status: int = 200
    errors: tuple[type[DomainError], ...] = ()
    limits: tuple[str, ...] | None = None
    urgent: bool = False
    creates: str | None = None
    idempotent: bool = False
    takes_preference: bool = False
    default_wait: int | None = None
    refresh_cookie: bool = False
    of_chatrooms_version: bool = False

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def body(self) -> type[Schema] | None:
        return self.takes.get("body")

    @property
    def query(self) -> type[Schema] | None:
        return self.takes.get("query")

    @property
    def authenticated(self) -> bool:
        return "caller" in self.takes

    @property
    def methods(self) -> list[str]:
        """Probes and link checkers send HEAD."""
        return ["GET", "HEAD"] if self.method == "GET" else [self.method]

    @property
    def all_limits(self) -> tuple[str, ...]:
        if self.limits is not None or not self.authenticated:
            return self.limits or ()
        return ("reads",) if self.method == "GET" else ("writes",)

    @property
    def takes_key(self) -> bool:
        return self.idempotent or self.creates is not None

    @property
    def path_ids(self) -> list[str]:
        return re.findall(r"<(\w+)>", self.path)

    @property
    def use_cases(self) -> dict[str, Any]:
        """Types by argument name."""
        given = {*_OF_REQUEST, *self.path_ids, "request_id", self.creates}
        return {name: kind for name, kind in self.takes.items() if name not in given}

    @property
    def may_stream(self) -> bool:
        return self.takes_preference and self.status == 202 and self.default_wait is None


class Endpoints(list[Endpoint]):
    """The calls of one area."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self._tag = tag

    def get(self, path: str, **declared: Unpack[Declared]) -> Callable[[H], H]:
        return self._add("GET", path, declared)

    def post(self, path: str, **declared: Unpack[Declared]) -> Callable[[H], H]:
        return self._add("POST", path, declared)

    def patch(self, path: str, **declared: Unpack[Declared]) -> Callable[[H], H]:
        return self._add("PATCH", path, declared)

    def delete(self, path: str, **declared: Unpack[Declared]) -> Callable[[H], H]:
        return self._add("DELETE", path, declared)

    def _add(self, method: str, path: str, declared: Declared) -> Callable[[H], H]:
        def add(handler: H) -> H:
            takes = get_type_hints(handler)
            reply = takes.pop("return")
            schema = reply if isinstance(reply, type) and issubclass(reply, ReplySchema) else None
            self.append(
                Endpoint(
                    method=method, path=path, tag=self._tag, handler=handler, takes=takes, reply=schema, **declared
                )
            )
            return handler

        return add
