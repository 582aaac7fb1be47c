"""How a call is declared: once, by its signature, for routing, validation, serialisation and OpenAPI alike."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack, get_type_hints

from domain.errors import DomainError
from entrypoints.http.api.schemas.common import Schema

H = TypeVar("H", bound=Callable[..., Awaitable[Any]])

#: The arguments of handlers that come from the request; every other one is a use case, or made by the call.
_OF_REQUEST = {"caller", "device", "body", "query", "after"}


class Declared(TypedDict, total=False):
    """What the signature does not say of a call."""

    #: The status of its success.
    status: int
    errors: tuple[type[DomainError], ...]
    #: The rate limits that it counts in, by the names of their rules.
    limits: tuple[str, ...]
    #: The handler's argument for the id of what it creates. Such a call is idempotent.
    creates: str
    #: It takes an Idempotency-Key; other POSTs refuse one. Its handler may ask for `request_id`: see idempotent.py.
    idempotent: bool
    #: Its reply is a message whose end the caller may wait for (Prefer: wait) or, if just accepted, stream.
    follows: bool
    #: Seconds that such a call waits for this end if the caller does not say otherwise.
    waits: int
    #: If the caller asks for it, its refresh token goes into a cookie, or the cookie goes: see refresh_cookie.py.
    refresh_cookie: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A call. Its handler gets, by name, `caller`, `device`, `body`, `query` and the path's ids; by type, use cases.

    It returns its reply; or the stream of a reply, `after` a position that it may ask for as well.
    """

    method: str
    path: str
    tag: str
    handler: Callable[..., Awaitable[Any]]
    #: The handler's arguments with their types.
    takes: dict[str, Any]
    #: None is a stream.
    reply: type[Schema] | None
    status: int = 200
    errors: tuple[type[DomainError], ...] = ()
    limits: tuple[str, ...] = ()
    creates: str | None = None
    idempotent: bool = False
    follows: bool = False
    waits: int | None = None
    refresh_cookie: bool = False

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
        """HEAD is GET without the body; probes and link checkers send it."""
        return ["GET", "HEAD"] if self.method == "GET" else [self.method]

    @property
    def all_limits(self) -> tuple[str, ...]:
        return ("reads", *self.limits) if self.authenticated and self.method == "GET" else self.limits

    @property
    def takes_key(self) -> bool:
        return self.idempotent or self.creates is not None

    @property
    def path_ids(self) -> list[str]:
        return re.findall(r"<(\w+)>", self.path)

    @property
    def use_cases(self) -> dict[str, Any]:
        """Their types, by the names of the arguments."""
        given = {*_OF_REQUEST, *self.path_ids, "request_id", self.creates}
        return {name: kind for name, kind in self.takes.items() if name not in given}

    @property
    def may_stream(self) -> bool:
        return self.follows and self.status == 202 and self.waits is None


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
            schema = reply if isinstance(reply, type) and issubclass(reply, Schema) else None
            self.append(
                Endpoint(
                    method=method, path=path, tag=self._tag, handler=handler, takes=takes, reply=schema, **declared
                )
            )
            return handler

        return add
