"""The OpenAPI document: well-formed, complete, and about the routes that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
from pydantic.alias_generators import to_camel

from entrypoints.http.server.app import create_app
from entrypoints.settings import Settings
from tests.support.openapi_check import Document

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


async def test_what_a_request_may_leave_out_has_no_default(http: httpx.AsyncClient) -> None:
    """openapi-typescript requires a property with a default, so a typed client could not leave it out."""
    found = await document(http)
    bodies = [
        found["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        for _, _, _, operation in Document(found).operations
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in content["schema"]
    ]
    optional = [(body, name) for body in bodies for name in body["properties"] if name not in body.get("required", ())]
    assert len(optional) >= 6
    assert not [name for body, name in optional if "default" in body["properties"][name]]
    assert not [part for body in bodies for part in parts(body) if "default" in part]


async def test_every_reference_leads_somewhere_and_nothing_is_left_over(http: httpx.AsyncClient) -> None:
    found = await document(http)
    references = {part["$ref"] for part in parts(found) if "$ref" in part}
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "headers") for name in found["components"][kind]}
    assert references == there


async def test_it_lists_exactly_the_routes(http: httpx.AsyncClient, api_environment: dict[str, str]) -> None:
    listed = {(method, path) for method, path, _, _ in Document(await document(http)).operations}
    app = create_app(Settings.from_environment(api_environment), name="routes")
    routed = {
        (method, "/" + re.sub(r"<(\w+)(:\w+)?>", lambda name: f"{{{to_camel(name[1])}}}", route.path))
        for route in app.router.routes
        for method in route.methods
        if method != "HEAD"
    }
    assert listed == routed - PAGES


async def test_examples_fit_their_schemas(http: httpx.AsyncClient) -> None:
    found = await document(http)
    checker = Document(found)
    for part in parts([found["components"], found["paths"]]):
        for example in part.get("examples", ()) if isinstance(part.get("examples"), list) else ():
            checker.fits(example, part, str(example))


async def test_everything_that_a_client_sends_or_gets_is_described(http: httpx.AsyncClient) -> None:
    found = await document(http)
    for tag in found["tags"]:
        assert tag["description"]
    for _, path, _, operation in Document(found).operations:
        for parameter in operation["parameters"]:
            assert parameter["description"].endswith("."), (path, parameter["name"])
    for name, schema in found["components"]["schemas"].items():
        for field, part in schema.get("properties", {}).items():
            # A referenced type has its own description.
            described = part.get("description") or list(parts(part))[1:] or "$ref" in part
            assert described, f"{name}.{field}"
            assert part.get("description", ".").endswith((".", "…")), f"{name}.{field}"


async def test_the_docs_page_describes_every_call_and_code(http: httpx.AsyncClient) -> None:
    found, page = await document(http), await http.get("/docs")
    assert "<script" not in page.text
    assert "style-src 'sha256-" in page.headers["content-security-policy"]
    for _, _, _, operation in Document(found).operations:
        assert f'<article id="{operation["operationId"]}">' in page.text
        for reply in operation["responses"].values():
            for code in re.findall(r"(?m)^- `(\w+)`", reply["description"]):
                assert f"<td><code>{code}</code></td>" in page.text
    links = set(re.findall(r'href="#(\w+)"', page.text))
    assert links <= set(re.findall(r'id="(\w+)"', page.text))
    assert "{" not in re.sub(r"(?s)<style>.*?</style>|<pre.*?</pre>|<code>.*?</code>", "", page.text)
