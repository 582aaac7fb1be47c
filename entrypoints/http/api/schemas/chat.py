"""What /chatroom takes and gives."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StrictBool, model_validator

from domain.billing import Allowance
from domain.chat import chatrooms, messages
from domain.chat.chatrooms import MAX_INSTRUCTIONS_CHARACTERS
from domain.chat.messages import MAX_INPUT_CHARACTERS, MessageStatus
from domain.ids import ChatroomId, MessageId
from domain.text import is_blank
from entrypoints.http.api.schemas.billing import DailyLimit
from entrypoints.http.api.schemas.common import (
    Count,
    Id,
    Name,
    NextCursor,
    NonBlankText,
    PageQuery,
    Reply,
    Schema,
    Timestamp,
    count,
    plain_text,
)

ChatroomName = Annotated[Name, Field(description="What the chatroom is called.", examples=["Physics"])]
Instructions = Annotated[
    str,
    Field(
        max_length=MAX_INSTRUCTIONS_CHARACTERS,
        description="What the model is told before every conversation of the chatroom.",
        examples=["Answer in verse."],
    ),
    AfterValidator(lambda text: "" if is_blank(plain_text(text)) else text),
]


class CreateChatroomBody(Schema):
    name: ChatroomName
    instructions: Annotated[
        Instructions | None, Field(description="What the model is told before every conversation of the chatroom.")
    ] = None
    auto_title: Annotated[
        StrictBool,
        Field(description="Have the model rename it after the first exchange; false if left out.", examples=[False]),
    ] = False


class ChangeChatroomBody(Schema):
    """What is left out stays as it is; at least one of them is required."""

    name: ChatroomName = ""
    instructions: Annotated[
        Instructions | None,
        Field(description="What the model is told from the next message on; null or empty takes it away."),
    ] = None

    @model_validator(mode="after")
    def _changes_something(self) -> ChangeChatroomBody:
        if not self.model_fields_set:
            raise ValueError("needs name or instructions")
        return self

    @property
    def new_name(self) -> str | None:
        return self.name or None

    @property
    def new_instructions(self) -> str | None:
        return self.instructions or "" if "instructions" in self.model_fields_set else None


class SendMessageBody(Schema):
    input: Annotated[
        NonBlankText,
        Field(max_length=MAX_INPUT_CHARACTERS, description="What to ask the model.", examples=["Why is the sky blue?"]),
    ]


class ChatroomsQuery(PageQuery):
    cursor: Annotated[ChatroomId | None, Field(description="`nextCursor` of the page before.")] = None


class MessagesQuery(PageQuery):
    before: Annotated[MessageId | None, Field(description="`nextCursor` of the page before: older messages.")] = None


class Chatroom(Schema):
    """A conversation with the model, and its owner's alone."""

    id: Id
    name: ChatroomName
    user_id: Annotated[Id, Field(description="Its owner.")]
    created_at: Timestamp
    instructions: Annotated[
        str | None, Field(description="What the model is told before every conversation.", examples=[None])
    ]
    auto_title: Annotated[bool, Field(description="The model will give it a name after the first exchange.")]

    @classmethod
    def of(cls, room: chatrooms.Chatroom, **more: Any) -> Self:
        return cls(
            id=room.id,
            name=room.name,
            user_id=room.user_id,
            created_at=room.created_at,
            instructions=room.instructions,
            auto_title=room.auto_title,
            **more,
        )


class ChatroomReply(Reply):
    data: Chatroom


class ChatroomsReply(Reply):
    data: list[Chatroom]
    next_cursor: NextCursor


class MessageUsage(Schema):
    """Tokens that a reply took, as the model counts them; null if it did not say."""

    input_tokens: Annotated[
        int | None, Field(description="Of the conversation it was given, `cachedTokens` included.", examples=[42])
    ]
    cached_tokens: Annotated[
        int | None, Field(description="Of these, what the model had in its cache and bills at less.", examples=[0])
    ]
    output_tokens: Annotated[
        int | None, Field(description="Of what the model wrote, `thoughtTokens` included.", examples=[120])
    ]
    thought_tokens: Annotated[int | None, Field(description="Of these, its thoughts.", examples=[80])]

    @classmethod
    def of(cls, message: messages.Message) -> MessageUsage:
        return cls(
            input_tokens=message.input_tokens,
            cached_tokens=message.cached_tokens,
            output_tokens=message.output_tokens,
            thought_tokens=message.thought_tokens,
        )


class MessageError(Schema):
    """Why there is no reply, or why it was not continued."""

    code: Annotated[str, Field(description="A stable word to program against.", examples=["model_unavailable"])]
    detail: Annotated[str, Field(description="For people.", examples=["The model could not be reached."])]


class Message(Schema):
    """A question (`input`) and its reply (`response`).

    `queued` and `generating` are on the way; `completed`, `failed`, `cancelled` and `blocked` (by the model's
    safety filter) are ends.
    """

    id: Id
    input: Annotated[str, Field(description="What the user asked.", examples=["Why is the sky blue?"])]
    response: Annotated[
        str | None,
        Field(
            description="What the model replied; null until then. A cancelled message has what was written so far, one"
            " that is being continued what is continued.",
            examples=["Because air scatters blue light the most."],
        ),
    ]
    thoughts: Annotated[
        str | None,
        Field(
            description="The model's own summary of what it thought before it replied; null if there is none.",
            examples=["The question is about Rayleigh scattering."],
        ),
    ]
    thinking_seconds: Annotated[
        float | None, Field(description="How long the model thought; null if it did not.", examples=[2.5])
    ]
    chatroom_id: Annotated[Id, Field(description="The chatroom it is in.")]
    created_at: Timestamp
    status: Annotated[MessageStatus, Field(examples=["completed"])]
    finish_reason: Annotated[
        str | None,
        Field(
            description="The model's own word for why it stopped: STOP, SAFETY … After MAX_TOKENS the reply can be"
            " continued.",
            examples=["STOP"],
        ),
    ]
    usage: MessageUsage
    counted: Annotated[
        bool,
        Field(
            description="Whether it cost a message of the day's allowance, the last time that it was asked.",
            examples=[True],
        ),
    ]
    attempts: Annotated[int, Field(description="How often the model was asked.", examples=[1])]
    completed_at: Annotated[
        Timestamp | None, Field(description="When it ended, however it did.", examples=["2026-01-31T09:30:02.000Z"])
    ]
    error: Annotated[
        MessageError | None,
        Field(
            description="Why a failed or blocked message has no reply, or why a completed one was not continued.",
            examples=[None],
        ),
    ]

    @classmethod
    def of(cls, message: messages.Message) -> Message:
        return cls(
            id=message.id,
            input=message.input,
            response=message.response,
            thoughts=message.thoughts,
            thinking_seconds=message.thinking_seconds,
            chatroom_id=message.chatroom_id,
            created_at=message.created_at,
            status=message.status,
            finish_reason=message.finish_reason,
            usage=MessageUsage.of(message),
            counted=message.charged,
            attempts=message.attempt,
            completed_at=message.completed_at,
            error=MessageError(code=message.error_code, detail=message.error_detail or "")
            if message.error_code
            else None,
        )


class MessageReply(Reply):
    data: Message


class MessagesReply(Reply):
    data: list[Message]
    next_cursor: NextCursor


class OpenChatroom(Chatroom):
    messages: Annotated[list[Message], Field(description="A page of its messages, oldest first.")]


class OpenChatroomReply(Reply):
    data: OpenChatroom
    next_cursor: NextCursor


class AcceptedReply(Reply):
    data: Message
    remaining_messages: Annotated[Count, Field(description="Messages left today.", examples=[2])]
    daily_limit_info: DailyLimit

    @classmethod
    def of(cls, message: messages.Message, allowance: Allowance) -> AcceptedReply:
        return cls(
            message="Message accepted.",
            data=Message.of(message),
            remaining_messages=count(allowance.remaining),
            daily_limit_info=DailyLimit(
                used=allowance.used, total=count(allowance.total), resets_at=allowance.resets_at
            ),
        )
