"""Idempotency-Key: a request that may be repeated, and takes effect once.

A call that takes one is declared with `idempotent=True`, or with what it `creates`. What happens if the process dies
between the effect and the kept reply is up to its handler: it may take the id that the key stands for, as the argument
that `creates` names or as `request_id`, and give it to a store that does nothing twice for one id.
"""

from __future__ import annotations

import contextlib
import hmac
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

from sanic import HTTPResponse, Request

from application.ports.runtime import IdempotencyKeys, StoredReply
from domain.errors import IdempotencyKeyUnsupported, Unavailable
from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.api.schemas.problem import FieldError
from entrypoints.http.server.errors import InvalidRequest
from entrypoints.http.steps.call import Answer, Call, Kit, Step

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
#: Seconds beyond a request's own time for which its key is held.
_RESERVE_SECONDS = 5


def keyless(step: Step) -> Step:
    """Refuses a key that would have no effect."""

    async def refuse(call: Call) -> Answer | HTTPResponse | None:
        if HEADER in call.request.headers:
            raise IdempotencyKeyUnsupported
        return await step(call)

    return refuse


def idempotent(step: Step, endpoint: Endpoint, kit: Kit) -> Step:
    """Runs a request with the id that its key has, or replays the reply that it had.

    Only what took effect is kept. A refusal (4xx) did nothing, so the key is as good as new; after anything else
    the key is free again, with the same id, as it is after a while if the process dies in between.
    """
    busy_for = timedelta(seconds=kit.settings.http.request_seconds + _RESERVE_SECONDS)
    names = {endpoint.creates or "", "request_id"} & endpoint.takes.keys()

    async def once(call: Call) -> Answer | HTTPResponse | None:
        if HEADER not in call.request.headers:
            return await step(call)
        key = _key_of(call.request)
        scope = f"{_subject(call, kit)} {endpoint.name}"
        new_id = kit.ids.new()
        body_hash = _hash_of(call.request, kit.hash_key)
        begun = await kit.keys.begin(scope, key, body_hash, new_id=new_id, busy_for=busy_for)
        if isinstance(begun, StoredReply):
            return Answer(begun.status, begun.body, {"idempotency-replayed": "true"})
        call.arguments |= dict.fromkeys(names, begun)
        answer: Answer | HTTPResponse | None
        try:
            answer = await step(call)
        except Exception as error:  # noqa: BLE001 - a refusal is a reply too, and the key depends on its status
            answer = call.request.app.error_handler.default(call.request, error)
        assert answer is not None, "a stream is opened outside of this step"
        await _keep(kit.keys, scope, key, answer, is_first=begun == new_id)
        return answer

    return once


async def _keep(keys: IdempotencyKeys, scope: str, key: str, answer: Answer | HTTPResponse, *, is_first: bool) -> None:
    # A database that goes away now has the effect already: repeating the request finds it by its id.
    with contextlib.suppress(Unavailable):
        if answer.status < 400:
            await keys.finish(scope, key, StoredReply(answer.status, answer.body or b""))
        elif answer.status < 500 and is_first:  # else an earlier try may have had its effect
            await keys.forget(scope, key)
        else:
            await keys.abandon(scope, key)


def _key_of(request: Request) -> str:
    key = str(request.headers[HEADER])
    if not _KEY.fullmatch(key):
        raise InvalidRequest([FieldError(pointer=HEADER, detail="must be 1 to 255 visible ASCII characters")])
    return key


def _hash_of(request: Request, hash_key: bytes) -> bytes:
    """Keyed, because it is kept and a body may have a password in it."""
    return hmac.digest(hash_key, b"\0".join([request.path.rstrip("/").encode(), request.body]), "sha256")


def _subject(call: Call, kit: Kit) -> UUID | str:
    """Who is not logged in is known by the number in the body."""
    if call.caller is not None:
        return call.user_id
    body: Any = call.arguments["body"]
    return kit.number_digests.digest(kit.mobile_numbers.parse(body.mobile))
