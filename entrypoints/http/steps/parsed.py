"""Reads the body, the query and the path's ids into their types."""

from __future__ import annotations

import codecs
import json
import re
from uuid import UUID

from pydantic import ValidationError
from sanic import HTTPResponse, Request

from domain.accounts import Device
from domain.errors import ChatroomNotFound, MessageNotFound, NotFound, SessionNotFound
from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.api.schemas.accounts import RefreshBody
from entrypoints.http.api.schemas.common import Schema
from entrypoints.http.api.schemas.problem import FieldError
from entrypoints.http.server.addresses import client_address, network_of
from entrypoints.http.server.errors import InvalidRequest
from entrypoints.http.steps import refresh_cookie
from entrypoints.http.steps.call import Answer, Call, Kit, Step

# Malformed ids get the same 404 as unknown ones (decision 6).
_PATH_IDS: dict[str, type[NotFound]] = {
    "chatroom_id": ChatroomNotFound,
    "message_id": MessageNotFound,
    "session_id": SessionNotFound,
}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def identified(step: Step, kit: Kit) -> Step:
    """Adds the device that sent the request."""
    trusted_proxies = kit.settings.http.trusted_proxies

    async def identify(call: Call) -> Answer | HTTPResponse | None:
        address = client_address(call.request, trusted_proxies)
        user_agent, token = call.request.headers.get("user-agent", ""), refresh_cookie.device_token(call.request)
        call.arguments["device"] = Device(user_agent, network_of(address), token)
        return await step(call)

    return identify


def parsed(step: Step, schema: type[Schema], *, method: str = "POST") -> Step:
    if_empty = b"{}" if method == "DELETE" else b""

    async def parse(call: Call) -> Answer | HTTPResponse | None:
        from_cookie = refresh_cookie.body(call.request) if schema is RefreshBody else None
        call.arguments["body"] = from_cookie or _body(schema, call.request, if_empty)
        return await step(call)

    return parse


def validated(step: Step, endpoint: Endpoint) -> Step:
    """The query, then the path's ids, so that an invalid query comes before a 404."""
    query = endpoint.query
    without = query() if query is not None else None

    async def validate(call: Call) -> Answer | HTTPResponse | None:
        if query is not None:
            call.arguments["query"] = _query(query, call.request) if call.request.query_string else without
        for name, text in call.path.items():
            if not _UUID.fullmatch(text):
                raise _PATH_IDS[name]
            call.arguments[name] = UUID(text)
        return await step(call)

    return validate


def _body(schema: type[Schema], request: Request, if_empty: bytes) -> Schema:
    # RFC 8259, section 8.1: a byte order mark may be ignored. PowerShell and some editors add one.
    text = (request.body or b"").removeprefix(codecs.BOM_UTF8) or if_empty
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        raise _lone_surrogates(schema, text) or InvalidRequest.of(error) from None


def _lone_surrogates(schema: type[Schema], body: bytes) -> InvalidRequest | None:
    """Pydantic's parser calls "\\ud800" broken JSON; it is valid JSON with an invalid value, which has a name."""
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
    try:
        arguments = request.get_args(keep_blank_values=True)
        return schema.model_validate({name: values[-1] for name, values in arguments.items()})
    except ValidationError as error:
        raise InvalidRequest.of(error, prefix="?") from None
