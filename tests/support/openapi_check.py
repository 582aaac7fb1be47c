"""Checks replies against the OpenAPI document, with the part of JSON Schema that the document uses."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

PROBLEM, EVENTS = "application/problem+json", "text/event-stream"
#: The server itself may answer these to any request, so no call declares them.
ANYWHERE = {400, 404, 405, 408, 413, 417, 431}

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": int,
}
_FORMATS: dict[str, Callable[[str], object]] = {"uuid": UUID, "date-time": datetime.fromisoformat}
_KNOWN = {
    "$ref", "anyOf", "type", "const", "enum", "format", "properties", "required", "additionalProperties", "items",
    "title", "description", "examples", "default", "maxLength", "minLength", "pattern", "maximum", "minimum",
}  # fmt: skip


class Document:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.operations: list[tuple[str, str, re.Pattern[str], dict[str, Any]]] = [
            (method.upper(), path, re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "/?"), operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]

    def check(self, response: httpx.Response) -> None:
        """Assert that the call declares this reply."""
        path = response.request.url.path
        where = f"{response.request.method} {path} → {response.status_code}"
        media = response.headers.get("content-type", "").partition(";")[0]
        declared: dict[str, Any] = next(
            (
                operation["responses"]
                for method, _, pattern, operation in self.operations
                if method == response.request.method and pattern.fullmatch(path)
            ),
            {},
        )
        reply = declared.get(str(response.status_code))
        if reply is not None:
            if "content" not in reply:
                assert not response.content, where
                return
            assert media in reply["content"], f"{where}: {media}"
            if media == EVENTS:
                return
            schema = reply["content"][media]["schema"]
        else:
            undeclared_page = response.status_code == 200 and not declared
            preflight = response.status_code == 204 and response.request.method == "OPTIONS"
            if undeclared_page or preflight or response.request.method == "HEAD":
                return
            assert response.status_code in ANYWHERE, f"{where} is not declared"
            assert media == PROBLEM, f"{where}: {media}"
            schema = {"$ref": "#/components/schemas/Problem"}
        self.fits(response.text if media == "text/plain" else response.json(), schema, where)

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in schema:
            return schema
        found: Any = self.document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return self.resolve(found)

    def fits(self, value: Any, schema: dict[str, Any], where: str) -> None:
        schema = self.resolve(schema)
        assert schema.keys() <= _KNOWN, f"{where}: this check does not know {schema.keys() - _KNOWN}"
        if "anyOf" in schema:
            assert any(self._does_fit(value, one) for one in schema["anyOf"]), f"{where}: {value!r} fits none"
        if "type" in schema:
            assert isinstance(value, _TYPES[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"
            assert schema["type"] not in ("integer", "number") or not isinstance(value, bool), where
        assert "const" not in schema or value == schema["const"], where
        assert "enum" not in schema or value in schema["enum"], f"{where}: {value!r}"
        if "format" in schema and isinstance(value, str):
            _FORMATS[schema["format"]](value)
        if isinstance(value, dict):
            missing = set(schema.get("required", ())) - value.keys()
            assert not missing, f"{where} lacks {missing}"
            known = schema.get("properties", {})
            more = schema.get("additionalProperties", {})
            for name, part in value.items():
                if isinstance(more, dict) and (name in known or more):
                    self.fits(part, known.get(name, more), f"{where} {name}")
        if isinstance(value, list):
            for number, part in enumerate(value):
                self.fits(part, schema.get("items", {}), f"{where} {number}")

    def _does_fit(self, value: Any, schema: dict[str, Any]) -> bool:
        try:
            self.fits(value, schema, "")
        except (AssertionError, ValueError):
            return False
        return True
