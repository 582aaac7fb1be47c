"""Idempotency-Key: a repeated request takes effect once.

A call that takes a key is declared with `idempotent=True` or with `creates`. If the process dies between the effect and
the stored reply, only the handler can prevent a second effect: it takes the key's id, as the argument that `creates`
names or as `request_id`, and passes it to a store that acts once per id.
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
#: One of this many requests with a new key removes the oldest keys of its user, beyond those that a user may have.
_TRIM_EVERY = 32
#: How long a key stays locked after its request has timed out.
_RESERVE_SECONDS = 5


def keyless(step: Step) -> Step:
    """Refuses a key on a call that would ignore it."""

    async def refuse(call: Call) -> Answer | HTTPResponse | None:
        if HEADER in call.request.headers:
            raise IdempotencyKeyUnsupported
        return await step(call)

    return refuse


def idempotent(step: Step, endpoint: Endpoint, kit: Kit) -> Step:
    """Runs a request with its key's id, or replays the stored reply.

    Only a success is stored. A refusal (4xx) had no effect, so the key is forgotten. After any other failure the key is
    released and keeps its id, as it does by timeout if the process dies.
    """
    busy_for = timedelta(seconds=kit.settings.http.request_seconds + _RESERVE_SECONDS)
    names = {endpoint.creates or "", "request_id"} & endpoint.takes.keys()
    call_name = endpoint.name
    keep = kit.settings.limits.idempotency_keys_per_user

    async def once(call: Call) -> Answer | HTTPResponse | None:
        if HEADER not in call.request.headers:
            return await step(call)
        key = _key_of(call.request)
        subject = _subject(call, kit)
        scope = f"{subject} {call_name}"
        new_id = kit.ids.new()
        body_hash = _hash_of(call.request, kit.hash_key)
        begun = await kit.keys.begin(scope, key, body_hash, new_id=new_id, busy_for=busy_for)
        if isinstance(begun, StoredReply):
            return Answer(begun.status, begun.body, {"idempotency-replayed": "true"})
        if new_id.int % _TRIM_EVERY == 0:
            await kit.keys.trim([f"{subject} {name}" for name in kit.keyed_calls], keep=keep)
        call.arguments |= dict.fromkeys(names, begun.resource_id)
        answer: Answer | HTTPResponse | None
        try:
            answer = await step(call)
        except Exception as error:  # noqa: BLE001 - an error is a reply, too, and its status decides about the key
            answer = call.request.app.error_handler.default(call.request, error)
        assert answer is not None, "a stream is opened outside of this step"
        await _keep(kit.keys, scope, key, answer, is_first=begun.resource_id == new_id)
        return answer

    return once


async def _keep(keys: IdempotencyKeys, scope: str, key: str, answer: Answer | HTTPResponse, *, is_first: bool) -> None:
    # If the database fails now, it already has the effect: a repeated request finds it by its id.
    with contextlib.suppress(Unavailable):
        if answer.status < 400:
            await keys.finish(scope, key, StoredReply(answer.status, answer.body or b""))
        elif answer.status < 500 and is_first:  # an earlier attempt may have had an effect
            await keys.forget(scope, key)
        else:
            await keys.abandon(scope, key)


def _key_of(request: Request) -> str:
    keys = request.headers.getall(HEADER)
    key = str(keys[0])
    if len(keys) > 1 or not _KEY.fullmatch(key):
        raise InvalidRequest([FieldError(pointer=HEADER, detail="must be one of 1 to 255 visible ASCII characters")])
    return key


def _hash_of(request: Request, hash_key: bytes) -> bytes:
    """Keyed, because it is stored and a body may contain a password."""
    return hmac.digest(hash_key, b"\0".join([request.path.rstrip("/").encode(), request.body]), "sha256")


def _subject(call: Call, kit: Kit) -> UUID | str:
    """The caller, or without a login the number in the body."""
    if call.caller is not None:
        return call.user_id
    body: Any = call.arguments["body"]
    return kit.number_digests.digest(kit.mobile_numbers.parse(body.mobile))
