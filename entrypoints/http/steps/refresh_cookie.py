"""The refresh token in a cookie that no script can read, for pages in a browser.

A page that keeps it in JavaScript's reach loses it to the first script that is injected. So it may ask, with
the header `X-Refresh-Token: cookie`, to have it in an HttpOnly cookie instead of the body. No other site can
use that cookie: SameSite=Strict keeps it at home, and none but our own origin may send the header.
"""

from __future__ import annotations

import codecs

from pydantic import ValidationError
from sanic import HTTPResponse, Request

from domain.accounts import SESSION_IDLE
from domain.errors import RefreshTokenInvalid
from entrypoints.http.api.schemas.accounts import RefreshBody
from entrypoints.http.steps.call import Answer, Call, Step
from entrypoints.settings import Settings

HEADER, VALUE = "X-Refresh-Token", "cookie"
COOKIE = "refresh_token"
PATH = "/auth"


def cookied(step: Step) -> Step:
    """Moves the refresh token from the reply to the cookie, if the caller asks for it."""

    async def move(call: Call) -> Answer | HTTPResponse | None:
        answer = await step(call)
        if isinstance(answer, Answer) and wants_cookie(call.request):
            answer.cookie = getattr(answer.content, "refresh_token", "")
            answer.left_out = {"refresh_token"}
        return answer

    return move


def wants_cookie(request: Request) -> bool:
    return bool(request.headers.get(HEADER, "").strip().lower() == VALUE)


def body(request: Request) -> RefreshBody | None:
    """What stands in for a body that is not there. Raises RefreshTokenInvalid if there is no cookie either."""
    if request.body.removeprefix(codecs.BOM_UTF8).strip() not in (b"", b"{}") or not wants_cookie(request):
        return None
    try:
        return RefreshBody(refresh_token=request.cookies.get(COOKIE, ""))
    except ValidationError:
        raise RefreshTokenInvalid from None


def put(response: HTTPResponse, token: str, settings: Settings) -> None:
    """Have the browser keep the token; without one, forget what it has."""
    response.add_cookie(
        COOKIE,
        token,
        path=PATH,
        httponly=True,
        samesite="Strict",
        secure=settings.is_production or settings.public_url.startswith("https://"),
        max_age=int(SESSION_IDLE.total_seconds()) if token else 0,
    )
