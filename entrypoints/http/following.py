"""How a caller gets a reply that is not there yet: not now, by waiting (Prefer: wait), or as a stream (Accept)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from uuid import UUID

from sanic import HTTPResponse, Request

from application.accounts.sessions import Caller
from domain.chat import Message
from domain.errors import Unavailable
from domain.ids import ChatroomId, MessageId
from entrypoints.container import Container
from entrypoints.http import sse

PREFER = "Prefer"
MAX_WAIT_SECONDS = 60

_WAIT = re.compile(r"wait\s*=\s*(?:([0-9]{1,9})|\"([0-9]{1,9})\")", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wish:
    """Nothing of it: the answer as it is."""

    stream: bool = False
    wait: int | None = None
    """Seconds."""
    preferred: bool = False
    """They are the caller's own choice."""


NONE = Wish()


def wish_of(request: Request, *, may_stream: bool, wait: int | None = None) -> Wish:
    """`wait` is what such a call waits for anyway."""
    if may_stream and _asks_for_stream(",".join(request.headers.getall("accept", []))):
        return Wish(stream=True)
    preferred = _preferred_wait(",".join(request.headers.getall(PREFER, [])))
    return Wish(wait=wait) if preferred is None else Wish(wait=preferred, preferred=True)


async def fulfil(
    wish: Wish, request: Request, container: Container, caller: Caller, chatroom_id: ChatroomId, answer: HTTPResponse
) -> HTTPResponse | None:
    """Turn an answer that tells of a message into what the caller wished for: None if it was streamed.

    The answer may be an old one, kept for whoever repeats the request. If Postgres goes away now it
    stays as it is, because it is true: the message was accepted.
    """
    body = json.loads(answer.body or b"")
    message_id = MessageId(UUID(body["data"]["id"]))
    try:
        if wish.stream:
            stream = container.stream_reply()(user=caller.user, chatroom_id=chatroom_id, message_id=message_id)
            location = f"/chatroom/{chatroom_id}/message/{message_id}"
            headers = {**dict(answer.headers), "location": location}
            return await request.app.ctx.streams.send(request, stream, headers)  # type: ignore[no-any-return]
        assert wish.wait is not None
        message = await _wait(wish.wait, request, container, caller, chatroom_id, message_id)
    except Unavailable:
        return answer
    body["data"] = json.loads(sse.message_json(message))
    return HTTPResponse(
        json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        status=200 if message.status.is_final else 202,
        headers={**dict(answer.headers), **({"preference-applied": f"wait={wish.wait}"} if wish.preferred else {})},
        content_type="application/json",
    )


async def _wait(
    seconds: int,
    request: Request,
    container: Container,
    caller: Caller,
    chatroom_id: ChatroomId,
    message_id: MessageId,
) -> Message:
    with sse.no_deadline(request):
        try:
            async with request.app.ctx.streams.patience(None):
                return await container.await_reply()(
                    user=caller.user, chatroom_id=chatroom_id, message_id=message_id, seconds=seconds
                )
        except TimeoutError:  # this process is told to stop
            return await container.get_message()(user=caller.user, chatroom_id=chatroom_id, message_id=message_id)


def _preferred_wait(header: str) -> int | None:
    """RFC 7240: the first one counts, and what is malformed or unknown is ignored."""
    for preference in header.split(","):
        if found := _WAIT.fullmatch(preference.partition(";")[0].strip()):
            return min(int(found[1] or found[2]), MAX_WAIT_SECONDS)
    return None


def _asks_for_stream(header: str) -> bool:
    """Whether events are asked for by name, and JSON is not preferred to them."""
    weights = {"text/event-stream": 0.0, "application/json": 0.0}
    for accepted in header.split(","):
        name, *parameters = (part.strip().lower() for part in accepted.split(";"))
        if name in weights:
            weights[name] = next((_weight(p) for p in parameters if p.startswith("q=")), 1.0)
    return weights["text/event-stream"] > 0 and weights["text/event-stream"] >= weights["application/json"]


def _weight(parameter: str) -> float:
    try:
        return float(parameter.removeprefix("q="))
    except ValueError:
        return 0.0
