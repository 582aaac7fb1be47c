"""The OpenAPI 3.1 document, generated from the declared endpoints and their schemas."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from domain.errors import (
    DatabaseUnavailable,
    DomainError,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    IdempotencyKeyUnsupported,
    RateLimited,
    StreamsExhausted,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TooManyConcurrent,
    TooManyStreams,
)
from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.api.schemas.accounts import RefreshBody
from entrypoints.http.api.schemas.common import ReplySchema, Schema, documented
from entrypoints.http.api.schemas.problem import Problem
from entrypoints.http.documents import texts
from entrypoints.http.server import sse
from entrypoints.http.server.errors import MEDIA_TYPE, status_of

_AUTHENTICATION_ERRORS = (TokenMissing, TokenInvalid, TokenExpired)
_TEMPLATE = "#/components/schemas/{model}"


def openapi_document(
    endpoints: Iterable[Endpoint], *, version: str, others: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """`others`: path items of calls that are not declared as endpoints."""
    endpoints = list(endpoints)
    paths: dict[str, dict[str, Any]] = {**(others or {})}
    for endpoint in endpoints:
        path = re.sub(r"<(\w+)>", lambda name: f"{{{to_camel(name[1])}}}", endpoint.path)
        operation = paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
        if links := _links(endpoint, endpoints):
            operation["responses"][str(endpoint.status)]["links"] = links
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gemini backend",
            "version": version,
            "summary": "Talk with Google's Gemini in authenticated chatrooms.",
            "description": _prose(texts.DESCRIPTION),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": tag, "description": texts.TAGS[tag]}
            for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)
        ],
        "paths": paths,
        "components": {
            "schemas": _schemas(endpoints),
            "headers": {
                name: {"description": description, "schema": {"type": "string", "examples": [example]}}
                for name, (description, example) in texts.HEADERS.items()
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `token` from verify-otp, login or refresh.",
                }
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(endpoint.handler) or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": summary,
        "parameters": [
            {
                "name": to_camel(name),
                "in": "path",
                "required": True,
                "description": texts.PATH_IDS[name],
                "schema": {"type": "string", "format": "uuid"},
            }
            for name in endpoint.path_ids
        ],
        "responses": _responses(endpoint),
    }
    if description:
        operation["description"] = _prose(description)
    if endpoint.takes_key:
        operation["parameters"].append(texts.IDEMPOTENCY_KEY)
    if endpoint.takes_preference:
        operation["parameters"].append(texts.PREFER)
    if endpoint.refresh_cookie:
        operation["parameters"].append(texts.REFRESH_COOKIE)
    if endpoint.reply is None:
        operation["parameters"] += [
            {"name": sse.LAST_EVENT_ID, "in": "header", **texts.LAST_EVENT_ID},
            {"name": sse.LAST_EVENT_ID_QUERY, "in": "query", **texts.LAST_EVENT_ID},
        ]
    if endpoint.query:
        operation["parameters"] += _query_parameters(endpoint.query)
    if endpoint.body:
        required = endpoint.body is not RefreshBody  # the cookie may replace its body
        operation["requestBody"] = {"required": required, "content": {"application/json": _ref(endpoint.body)}}
    if endpoint.authenticated:
        operation["security"] = [{"token": []}]
    return operation


def _links(endpoint: Endpoint, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Calls that take the id of the created resource."""
    if endpoint.creates is None:
        return {}
    known = {name: f"$request.path.{to_camel(name)}" for name in endpoint.path_ids}
    known[endpoint.creates] = "$response.body#/data/id"
    return {
        later.name: {
            "operationId": later.name,
            "parameters": {to_camel(name): known[name] for name in later.path_ids},
        }
        for later in endpoints
        if endpoint.creates in later.path_ids and known.keys() >= set(later.path_ids)
    }


def _prose(text: str) -> str:
    """The paragraphs without the line breaks of the source."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def _query_parameters(query: type[Schema]) -> list[dict[str, Any]]:
    parameters = []
    for name, schema in query.model_json_schema(mode="validation")["properties"].items():
        description = schema.pop("description", None)
        schema.pop("title", None)
        if alternatives := schema.pop("anyOf", None):  # the other alternative is null, which a URL cannot express
            schema = alternatives[0]
        parameter = {"name": name, "in": "query", "required": False, "schema": schema}
        parameters.append({**parameter, "description": description} if description else parameter)
    return parameters


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    problems: dict[int, list[str]] = {}
    raised: list[type[DomainError]] = [*endpoint.errors]
    if endpoint.authenticated:
        raised += _AUTHENTICATION_ERRORS
    if endpoint.takes_key:
        raised += (IdempotencyKeyReused, IdempotencyKeyInUse)
    elif endpoint.method == "POST":
        raised.append(IdempotencyKeyUnsupported)
    if endpoint.may_stream:
        raised += (TooManyStreams, StreamsExhausted)
    if endpoint.authenticated and not endpoint.urgent:
        raised.append(TooManyConcurrent)
    if endpoint.all_limits:
        raised.append(RateLimited)
    if endpoint.tag != "Operations":
        raised.append(DatabaseUnavailable)
    for error in raised:
        problems.setdefault(status_of(error), []).append(f"`{error.code}`: {error.detail}")
    if endpoint.body:
        problems.setdefault(400, []).append("`malformed_body`: The body is not a JSON object.")
        problems.setdefault(413, []).append("`body_too_large`: The body exceeds the size limit.")
    if endpoint.body or endpoint.query or endpoint.reply is None:
        problems.setdefault(422, []).append("`validation_failed`: A value is missing or invalid.")
    replies = _replies(endpoint)
    carried = {
        "Idempotency-Replayed": endpoint.takes_key,
        "Preference-Applied": endpoint.takes_preference,
        "RateLimit": endpoint.all_limits,
        "RateLimit-Policy": endpoint.all_limits,
    }
    if headers := _headers(*(name for name, is_carried in carried.items() if is_carried)):
        for reply in replies.values():
            reply["headers"] = headers
    return {**replies, **{str(status): _problem(status, lines) for status, lines in sorted(problems.items())}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _replies(endpoint: Endpoint) -> dict[str, Any]:
    events = {sse.MEDIA_TYPE: texts.EVENTS}
    if endpoint.reply is None:
        return {
            "200": {"description": "The events as they occur.", "content": events},
            "204": {"description": "The client has all events; it need not reconnect."},
        }
    whole = {"application/json": _ref(endpoint.reply)}
    if not endpoint.takes_preference:
        return {str(endpoint.status): {"description": HTTPStatus(endpoint.status).phrase, "content": whole}}
    return {
        "200": {"description": "OK", "content": {**whole, **(events if endpoint.may_stream else {})}},
        "202": {"description": "Accepted, or still in progress.", "content": whole},
    }


def problem_response(*errors: type[DomainError]) -> dict[str, Any]:
    return _problem(status_of(errors[0]), (f"`{error.code}`: {error.detail}" for error in errors))


def _problem(status: int, lines: Iterable[str]) -> dict[str, Any]:
    return {
        "description": "\n".join(f"- {line}" for line in dict.fromkeys(lines)),
        **({"headers": _headers("Retry-After")} if status in (429, 503) else {}),
        "content": {MEDIA_TYPE: _ref(Problem)},
    }


def _ref(schema: type[Schema | ReplySchema]) -> dict[str, Any]:
    return {"schema": {"$ref": _TEMPLATE.format(model=schema.__name__)}}


class _ForGenerators(GenerateJsonSchema):
    """Schemas from which client generators derive the right types."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Titles repeat the field's name, and generators would name types by them."""
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """Only for replies: in a request, generators would make a field with a default required."""
        return self.generate_inner(schema["schema"]) if self.mode == "validation" else super().default_schema(schema)


def _schemas(endpoints: list[Endpoint]) -> dict[str, Any]:
    models = {(endpoint.body, "validation") for endpoint in endpoints if endpoint.body}
    models |= {(documented(endpoint.reply), "serialization") for endpoint in endpoints if endpoint.reply}
    models.add((Problem, "serialization"))
    ordered = sorted(models, key=lambda model: model[0].__name__)
    _, definitions = models_json_schema(
        ordered,  # type: ignore[arg-type]  # the set widens the literal types
        by_alias=True,
        ref_template=_TEMPLATE,
        schema_generator=_ForGenerators,
    )
    return {name: _shown(schema) for name, schema in definitions["$defs"].items()}


def _shown(part: Any) -> Any:
    """In the form that clients and generators handle best."""
    if isinstance(part, list):
        return [_shown(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {name: _shown(value) for name, value in part.items()}
    if isinstance(found.get("description"), str):
        found["description"] = _prose(found["description"])
    if isinstance(found.get("const"), str):  # clients by openapi-python-client refuse "const or a number"
        found["enum"] = [found.pop("const")]
    if isinstance(found.get("title"), str):
        del found["title"]
    return found
