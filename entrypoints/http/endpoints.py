"""How a call is declared: once, for routing, validation, serialisation and the OpenAPI document alike."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError
from sanic import HTTPResponse, Request, Sanic

from application.accounts.sessions import Caller
from domain.accounts import Device
from domain.errors import (
    ChatroomNotFound,
    DomainError,
    IdempotencyKeyUnsupported,
    MessageNotFound,
    NotFound,
    SessionNotFound,
    TokenInvalid,
    TokenMissing,
    UserNotFound,
)
from entrypoints.container import Container
from entrypoints.http import following, idempotency, refresh_cookie, sse
from entrypoints.http.addresses import client_address, network_of
from entrypoints.http.errors import NO_STORE, InvalidRequest, request_id
from entrypoints.http.rate_limits import RateLimits
from entrypoints.http.schemas import FieldError, RefreshBody, Schema

log = structlog.get_logger(__name__)

# A malformed id names nothing, so it is answered like one that does not exist.
_PATH_IDS: dict[str, type[NotFound]] = {
    "chatroom_id": ChatroomNotFound,
    "message_id": MessageNotFound,
    "session_id": SessionNotFound,
}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A call. Its handler takes, by name, what it asks for of: container, caller, body, query, and the path's ids.

    It gives its `reply`; or, without one, the stream of a reply, `after` a position that it also may ask for.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    reply: type[Schema] | None = None
    status: int = 200
    body: type[Schema] | None = None
    query: type[Schema] | None = None
    authenticated: bool = False
    errors: tuple[type[DomainError], ...] = ()
    #: The rate limits that it counts in, by the names of their rules.
    limits: tuple[str, ...] = ()
    #: The handler's argument for the id of what it creates. Such a call is idempotent.
    creates: str | None = None
    #: It takes an Idempotency-Key; other POSTs refuse one. Its handler may ask for `request_id`: see idempotency.py.
    idempotent: bool = False
    #: It tells of a message whose end the caller may wait for (Prefer: wait) or, if it was accepted just now, stream.
    follows: bool = False
    #: Seconds that such a call waits for this end if the caller does not say otherwise.
    waits: int | None = None
    #: On the caller's wish its refresh token goes into a cookie, or the cookie goes: see refresh_cookie.py.
    refresh_cookie: bool = False

    @property
    def name(self) -> str:
        return self.handler.__name__

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
    def may_stream(self) -> bool:
        return self.follows and self.status == 202 and self.waits is None


class Endpoints(list[Endpoint]):
    """The calls of one area."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self._tag = tag

    def add(self, method: str, path: str, **declared: Any) -> Callable[[Handler], Handler]:
        def declare(handler: Handler) -> Handler:
            self.append(Endpoint(method=method, path=path, handler=handler, tag=self._tag, **declared))
            return handler

        return declare

    def route(self, app: Sanic[Any, Any], container: Container) -> None:
        for endpoint in self:
            app.add_route(
                _sanic_handler(endpoint, container, app.ctx.rate_limits),
                endpoint.path,
                methods=endpoint.methods,
                name=endpoint.name,
            )


def bearer_token(request: Request) -> str:
    """Raises TokenMissing or TokenInvalid."""
    values = request.headers.getall("authorization", [])
    if not values:
        raise TokenMissing
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token:
        raise TokenInvalid
    return token.strip()


def _sanic_handler(
    endpoint: Endpoint, container: Container, limits: RateLimits
) -> Callable[..., Coroutine[Any, Any, HTTPResponse | None]]:
    takes = inspect.signature(endpoint.handler).parameters
    rules = limits.named(endpoint.all_limits)
    authenticate = container.authenticate()
    trusted_proxies = container.settings().trusted_networks
    keys, ids = container.idempotency_keys(), container.ids()
    hash_key = container.idempotency_hash_key()
    busy_for = timedelta(seconds=container.settings().request_seconds + 5)

    def stranger(body: Any) -> str:
        """Who is not logged in is known by the number that they name."""
        return container.number_digests().digest(container.mobile_numbers().parse(body.mobile))

    async def handle(request: Request, **path: str) -> HTTPResponse | None:
        identifier = request_id(request)
        with structlog.contextvars.bound_contextvars(request_id=identifier):
            has_key = endpoint.method == "POST" and idempotency.HEADER in request.headers
            if has_key and not endpoint.takes_key:
                raise IdempotencyKeyUnsupported
            arguments: dict[str, Any] = {"container": container} if "container" in takes else {}
            if endpoint.authenticated:
                caller: Caller = await authenticate(token=bearer_token(request))
                if "caller" in takes:
                    arguments["caller"] = caller
            if "device" in takes:
                address = client_address(request, trusted_proxies)
                arguments["device"] = Device(request.headers.get("user-agent", ""), network_of(address))
            if endpoint.body is not None:
                from_cookie = refresh_cookie.body(request) if endpoint.body is RefreshBody else None
                arguments["body"] = from_cookie or _body(endpoint.body, request)
            if rules:
                user_id = caller.user.id if endpoint.authenticated else None
                await limits.apply(request, rules, user_id=user_id, body=arguments.get("body"))
            if endpoint.query is not None:
                arguments["query"] = _query(endpoint.query, request)
            for name, text in path.items():  # last, as one that does not exist is found last
                if not _UUID.fullmatch(text):
                    raise _PATH_IDS[name]
                arguments[name] = UUID(text)

            async def respond(new_id: UUID | None = None) -> HTTPResponse:
                names = {endpoint.creates or "", "request_id"} & takes.keys()
                keyed = dict.fromkeys(names, new_id) if new_id else {}
                try:
                    reply = await endpoint.handler(**arguments, **keyed)
                except UserNotFound:
                    if not endpoint.authenticated:
                        raise
                    raise TokenInvalid from None  # the caller was deleted in this very moment
                log.debug("request", call=endpoint.name, status=endpoint.status)
                in_cookie = endpoint.refresh_cookie and refresh_cookie.is_wished(request)
                response = HTTPResponse(
                    # Two fields may be left out rather than null: a code, and a token that goes into a cookie.
                    reply.model_dump_json(
                        by_alias=True, exclude_unset=True, exclude={"refresh_token"} if in_cookie else None
                    ),
                    status=endpoint.status,
                    headers={"x-request-id": identifier, **NO_STORE},
                    content_type="application/json",
                )
                if in_cookie:
                    refresh_cookie.put(response, getattr(reply, "refresh_token", ""), container.settings())
                return response

            async def answer() -> HTTPResponse:
                if not has_key:
                    return await respond()
                who = caller.user.id if endpoint.authenticated else stranger(arguments["body"])
                return await idempotency.once(
                    request,
                    keys,
                    scope=f"{who} {endpoint.name}",
                    hash_key=hash_key,
                    new_id=ids.new(),
                    busy_for=busy_for,
                    run=respond,
                )

            streams: sse.Streams = request.app.ctx.streams
            if endpoint.reply is None:
                if "after" in takes:
                    arguments["after"] = sse.last_event_id(request)
                with streams.place(caller.user.id):
                    return await streams.send(request, await endpoint.handler(**arguments))
            wish = following.NONE
            if endpoint.follows:
                wish = following.wish_of(request, may_stream=endpoint.may_stream, wait=endpoint.waits)
            with streams.place(caller.user.id) if wish.stream else nullcontext():  # before anything is accepted
                answered = await answer()
                if wish == following.NONE or answered.status != endpoint.status:
                    return answered
                return await following.fulfil(wish, request, container, caller, arguments["chatroom_id"], answered)

    return handle


def _body(schema: type[Schema], request: Request) -> Schema:
    try:
        return schema.model_validate_json(request.body or b"")
    except ValidationError as error:
        raise _lone_surrogates(schema, request.body) or InvalidRequest.of(error) from None


def _lone_surrogates(schema: type[Schema], body: bytes) -> InvalidRequest | None:
    """Pydantic's parser calls them broken JSON, but "\\ud800" is good JSON and a bad value of a field with a name."""
    try:
        values = json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    names = {field.alias for field in schema.model_fields.values()}
    wrong = [
        FieldError(pointer=f"/{name}", detail="must be valid Unicode")
        for name, value in (values.items() if isinstance(values, dict) else ())
        if name in names and isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)
    ]
    return InvalidRequest(wrong) if wrong else None


def _query(schema: type[Schema], request: Request) -> Schema:
    if not request.query_string:
        return schema()
    try:
        arguments = request.get_args(keep_blank_values=True)
        return schema.model_validate({name: values[-1] for name, values in arguments.items()})
    except ValidationError as error:
        raise InvalidRequest.of(error, prefix="?") from None
