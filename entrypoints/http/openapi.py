"""The OpenAPI 3.1 document, made from the declared endpoints and the schemas that validate."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic.json_schema import models_json_schema

from domain.errors import (
    DatabaseUnavailable,
    DomainError,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    StreamsExhausted,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TooManyStreams,
)
from entrypoints.http import following, idempotency, refresh_cookie, sse
from entrypoints.http.endpoints import Endpoint
from entrypoints.http.errors import MEDIA_TYPE, status_of
from entrypoints.http.schemas import Problem, RefreshBody, Schema

_AUTHENTICATION_ERRORS = (TokenMissing, TokenInvalid, TokenExpired)
_IDEMPOTENCY_KEY = {
    "name": idempotency.HEADER,
    "in": "header",
    "required": False,
    "description": "Makes it safe to repeat the request: its first reply is kept for 24 hours and replayed,"
    " with `Idempotency-Replayed: true`.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_PREFER = {
    "name": following.PREFER,
    "in": "header",
    "required": False,
    "description": "`wait=N`: answer as soon as the message has ended, with 200, but after N seconds at the latest,"
    f" with 202; at most {following.MAX_WAIT_SECONDS}. `Preference-Applied` tells that it was done.",
    "schema": {"type": "string", "examples": ["wait=30"]},
}
_LAST_EVENT_ID: dict[str, Any] = {
    "required": False,
    "description": "The id of the last event that the client has, to go on after it.",
    "schema": {"type": "string", "examples": ["1-7"]},
}
_REFRESH_COOKIE = {
    "name": refresh_cookie.HEADER,
    "in": "header",
    "required": False,
    "description": "For pages in a browser, which should not hold a refresh token. `cookie`: it is kept in an HttpOnly"
    " cookie of this site instead of the body; refresh, asked without a body, takes it from there, and logging out"
    " removes it.",
    "schema": {"type": "string", "enum": [refresh_cookie.WISH]},
}
_EVENTS = {"schema": {"type": "string", "description": "Server-Sent Events, as the call that streams tells."}}
_TEMPLATE = "#/components/schemas/{model}"


def openapi_document(
    endpoints: Iterable[Endpoint], *, version: str, others: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """`others`: path items of what is no endpoint of ours in the usual form."""
    endpoints = list(endpoints)
    paths: dict[str, dict[str, Any]] = {**(others or {})}
    for endpoint in endpoints:
        path = endpoint.path.replace("<", "{").replace(">", "}")
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gemini backend",
            "version": version,
            "summary": "Talk with Google's Gemini in authenticated chatrooms.",
            "description": "Paths answer with and without a trailing slash. Every error is a problem (RFC 9457)"
            " with a stable `code`. Every reply carries `X-Request-ID`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": paths,
        "components": {
            "schemas": _schemas(endpoints),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(endpoint.handler) or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
            for name in endpoint.path_ids
        ],
        "responses": _responses(endpoint),
    }
    if description:
        operation["description"] = " ".join(description.split())
    if endpoint.creates:
        operation["parameters"].append(_IDEMPOTENCY_KEY)
    if endpoint.follows:
        operation["parameters"].append(_PREFER)
    if endpoint.refresh_cookie:
        operation["parameters"].append(_REFRESH_COOKIE)
    if endpoint.reply is None:
        operation["parameters"] += [
            {"name": sse.LAST_EVENT_ID, "in": "header", **_LAST_EVENT_ID},
            {"name": sse.LAST_EVENT_ID_QUERY, "in": "query", **_LAST_EVENT_ID},
        ]
    if endpoint.query:
        operation["parameters"] += _query_parameters(endpoint.query)
    if endpoint.body:
        required = endpoint.body is not RefreshBody  # which a cookie may stand in for
        operation["requestBody"] = {"required": required, "content": {"application/json": _ref(endpoint.body)}}
    if endpoint.authenticated:
        operation["security"] = [{"token": []}]
    return operation


def _query_parameters(query: type[Schema]) -> list[dict[str, Any]]:
    parameters = []
    for name, schema in query.model_json_schema(mode="validation")["properties"].items():
        description = schema.pop("description", None)
        schema.pop("title", None)
        parameter = {"name": name, "in": "query", "required": False, "schema": schema}
        parameters.append({**parameter, "description": description} if description else parameter)
    return parameters


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    problems: dict[int, list[str]] = {}
    raised: list[type[DomainError]] = [*endpoint.errors]
    if endpoint.authenticated:
        raised += _AUTHENTICATION_ERRORS
    if endpoint.creates:
        raised += (IdempotencyKeyReused, IdempotencyKeyInUse)
    if endpoint.may_stream:
        raised += (TooManyStreams, StreamsExhausted)
    if endpoint.tag != "Operations":
        raised.append(DatabaseUnavailable)
    for error in raised:
        problems.setdefault(status_of(error), []).append(f"`{error.code}`: {error.detail}")
    if endpoint.body:
        problems.setdefault(400, []).append("`malformed_body`: The body is no JSON object.")
        problems.setdefault(413, []).append("`body_too_large`: The body is larger than this service accepts.")
    if endpoint.body or endpoint.query or endpoint.reply is None:
        problems.setdefault(422, []).append("`validation_failed`: A value is missing or does not fit.")
    return {
        **_replies(endpoint),
        **{str(status): _problem(texts) for status, texts in sorted(problems.items())},
    }


def _replies(endpoint: Endpoint) -> dict[str, Any]:
    events = {sse.MEDIA_TYPE: _EVENTS}
    if endpoint.reply is None:
        return {
            "200": {"description": "The events that follow.", "content": events},
            "204": {"description": "The client has them all: it need not come again."},
        }
    whole = {"application/json": _ref(endpoint.reply)}
    if not endpoint.follows:
        return {str(endpoint.status): {"description": HTTPStatus(endpoint.status).phrase, "content": whole}}
    return {
        "200": {"description": "OK", "content": {**whole, **(events if endpoint.may_stream else {})}},
        "202": {"description": "Accepted, or not ended yet.", "content": whole},
    }


def problem_response(*errors: type[DomainError]) -> dict[str, Any]:
    return _problem(f"`{error.code}`: {error.detail}" for error in errors)


def _problem(texts: Iterable[str]) -> dict[str, Any]:
    return {
        "description": "\n".join(f"- {text}" for text in dict.fromkeys(texts)),
        "content": {MEDIA_TYPE: _ref(Problem)},
    }


def _ref(schema: type[Schema]) -> dict[str, Any]:
    return {"schema": {"$ref": _TEMPLATE.format(model=schema.__name__)}}


def _schemas(endpoints: list[Endpoint]) -> dict[str, Any]:
    models = {(endpoint.body, "validation") for endpoint in endpoints if endpoint.body}
    models |= {(endpoint.reply, "serialization") for endpoint in endpoints if endpoint.reply}
    models.add((Problem, "serialization"))
    ordered = sorted(models, key=lambda model: model[0].__name__)
    _, definitions = models_json_schema(ordered, by_alias=True, ref_template=_TEMPLATE)  # type: ignore[arg-type]  # a set loses the literals
    return dict(definitions["$defs"])
