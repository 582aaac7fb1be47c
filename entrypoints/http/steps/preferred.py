"""How the caller prefers to get a reply that is not ready yet: by waiting (Prefer: wait) or as a stream (Accept)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sanic import HTTPResponse, Request

from application.accounts.sessions import Caller
from domain.chat.messages import Message
from domain.errors import StreamsExhausted, TokenInvalid, TooManyStreams, Unavailable
from domain.ids import ChatroomId, MessageId
from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.api.schemas import chat as schemas
from entrypoints.http.api.schemas.common import ReplySchema
from entrypoints.http.server import sse
from entrypoints.http.steps.call import Answer, Call, Kit, Step

PREFER = "Prefer"
MAX_WAIT_SECONDS = 60

_WAIT = re.compile(r"wait\s*=\s*(?:([0-9]{1,9})|\"([0-9]{1,9})\")", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Preference:
    """Without either, the answer is left as it is."""

    stream: bool = False
    #: Seconds.
    wait: int | None = None
    #: By the caller, not by the call's default.
    stated: bool = False


NO_PREFERENCE = Preference()


def preferred(step: Step, endpoint: Endpoint, kit: Kit) -> Step:
    """Turns an answer with a message into the form that the caller prefers.

    The answer may be a replay for an Idempotency-Key. If Postgres becomes unavailable now, the answer stays as it is,
    because it is true: the message was accepted.
    """
    may_stream, default_wait = endpoint.may_stream, endpoint.default_wait

    async def prefer(call: Call) -> Answer | HTTPResponse | None:
        preference = preference_of(call.request, may_stream=may_stream, default_wait=default_wait)
        if preference == NO_PREFERENCE:
            return await step(call)
        assert call.caller is not None, "only users have messages"
        with _slot(kit.streams, call.caller, preference) as slot:  # before anything is accepted
            answer = await step(call)
            if not isinstance(answer, Answer) or answer.status != endpoint.status:
                return answer
            call.leave()
            try:
                if slot is None:
                    return await _as_it_is(call, kit, answer)
                if preference.stream:
                    return await _stream(call, kit, slot, answer)
                return await _wait(call, kit, slot, answer, preference)
            except Unavailable:
                return answer

    return prefer


@contextmanager
def _slot(streams: sse.Streams, caller: Caller, preference: Preference) -> Iterator[sse.Slot | None]:
    """For a stream or a wait, which need one each. Without one a wait, as a preference only, is ignored."""
    with ExitStack() as stack:
        try:
            slot = stack.enter_context(streams.slot(caller))
        except (TooManyStreams, StreamsExhausted):
            if preference.stream:
                raise
            slot = None
        yield slot


def preference_of(request: Request, *, may_stream: bool, default_wait: int | None = None) -> Preference:
    if may_stream and _asks_for_stream(",".join(request.headers.getall("accept", []))):
        return Preference(stream=True)
    stated = _preferred_wait(",".join(request.headers.getall(PREFER, [])))
    return Preference(wait=default_wait) if stated is None else Preference(wait=stated, stated=True)


async def _stream(call: Call, kit: Kit, slot: sse.Slot, answer: Answer) -> HTTPResponse | None:
    chatroom_id: ChatroomId = call.arguments["chatroom_id"]
    message_id = _message_id(answer)
    reply = kit.stream_reply(user=_user(call), chatroom_id=chatroom_id, message_id=message_id)
    headers = {**answer.headers, "location": f"/chatroom/{chatroom_id}/message/{message_id}"}
    return await kit.streams.send(call.request, slot, reply, headers)


async def _wait(call: Call, kit: Kit, slot: sse.Slot, answer: Answer, preference: Preference) -> Answer:
    assert preference.wait is not None
    of = _message(call, answer)
    with sse.no_deadline(call.request):
        try:
            async with slot.timeout(None):
                message = await kit.await_reply(**of, seconds=preference.wait)
        except TimeoutError:
            if slot.is_revoked:
                raise TokenInvalid from None
            message = await kit.get_message(**of)  # this process is stopping
    applied = {"preference-applied": f"wait={preference.wait}"} if preference.stated else {}
    status = 200 if message.status.is_final else 202
    return Answer(status, _with_message(answer.content, message), {**answer.headers, **applied})


async def _as_it_is(call: Call, kit: Kit, answer: Answer) -> Answer:
    message = await kit.get_message(**_message(call, answer))
    if message.status.is_final:
        return Answer(200, _with_message(answer.content, message), answer.headers)
    # A client that would wait again at once should not.
    return Answer(202, _with_message(answer.content, message), {**answer.headers, "retry-after": "1"})


def _message(call: Call, answer: Answer) -> dict[str, Any]:
    return {"user": _user(call), "chatroom_id": call.arguments["chatroom_id"], "message_id": _message_id(answer)}


def _user(call: Call) -> Any:
    assert call.caller is not None
    return call.caller.user


def _message_id(answer: Answer) -> MessageId:
    if isinstance(answer.content, bytes):
        return MessageId(UUID(json.loads(answer.content)["data"]["id"]))
    content: Any = answer.content
    return MessageId(content.data.id)


def _with_message(content: ReplySchema | bytes, message: Message) -> ReplySchema | bytes:
    """The same reply with the message as it is now. A stored one may be of another release: its other fields stay."""
    if isinstance(content, bytes):
        body = json.loads(content) | {"data": json.loads(sse.message_json(message))}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return msgspec.structs.replace(content, data=schemas.Message.of(message))


def _preferred_wait(header: str) -> int | None:
    """RFC 7240: the first `wait` counts; malformed and unknown preferences are ignored."""
    for preference in header.split(","):
        if found := _WAIT.fullmatch(preference.partition(";")[0].strip()):
            return min(int(found[1] or found[2]), MAX_WAIT_SECONDS)
    return None


def _asks_for_stream(header: str) -> bool:
    """Whether the caller names event streams and does not prefer JSON to them."""
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
