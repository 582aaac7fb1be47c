"""Idempotency-Key: a request that may be repeated, and takes effect once.

A call that takes one is declared with `idempotent=True`, or with what it `creates`. What happens if the process dies
between the effect and the kept reply is up to its handler: it may take the id that the key stands for, as the argument
that `creates` names or as `request_id`, and give it to a store that does nothing twice for one id.
"""

from __future__ import annotations

import contextlib
import hmac
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

from sanic import HTTPResponse, Request

from application.ports.runtime import IdempotencyKeys, StoredReply
from domain.errors import Unavailable
from entrypoints.http.errors import NO_STORE, InvalidRequest, request_id
from entrypoints.http.schemas import FieldError

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def once(
    request: Request,
    keys: IdempotencyKeys,
    *,
    scope: str,
    hash_key: bytes,
    new_id: UUID,
    busy_for: timedelta,
    run: Callable[[UUID], Awaitable[HTTPResponse]],
) -> HTTPResponse:
    """Run the request with the id that its key has, or replay the reply that it had.

    Only what took effect is kept. A refusal (4xx) did nothing, so the key is as good as new; after anything else
    the key is free again, with the same id, as it is after `busy_for` if the process dies in between.
    """
    key = request.headers[HEADER]
    if not _KEY.fullmatch(key):
        raise InvalidRequest([FieldError(pointer=HEADER, detail="must be 1 to 255 visible ASCII characters")])
    # Keyed, because it is kept and a body may have a password in it.
    body_hash = hmac.digest(hash_key, b"\0".join([request.path.rstrip("/").encode(), request.body]), "sha256")
    begun = await keys.begin(scope, key, body_hash, new_id=new_id, busy_for=busy_for)
    if isinstance(begun, StoredReply):
        return _replay(request, begun)
    try:
        response = await run(begun)
    except Exception as error:  # noqa: BLE001 - a refusal is a reply too, and the key depends on its status
        response = request.app.error_handler.default(request, error)
    # A database that goes away now has the effect already: repeating the request finds it by its id.
    with contextlib.suppress(Unavailable):
        if response.status < 400:
            await keys.finish(scope, key, StoredReply(response.status, response.body or b""))
        elif response.status < 500 and begun == new_id:  # else an earlier try may have had its effect
            await keys.forget(scope, key)
        else:
            await keys.abandon(scope, key)
    return response


def _replay(request: Request, reply: StoredReply) -> HTTPResponse:
    return HTTPResponse(
        reply.body,
        status=reply.status,
        headers={"idempotency-replayed": "true", "x-request-id": request_id(request), **NO_STORE},
        content_type="application/json",
    )
