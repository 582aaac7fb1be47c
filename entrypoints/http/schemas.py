"""What goes over the wire. These classes validate, serialise and document it; there is no second description."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator
from pydantic.alias_generators import to_camel

from application.accounts.sessions import SignedIn
from domain.accounts import MAX_NAME_CHARACTERS, MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, User
from domain.billing import Allowance, Tier
from domain.chat import MAX_INPUT_CHARACTERS, Chatroom, Message, MessageStatus
from domain.ids import ChatroomId, MessageId

UNLIMITED = "unlimited"


class Schema(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


def _iso(time: datetime) -> str:
    """Of a UTC time, as all of ours are: so cutting the offset off is enough, and a room's page has many."""
    return time.isoformat(timespec="milliseconds")[:-6] + "Z"


def _some_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    return text


Timestamp = Annotated[
    datetime, PlainSerializer(_iso, return_type=str, when_used="json"), Field(examples=["2026-01-31T09:30:00.000Z"])
]
SomeText = Annotated[str, AfterValidator(_some_text)]
Mobile = Annotated[
    SomeText,
    Field(
        max_length=32, description="A mobile number, international or of the default region.", examples=["9876543210"]
    ),
]
Name = Annotated[SomeText, Field(max_length=MAX_NAME_CHARACTERS, examples=["Asha"])]
Code = Annotated[SomeText, Field(max_length=16, description="The one-time code: six digits.", examples=["042137"])]
Password = Annotated[str, Field(max_length=MAX_PASSWORD_CHARACTERS)]
NewPassword = Annotated[SomeText, Field(min_length=MIN_PASSWORD_CHARACTERS, max_length=MAX_PASSWORD_CHARACTERS)]
Count = int | Literal["unlimited"]


def _count(number: int | None) -> Any:
    return UNLIMITED if number is None else number


# --- requests ---


class SignUpBody(Schema):
    mobile: Mobile
    name: Name


class MobileBody(Schema):
    mobile: Mobile


class VerifyOtpBody(Schema):
    mobile: Mobile
    otp: Code


class LogInBody(Schema):
    mobile: Mobile
    password: Password


class ResetPasswordBody(Schema):
    mobile: Mobile
    otp: Code
    new_password: NewPassword


class ChangePasswordBody(Schema):
    """Proof is the code, or else the current password."""

    otp: Code | None = None
    current_password: Password | None = None
    new_password: NewPassword

    @model_validator(mode="after")
    def _has_proof(self) -> ChangePasswordBody:
        if self.otp is None and self.current_password is None:
            raise ValueError("needs otp or currentPassword")
        return self


class CreateChatroomBody(Schema):
    name: Name


class SendMessageBody(Schema):
    input: Annotated[SomeText, Field(max_length=MAX_INPUT_CHARACTERS, examples=["Why is the sky blue?"])]


class PageQuery(Schema):
    limit: Annotated[int, Field(ge=1, le=100, description="Items a page.")] = 50


class ChatroomsQuery(PageQuery):
    cursor: Annotated[ChatroomId | None, Field(description="The nextCursor of the page before.")] = None


class MessagesQuery(PageQuery):
    before: Annotated[MessageId | None, Field(description="The nextCursor of a page: the messages before it.")] = None


# --- replies ---


class Reply(Schema):
    message: Annotated[str, Field(description="What happened, for people.")]


class UserOut(Schema):
    id: UUID
    mobile: Annotated[str, Field(description="In E.164 form.", examples=["+919876543210"])]
    name: str

    @classmethod
    def of(cls, user: User) -> UserOut:
        return cls(id=user.id, mobile=user.mobile, name=user.name)


class SignUpReply(Reply):
    user: UserOut


class OtpReply(Reply):
    """`otp` is there only while codes are delivered in the reply, which is for development."""

    otp: Annotated[str | None, Field(examples=["042137"])] = None


class SignedInReply(Reply):
    token: Annotated[str, Field(description="Send it as 'Authorization: Bearer <token>'.")]
    expires_in: Annotated[int, Field(description="Seconds.")]
    user: UserOut

    @classmethod
    def of(cls, signed_in: SignedIn) -> SignedInReply:
        return cls(
            message="Logged in.",
            token=signed_in.access.token,
            expires_in=signed_in.access.expires_in,
            user=UserOut.of(signed_in.user),
        )


class UsageOut(Schema):
    used: int
    total: Count
    remaining: Count
    resets_at: Timestamp

    @classmethod
    def of(cls, allowance: Allowance) -> UsageOut:
        return cls(
            used=allowance.used,
            total=_count(allowance.total),
            remaining=_count(allowance.remaining),
            resets_at=allowance.resets_at,
        )


class ProfileOut(UserOut):
    subscription_tier: Tier
    usage: UsageOut


class ProfileReply(Reply):
    data: ProfileOut


class ChatroomOut(Schema):
    id: UUID
    name: str
    user_id: UUID
    created_at: Timestamp

    @classmethod
    def of(cls, room: Chatroom) -> ChatroomOut:
        return cls(id=room.id, name=room.name, user_id=room.user_id, created_at=room.created_at)


class ChatroomReply(Reply):
    data: ChatroomOut


class ChatroomsReply(Reply):
    data: list[ChatroomOut]
    next_cursor: UUID | None


class Usage(Schema):
    input_tokens: int | None
    output_tokens: int | None


class MessageError(Schema):
    code: str
    detail: str


class MessageOut(Schema):
    id: UUID
    input: str
    response: Annotated[str | None, Field(description="null until the model has answered.")]
    chatroom_id: UUID
    created_at: Timestamp
    status: MessageStatus
    finish_reason: str | None
    usage: Usage
    attempts: int
    completed_at: Timestamp | None
    error: Annotated[MessageError | None, Field(description="Why a failed or blocked message has no reply.")]

    @classmethod
    def of(cls, message: Message) -> MessageOut:
        return cls(
            id=message.id,
            input=message.input,
            response=message.response,
            chatroom_id=message.chatroom_id,
            created_at=message.created_at,
            status=message.status,
            finish_reason=message.finish_reason,
            usage=Usage(input_tokens=message.input_tokens, output_tokens=message.output_tokens),
            attempts=message.attempt,
            completed_at=message.completed_at,
            error=MessageError(code=message.error_code, detail=message.error_detail or "")
            if message.error_code
            else None,
        )


class MessageReply(Reply):
    data: MessageOut


class MessagesReply(Reply):
    data: list[MessageOut]
    next_cursor: UUID | None


class OpenChatroomOut(ChatroomOut):
    messages: Annotated[list[MessageOut], Field(description="Oldest first.")]


class OpenChatroomReply(Reply):
    data: OpenChatroomOut
    next_cursor: UUID | None


class DailyLimitOut(Schema):
    used: int
    total: Count
    resets_at: Timestamp


class AcceptedReply(Reply):
    data: MessageOut
    remaining_messages: Count
    daily_limit_info: DailyLimitOut

    @classmethod
    def of(cls, message: Message, allowance: Allowance) -> AcceptedReply:
        return cls(
            message="Message accepted.",
            data=MessageOut.of(message),
            remaining_messages=_count(allowance.remaining),
            daily_limit_info=DailyLimitOut(
                used=allowance.used, total=_count(allowance.total), resets_at=allowance.resets_at
            ),
        )


class HealthReply(Schema):
    status: Literal["ok"] = "ok"


class ReadyReply(Schema):
    """`degraded`: everything is served, but something is slower or later than usual."""

    status: Literal["ready", "degraded"]
    dependencies: dict[str, Literal["ok", "away"]]
    warnings: list[str]


class FieldError(Schema):
    pointer: Annotated[str, Field(description="JSON pointer into the body, or ?name for a query parameter.")]
    detail: str


class Problem(Schema):
    """RFC 9457. Program against `code`; `title` and `detail` are for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldError] | None = None
