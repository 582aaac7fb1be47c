"""GET /: the chat page for clients that accept HTML by name, a line of text for all others; and the page's files.

`make web` builds the page from entrypoints/web/src. It is read once, at start.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import NotFound
from sanic.response import text

from entrypoints.http.server.headers import request_id
from entrypoints.settings import Settings

DIST = Path(__file__).parents[2] / "web" / "dist"

_READ = ["GET", "HEAD"]
# Nothing from other origins, nothing inline, and only DOMPurify may turn text into HTML.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    ]
)
_A_YEAR = "public, max-age=31536000, immutable"  # a file's name has its content's hash
_ENCODINGS = {"br": ".br", "gzip": ".gz"}  # the smaller one first


@dataclass(frozen=True, slots=True)
class File:
    type: str
    #: By content coding; "" is the plain file.
    bodies: dict[str, bytes]

    def answer(self, request: Request, headers: dict[str, str]) -> HTTPResponse:
        accepted = _codings(request.headers.get("accept-encoding", ""))
        coding = next((name for name in self.bodies if name and name in accepted), "")
        return HTTPResponse(
            self.bodies[coding],
            headers={
                "x-request-id": request_id(request),
                **({"content-encoding": coding} if coding else {}),
                **headers,
            },
            content_type=self.type,
        )


@cache
def files() -> dict[str, File]:
    """By name, as listed in the build's manifest."""
    manifest: dict[str, str] = json.loads((DIST / "manifest.json").read_text())
    found = {}
    for name, media_type in manifest.items():
        codings = {coding: DIST / f"{name}{suffix}" for coding, suffix in _ENCODINGS.items()}
        bodies = {coding: path.read_bytes() for coding, path in codings.items() if path.exists()}
        found[name] = File(media_type, {**bodies, "": (DIST / name).read_bytes()})
    return found


def route_page(app: Sanic[Any, Any], settings: Settings) -> None:
    @app.route("/", methods=_READ, name="home")
    async def home(request: Request) -> HTTPResponse:
        if settings.http.web_page and _asks_for_html(request.headers.get("accept", "")):
            return _page(request)
        return text(
            "The Gemini backend is running. Its calls are described at /docs.",
            headers={"x-request-id": request_id(request), "vary": "Accept"},
        )

    if not settings.http.web_page:
        return
    files()  # fails at start if they are missing

    @app.route("/assets/<name>", methods=_READ, name="assets")
    async def assets(request: Request, name: str) -> HTTPResponse:
        if (file := files().get(f"assets/{name}")) is None:
            raise NotFound
        return file.answer(request, {"cache-control": _A_YEAR, "vary": "Accept-Encoding"})


def _page(request: Request) -> HTTPResponse:
    page = files()["index.html"]
    tag = f'W/"{hashlib.sha256(page.bodies[""]).hexdigest()[:20]}"'
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": _POLICY,
        "etag": tag,
        "vary": "Accept, Accept-Encoding",
    }
    if tag in request.headers.get("if-none-match", ""):
        return HTTPResponse(status=304, headers={"x-request-id": request_id(request), **headers})
    return page.answer(request, headers)


def _asks_for_html(accept: str) -> bool:
    """By name: for `*/*`, which curl and most libraries send, the reply stays the line of text."""
    return any(
        part.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml") for part in accept.split(",")
    )


def _codings(header: str) -> set[str]:
    accepted = set()
    for part in header.split(","):
        name, _, weight = part.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            accepted.add(name.strip().lower())
    return accepted
