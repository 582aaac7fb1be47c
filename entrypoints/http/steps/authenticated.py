"""Identifies the caller: the user and the session of the bearer token."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from application.accounts.sessions import Authenticate
from domain.errors import TokenInvalid, TokenMissing
from entrypoints.http.steps.call import Answer, Call, Step


def authenticated(step: Step, authenticate: Authenticate) -> Step:
    async def look_up(call: Call) -> Answer | HTTPResponse | None:
        call.caller = call.arguments["caller"] = await authenticate(token=bearer_token(call.request))
        return await step(call)

    return look_up


def bearer_token(request: Request) -> str:
    """Raises TokenMissing or TokenInvalid."""
    values = request.headers.getall("authorization", [])
    if not values:
        raise TokenMissing
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token:
        raise TokenInvalid
    return token.strip()
