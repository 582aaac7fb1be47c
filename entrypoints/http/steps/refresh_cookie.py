"""The refresh token and the device's token in HttpOnly cookies, for browser pages.

A page that stores the token where JavaScript can read it loses it to the first injected script. With the header
`X-Refresh-Token: cookie` the tokens are set as HttpOnly cookies instead of being returned in the body. Other sites
cannot use the cookies: they are SameSite=Strict, and only our own origin may send the header.

Over HTTPS their names begin with `__Host-`, so that no other host of the domain can set them. Cookies of earlier
versions had no prefix; they are read until the next refresh replaces them.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from pydantic import ValidationError
from sanic import HTTPResponse, Request

from domain.accounts import DEVICE_RETENTION, SESSION_IDLE
from domain.errors import RefreshTokenInvalid
from entrypoints.http.api.schemas.accounts import RefreshBody, SignedInReply
from entrypoints.http.steps.call import Answer, Call, Step
from entrypoints.settings import Settings

HEADER, VALUE = "X-Refresh-Token", "cookie"
REFRESH, DEVICE = "refresh_token", "device_token"
_HOST = "__Host-"
_PATH = "/auth"  # without the prefix, which demands /
#: Of one name. Each is looked up.
_MAX_COOKIES = 5


def cookied(step: Step) -> Step:
    """Moves the tokens from the reply to cookies on request."""

    async def move(call: Call) -> Answer | HTTPResponse | None:
        answer = await step(call)
        if isinstance(answer, Answer) and wants_cookie(call.request):
            answer.cookies[REFRESH] = ""
            if isinstance(answer.content, SignedInReply):
                answer.cookies[REFRESH] = answer.content.refresh_token
                if answer.content.device_token:
                    answer.cookies[DEVICE] = answer.content.device_token
                answer.content = msgspec.structs.replace(answer.content, refresh_token="", device_token="")
        return answer

    return move


def wants_cookie(request: Request) -> bool:
    return bool(request.headers.get(HEADER, "").strip().lower() == VALUE)


def body(request: Request) -> RefreshBody | None:
    """Replaces a missing body by the cookie. Raises RefreshTokenInvalid if that is missing, too."""
    if request.body.removeprefix(codecs.BOM_UTF8).strip() not in (b"", b"{}") or not wants_cookie(request):
        return None
    try:
        return RefreshBody.of_cookies(_values(request, REFRESH))
    except ValidationError:
        raise RefreshTokenInvalid from None


def device_token(request: Request) -> str:
    """Empty if there is none."""
    return next(iter(_values(request, DEVICE)), "")


def _values(request: Request, name: str) -> Sequence[str]:
    """All cookies of that name, those with the prefix first. A browser sends several if paths or hosts differ.

    Sanic's own methods hide those without the prefix behind those with it.
    """
    found = [value for full in (_HOST + name, name) for value in dict.get(request.cookies, full, [])]
    return found[:_MAX_COOKIES]


def put(response: HTTPResponse, request: Request, name: str, token: str, settings: Settings) -> None:
    """Set a cookie; an empty token removes it."""
    kept_for = DEVICE_RETENTION if name == DEVICE else SESSION_IDLE
    is_secure = settings.is_production or settings.public_url.startswith("https://")
    _set(response, name, token, kept_for if token else timedelta(), is_secure=is_secure)
    if is_secure and name in request.cookies:  # of an earlier version
        _set(response, name, "", timedelta(), is_secure=False)


def _set(response: HTTPResponse, name: str, token: str, kept_for: timedelta, *, is_secure: bool) -> None:
    response.add_cookie(
        name,
        token,
        path="/" if is_secure else _PATH,
        httponly=True,
        samesite="Strict",
        secure=is_secure,
        host_prefix=is_secure,
        max_age=int(kept_for.total_seconds()),
    )
