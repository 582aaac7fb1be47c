"""/chatroom and its messages."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from uuid import UUID

from application.accounts.sessions import Caller
from application.chat.chatrooms import ChangeChatroom, CreateChatroom, DeleteChatroom, ListChatrooms, OpenChatroom
from application.chat.messages import CancelMessage, ContinueMessage, GetMessage, RegenerateMessage, SendMessage
from application.chat.streaming import ReplyCursor, StreamReply
from domain.chat.chatrooms import Chatroom
from domain.chat.streams import StreamPosition
from domain.errors import (
    ChatroomNotFound,
    MessageEnded,
    MessageNotContinuable,
    MessageNotEnded,
    MessageNotFound,
    QuotaExceeded,
    SendingTooFast,
    StreamsExhausted,
    TooManyChatrooms,
    TooManyInFlight,
    TooManyStreams,
)
from domain.ids import ChatroomId, MessageId
from entrypoints.http.api.endpoints import Endpoints
from entrypoints.http.api.schemas import chat as schemas
from entrypoints.http.api.schemas.common import Reply

endpoints = Endpoints("Chat")


@endpoints.post("/chatroom", status=201, creates="chatroom_id", errors=(TooManyChatrooms,))
async def create_chatroom(
    create: CreateChatroom, caller: Caller, body: schemas.CreateChatroomBody, chatroom_id: ChatroomId | None = None
) -> schemas.ChatroomReply:
    """Create a chatroom.

    The model gets its `instructions` before every conversation. With `autoTitle` the model renames the chatroom after
    the first exchange, unless you rename it first.
    """
    room = await create(
        user=caller.user,
        name=body.name,
        instructions=body.instructions or None,
        auto_title=body.auto_title,
        chatroom_id=chatroom_id,
    )
    return schemas.ChatroomReply(message="Chatroom created.", data=schemas.Chatroom.of(room))


@endpoints.get("/chatroom", of_chatrooms_version=True)
async def list_chatrooms(
    list_page: ListChatrooms, caller: Caller, query: schemas.ChatroomsQuery
) -> schemas.ChatroomsReply:
    """List your chatrooms, newest first (paginated)."""
    page = await list_page(user=caller.user, limit=query.limit, cursor=query.cursor)
    return schemas.ChatroomsReply(
        message="Your chatrooms.", data=[schemas.Chatroom.of(room) for room in page.items], next_cursor=page.next
    )


@endpoints.get("/chatroom/<chatroom_id>", errors=(ChatroomNotFound,))
async def open_chatroom(
    open_room: OpenChatroom, caller: Caller, chatroom_id: ChatroomId, query: schemas.MessagesQuery
) -> schemas.OpenChatroomReply:
    """Get a chatroom with a page of messages, oldest first.

    Without `before` it is the page of the newest messages.
    """
    room, messages, next_cursor = await _opened(open_room, caller, chatroom_id, query)
    return schemas.OpenChatroomReply(
        message="Your chatroom.", data=schemas.OpenChatroom.of(room, messages=messages), next_cursor=next_cursor
    )


async def _opened(
    open_room: OpenChatroom, caller: Caller, chatroom_id: ChatroomId, query: schemas.MessagesQuery
) -> tuple[Chatroom, list[schemas.Message], UUID | None]:
    """The room, a page of its messages, oldest first, and the cursor of the next page."""
    room, page = await open_room(user=caller.user, chatroom_id=chatroom_id, limit=query.limit, before=query.before)
    return room, [schemas.Message.of(message) for message in reversed(page.items)], page.next


@endpoints.patch("/chatroom/<chatroom_id>", errors=(ChatroomNotFound,))
async def change_chatroom(
    change: ChangeChatroom, caller: Caller, chatroom_id: ChatroomId, body: schemas.ChangeChatroomBody
) -> schemas.ChatroomReply:
    """Rename a chatroom or change its instructions.

    New instructions apply from the next message on.
    """
    room = await change(
        user=caller.user, chatroom_id=chatroom_id, name=body.new_name, instructions=body.new_instructions
    )
    return schemas.ChatroomReply(message="Chatroom changed.", data=schemas.Chatroom.of(room))


@endpoints.delete("/chatroom/<chatroom_id>", errors=(ChatroomNotFound,))
async def delete_chatroom(delete: DeleteChatroom, caller: Caller, chatroom_id: ChatroomId) -> Reply:
    """Delete a chatroom and all its messages, answered or not."""
    await delete(user=caller.user, chatroom_id=chatroom_id)
    return Reply(message="Chatroom deleted.")


@endpoints.post(
    "/chatroom/<chatroom_id>/message",
    status=202,
    limits=("messages",),
    creates="message_id",
    takes_preference=True,
    errors=(ChatroomNotFound, QuotaExceeded, TooManyInFlight, SendingTooFast),
)
async def send_message(
    send: SendMessage,
    caller: Caller,
    chatroom_id: ChatroomId,
    body: schemas.SendMessageBody,
    message_id: MessageId | None = None,
) -> schemas.AcceptedReply:
    """Send a message to the model.

    The message is stored and accepted with 202; a worker generates the reply. Poll `get_message` for the reply, wait
    for it here with `Prefer: wait=30`, or stream it: with `Accept: text/event-stream` this call responds with the
    events of `stream_message`, from the beginning.

    A Basic account has a daily allowance of messages, which `get_profile` shows. A failed message does not count. The
    number of unanswered messages per account is limited.
    """
    message, allowance = await send(user=caller.user, chatroom_id=chatroom_id, input=body.input, message_id=message_id)
    return schemas.AcceptedReply.of(message, allowance)


@endpoints.get("/chatroom/<chatroom_id>/message", errors=(ChatroomNotFound,))
async def list_messages(
    open_room: OpenChatroom, caller: Caller, chatroom_id: ChatroomId, query: schemas.MessagesQuery
) -> schemas.MessagesReply:
    """List the messages of a chatroom (paginated).

    The first page has the newest messages; each page is ordered oldest first.
    """
    _, messages, next_cursor = await _opened(open_room, caller, chatroom_id, query)
    return schemas.MessagesReply(message="Your messages.", data=messages, next_cursor=next_cursor)


@endpoints.get(
    "/chatroom/<chatroom_id>/message/<message_id>/stream", errors=(MessageNotFound, TooManyStreams, StreamsExhausted)
)
async def stream_message(
    stream_reply: StreamReply, caller: Caller, chatroom_id: ChatroomId, message_id: MessageId, after: StreamPosition
) -> AbstractAsyncContextManager[ReplyCursor]:
    """Stream a reply as Server-Sent Events while it is generated.

    `delta` carries `{"text"}`, the next piece of text. `reset` carries `{"attempt"}`: a new attempt has begun, discard
    the text so far. `done` carries the message as `get_message` returns it, `error` a problem; either is the last one.
    `thought` carries `{"text"}`, the next piece of a summary of the model's thoughts. It has no id and is sent only to
    connected clients; the final message has the whole summary. Ignore events that you do not know.

    An event's id is `<attempt>-<characters>`. Send it back as `Last-Event-ID` to resume exactly after that event, even
    long after the reply has ended; after the last event the response is 204. Comments keep the connection alive. A
    stream ends after ten minutes or when its server restarts; reconnect then. Disconnecting does not stop the model;
    `cancel_message` does.

    A browser's `EventSource` cannot send the token; read the stream with `fetch`.
    """
    return stream_reply(user=caller.user, chatroom_id=chatroom_id, message_id=message_id, after=after)


@endpoints.get("/chatroom/<chatroom_id>/message/<message_id>", takes_preference=True, errors=(MessageNotFound,))
async def get_message(
    get: GetMessage, caller: Caller, chatroom_id: ChatroomId, message_id: MessageId
) -> schemas.MessageReply:
    """Get one message: its status and, once available, its reply.

    With `Prefer: wait=30` the response comes when the message has ended, or with 202 after that time.
    """
    message = await get(user=caller.user, chatroom_id=chatroom_id, message_id=message_id)
    return schemas.MessageReply(message="Your message.", data=schemas.Message.of(message))


@endpoints.post(
    "/chatroom/<chatroom_id>/message/<message_id>/cancel",
    status=202,
    takes_preference=True,
    default_wait=2,
    idempotent=True,
    errors=(MessageNotFound, MessageEnded),
)
async def cancel_message(
    cancel: CancelMessage, caller: Caller, chatroom_id: ChatroomId, message_id: MessageId
) -> schemas.MessageReply:
    """Cancel a queued or running message.

    Text that the model has already generated is kept. The message does not count if the model was not called yet; see
    `counted`. The call waits up to two seconds for the end: 200 with the ended message, or 202.
    """
    message = await cancel(user=caller.user, chatroom_id=chatroom_id, message_id=message_id)
    return schemas.MessageReply(message="Cancellation requested.", data=schemas.Message.of(message))


@endpoints.post(
    "/chatroom/<chatroom_id>/message/<message_id>/regenerate",
    status=202,
    takes_preference=True,
    idempotent=True,
    errors=(MessageNotFound, MessageNotEnded, QuotaExceeded, TooManyInFlight, SendingTooFast),
)
async def regenerate_message(
    regenerate: RegenerateMessage,
    caller: Caller,
    chatroom_id: ChatroomId,
    message_id: MessageId,
    request_id: UUID | None = None,
) -> schemas.AcceptedReply:
    """Generate a new reply to a message.

    It counts as a message. The new reply replaces the old one and is delivered in the same ways as after
    `send_message`.
    """
    message, allowance = await regenerate(
        user=caller.user, chatroom_id=chatroom_id, message_id=message_id, request_id=request_id
    )
    return schemas.AcceptedReply.of(message, allowance)


@endpoints.post(
    "/chatroom/<chatroom_id>/message/<message_id>/continue",
    status=202,
    takes_preference=True,
    idempotent=True,
    errors=(
        MessageNotFound,
        MessageNotEnded,
        MessageNotContinuable,
        QuotaExceeded,
        TooManyInFlight,
        SendingTooFast,
    ),
)
async def continue_message(
    continue_: ContinueMessage,
    caller: Caller,
    chatroom_id: ChatroomId,
    message_id: MessageId,
    request_id: UUID | None = None,
) -> schemas.AcceptedReply:
    """Continue a reply that was cut off.

    The message must be completed with the `finishReason` `MAX_TOKENS`. It counts as a message. The message keeps its
    text and is `queued` again; the added text is delivered in the same ways as after `send_message`. Stream positions
    continue: with the id of your last event you get only the new text, without it the whole text.

    If the continuation fails, is blocked or is cancelled, the message is completed as before, and its `error` gives the
    reason. Text generated before a cancellation is kept. The message can be continued again.
    """
    message, allowance = await continue_(
        user=caller.user, chatroom_id=chatroom_id, message_id=message_id, request_id=request_id
    )
    return schemas.AcceptedReply.of(message, allowance)
