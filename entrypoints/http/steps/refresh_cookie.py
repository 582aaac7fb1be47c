"""The refresh token in an HttpOnly cookie, for browser pages.

A page that stores the token where JavaScript can read it loses it to the first injected script. With the header
`X-Refresh-Token: cookie` the token is set as an HttpOnly cookie instead of being returned in the body. Other sites
cannot use the cookie: it is SameSite=Strict, and only our own origin may send the header.
"""

from __future__ import annotations

import codecs

import msgspec
from pydantic import ValidationError
from sanic import HTTPResponse, Request

from domain.accounts import SESSION_IDLE
from domain.errors import RefreshTokenInvalid
from entrypoints.http.api.schemas.accounts import RefreshBody, SignedInReply
from entrypoints.http.steps.call import Answer, Call, Step
from entrypoints.settings import Settings

HEADER, VALUE = "X-Refresh-Token", "cookie"
COOKIE = "refresh_token"
PATH = "/auth"


def cookied(step: Step) -> Step:
    """Moves the refresh token from the reply to the cookie on request."""

    async def move(call: Call) -> Answer | HTTPResponse | None:
        answer = await step(call)
        if isinstance(answer, Answer) and wants_cookie(call.request):
            answer.cookie = ""
            if isinstance(answer.content, SignedInReply):
                answer.cookie = answer.content.refresh_token
                answer.content = msgspec.structs.replace(answer.content, refresh_token="")
        return answer

    return move


def wants_cookie(request: Request) -> bool:
    return bool(request.headers.get(HEADER, "").strip().lower() == VALUE)


def body(request: Request) -> RefreshBody | None:
    """Replaces a missing body by the cookie. Raises RefreshTokenInvalid if that is missing, too."""
    if request.body.removeprefix(codecs.BOM_UTF8).strip() not in (b"", b"{}") or not wants_cookie(request):
        return None
    try:
        return RefreshBody(refresh_token=request.cookies.get(COOKIE, ""))
    except ValidationError:
        raise RefreshTokenInvalid from None


def put(response: HTTPResponse, token: str, settings: Settings) -> None:
    """Set the cookie; an empty token removes it."""
    response.add_cookie(
        COOKIE,
        token,
        path=PATH,
        httponly=True,
        samesite="Strict",
        secure=settings.is_production or settings.public_url.startswith("https://"),
        max_age=int(SESSION_IDLE.total_seconds()) if token else 0,
    )
