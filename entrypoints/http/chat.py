"""/chatroom and its messages."""

from __future__ import annotations

from application.accounts.sessions import Caller
from domain.errors import ChatroomNotFound, MessageNotFound, QuotaExceeded, SendingTooFast, TooManyInFlight
from domain.ids import ChatroomId, MessageId
from entrypoints.container import Container
from entrypoints.http.endpoints import Endpoints
from entrypoints.http.schemas import (
    AcceptedReply,
    ChatroomOut,
    ChatroomReply,
    ChatroomsQuery,
    ChatroomsReply,
    CreateChatroomBody,
    MessageOut,
    MessageReply,
    MessagesQuery,
    MessagesReply,
    OpenChatroomOut,
    OpenChatroomReply,
    SendMessageBody,
)

endpoints = Endpoints("Chat")


@endpoints.add(
    "POST",
    "/chatroom",
    body=CreateChatroomBody,
    reply=ChatroomReply,
    status=201,
    authenticated=True,
    creates="chatroom_id",
)
async def create_chatroom(
    container: Container, caller: Caller, body: CreateChatroomBody, chatroom_id: ChatroomId | None = None
) -> ChatroomReply:
    """Open a new chatroom."""
    room = await container.create_chatroom()(user=caller.user, name=body.name, chatroom_id=chatroom_id)
    return ChatroomReply(message="Chatroom created.", data=ChatroomOut.of(room))


@endpoints.add("GET", "/chatroom", query=ChatroomsQuery, reply=ChatroomsReply, authenticated=True)
async def list_chatrooms(container: Container, caller: Caller, query: ChatroomsQuery) -> ChatroomsReply:
    """Your chatrooms, newest first."""
    page = await container.list_chatrooms()(user=caller.user, limit=query.limit, cursor=query.cursor)
    return ChatroomsReply(
        message="Your chatrooms.", data=[ChatroomOut.of(room) for room in page.items], next_cursor=page.next
    )


@endpoints.add(
    "GET",
    "/chatroom/<chatroom_id>",
    query=MessagesQuery,
    reply=OpenChatroomReply,
    authenticated=True,
    errors=(ChatroomNotFound,),
)
async def open_chatroom(
    container: Container, caller: Caller, chatroom_id: ChatroomId, query: MessagesQuery
) -> OpenChatroomReply:
    """A chatroom with its newest messages, oldest first; with `before` the ones before that."""
    room, page = await container.open_chatroom()(
        user=caller.user,
        chatroom_id=chatroom_id,
        limit=query.limit,
        before=query.before,
    )
    return OpenChatroomReply(
        message="Your chatroom.",
        data=OpenChatroomOut(
            id=room.id,
            name=room.name,
            user_id=room.user_id,
            created_at=room.created_at,
            messages=[MessageOut.of(message) for message in reversed(page.items)],
        ),
        next_cursor=page.next,
    )


@endpoints.add(
    "POST",
    "/chatroom/<chatroom_id>/message",
    body=SendMessageBody,
    reply=AcceptedReply,
    status=202,
    authenticated=True,
    creates="message_id",
    errors=(ChatroomNotFound, QuotaExceeded, TooManyInFlight, SendingTooFast),
)
async def send_message(
    container: Container,
    caller: Caller,
    chatroom_id: ChatroomId,
    body: SendMessageBody,
    message_id: MessageId | None = None,
) -> AcceptedReply:
    """Send a message to the model.

    It is stored and will be answered by a worker; look for the reply with GET. Basic accounts have a
    daily allowance, which comes back if the message fails; so many messages may be unanswered at once.
    """
    message, allowance = await container.send_message()(
        user=caller.user, chatroom_id=chatroom_id, input=body.input, message_id=message_id
    )
    return AcceptedReply.of(message, allowance)


@endpoints.add(
    "GET",
    "/chatroom/<chatroom_id>/message",
    query=MessagesQuery,
    reply=MessagesReply,
    authenticated=True,
    errors=(ChatroomNotFound,),
)
async def list_messages(
    container: Container, caller: Caller, chatroom_id: ChatroomId, query: MessagesQuery
) -> MessagesReply:
    """The messages of a chatroom by pages: the newest page first, each page oldest first."""
    _, page = await container.open_chatroom()(
        user=caller.user,
        chatroom_id=chatroom_id,
        limit=query.limit,
        before=query.before,
    )
    return MessagesReply(
        message="Your messages.",
        data=[MessageOut.of(message) for message in reversed(page.items)],
        next_cursor=page.next,
    )


@endpoints.add(
    "GET",
    "/chatroom/<chatroom_id>/message/<message_id>",
    reply=MessageReply,
    authenticated=True,
    errors=(MessageNotFound,),
)
async def get_message(
    container: Container, caller: Caller, chatroom_id: ChatroomId, message_id: MessageId
) -> MessageReply:
    """One message with its state and, once it is there, its reply."""
    message = await container.get_message()(user=caller.user, chatroom_id=chatroom_id, message_id=message_id)
    return MessageReply(message="Your message.", data=MessageOut.of(message))
