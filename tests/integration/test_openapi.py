"""The OpenAPI document: well-formed, complete, and about the routes that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx

from entrypoints.http.app import create_app
from entrypoints.settings import Settings
from tests.openapi_check import Document

PAGES = {("GET", "/"), ("GET", "/assets/{name}"), ("GET", "/docs"), ("GET", "/openapi.json")}


async def document(http: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get("/openapi.json")).json()
    return found


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in it, at whatever depth."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(part)


async def test_it_is_openapi_3_1(http: httpx.AsyncClient) -> None:
    found = await document(http)
    assert found["openapi"] == "3.1.0"
    assert {"title", "version"} <= found["info"].keys()
    names = [operation["operationId"] for _, _, _, operation in Document(found).operations]
    assert len(names) == len(set(names))
    for path, operations in found["paths"].items():
        assert path.startswith("/")
        for method, operation in operations.items():
            assert method in {"get", "post", "put", "patch", "delete"}
            assert operation["summary"].endswith(".")
            assert operation["tags"][0] in {tag["name"] for tag in found["tags"]}
            in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")
            for need in operation.get("security", ()):
                assert need.keys() <= found["components"]["securitySchemes"].keys()
                assert "401" in operation["responses"]
            for status, reply in operation["responses"].items():
                assert re.fullmatch(r"[1-5]\d\d", status)
                assert reply["description"]
                if int(status) >= 400:
                    assert list(reply["content"]) == ["application/problem+json"]
                else:
                    assert reply.get("content", {}).keys() <= {"application/json", "text/event-stream", "text/plain"}
                    assert ("content" in reply) == (status != "204")


async def test_every_reference_leads_somewhere_and_nothing_is_left_over(http: httpx.AsyncClient) -> None:
    found = await document(http)
    references = {part["$ref"] for part in parts(found) if "$ref" in part}
    schemas = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert references == schemas


async def test_it_lists_exactly_the_routes(http: httpx.AsyncClient, api_environment: dict[str, str]) -> None:
    listed = {(method, path) for method, path, _, _ in Document(await document(http)).operations}
    app = create_app(Settings.from_environment(api_environment), name="routes")
    routed = {
        (method, "/" + re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.path))
        for route in app.router.routes
        for method in route.methods
        if method != "HEAD"
    }
    assert listed == routed - PAGES


async def test_examples_fit_their_schemas(http: httpx.AsyncClient) -> None:
    found = await document(http)
    checker = Document(found)
    for part in parts(found["components"]["schemas"]):
        for example in part.get("examples", ()) if isinstance(part.get("examples"), list) else ():
            checker.fits(example, part, str(example))
