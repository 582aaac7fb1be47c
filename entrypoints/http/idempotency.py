"""Idempotency-Key: a request that may be repeated, and takes effect once."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

from sanic import HTTPResponse, Request

from application.ports.runtime import IdempotencyKeys, StoredReply
from domain.errors import Unavailable
from entrypoints.http.errors import MEDIA_TYPE, NO_STORE, InvalidRequest, request_id
from entrypoints.http.schemas import FieldError

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def once(
    request: Request,
    keys: IdempotencyKeys,
    *,
    scope: str,
    new_id: UUID,
    busy_for: timedelta,
    run: Callable[[UUID], Awaitable[HTTPResponse]],
) -> HTTPResponse:
    """Run the request with the id that its key has, or replay the reply that it had.

    What the client should simply try again (5xx, 429, 409) is not kept. If the process dies in
    between, the key is free again after `busy_for`, with the same id.
    """
    key = request.headers[HEADER]
    if not _KEY.fullmatch(key):
        raise InvalidRequest([FieldError(pointer=HEADER, detail="must be 1 to 255 visible ASCII characters")])
    body_hash = hashlib.sha256(b"\0".join([request.path.rstrip("/").encode(), request.body])).digest()
    begun = await keys.begin(scope, key, body_hash, new_id=new_id, busy_for=busy_for)
    if isinstance(begun, StoredReply):
        return _replay(request, begun)
    try:
        response = await run(begun)
    except Exception as error:  # noqa: BLE001 - a refusal is a reply too, and is kept or not by its status
        response = request.app.error_handler.default(request, error)
    # A database that goes away now has the effect already: repeating the request finds it by its id.
    with contextlib.suppress(Unavailable):
        if response.status >= 500 or response.status in (409, 429):
            await keys.abandon(scope, key)
        else:
            await keys.finish(scope, key, StoredReply(response.status, response.body or b""))
    return response


def _replay(request: Request, reply: StoredReply) -> HTTPResponse:
    return HTTPResponse(
        reply.body,
        status=reply.status,
        headers={"idempotency-replayed": "true", "x-request-id": request_id(request), **NO_STORE},
        content_type="application/json" if reply.status < 400 else MEDIA_TYPE,
    )
