"""What goes over the wire. These classes validate, serialise and document it; there is no second description."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StrictBool, model_validator
from pydantic.alias_generators import to_camel

from application.accounts.sessions import SignedIn
from domain.accounts import MAX_NAME_CHARACTERS, MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, Session, User
from domain.billing import Allowance, Subscription, SubscriptionStatus, Tier
from domain.chat import MAX_INPUT_CHARACTERS, MAX_INSTRUCTIONS_CHARACTERS, Chatroom, Message, MessageStatus
from domain.ids import ChatroomId, MessageId

UNLIMITED = "unlimited"


class Schema(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


def _iso(time: datetime) -> str:
    """Of a UTC time, as all of ours are: so cutting the offset off is enough, and a room's page has many."""
    return time.isoformat(timespec="milliseconds")[:-6] + "Z"


def _text(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    return text


def _some_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return _text(text)


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
Instructions = Annotated[
    str,
    Field(
        max_length=MAX_INSTRUCTIONS_CHARACTERS,
        description="What the model is told before every conversation of the chatroom.",
        examples=["Answer in verse."],
    ),
    AfterValidator(lambda text: _text(text) if text.strip() else ""),
]
Count = int | Literal["unlimited"]


def _count(number: int | None) -> Any:
    return UNLIMITED if number is None else number


def _without_default(schema: dict[str, Any]) -> None:
    """For what may be left out, but then means nothing at all."""
    schema.pop("default", None)


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


class RefreshBody(Schema):
    refresh_token: Annotated[SomeText, Field(max_length=128)]


class RenameBody(Schema):
    name: Name


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
    instructions: Instructions | None = None
    auto_title: Annotated[StrictBool, Field(description="Have the model rename it after the first exchange.")] = False


class ChangeChatroomBody(Schema):
    """What is not named stays; instructions that are null or empty are taken away."""

    name: Annotated[Name, Field(json_schema_extra=_without_default)] = ""
    instructions: Annotated[Instructions | None, Field(json_schema_extra=_without_default)] = None

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
    refresh_token: Annotated[
        str,
        Field(
            description="Good for one refresh, within seven days. Keep it as safe as a password."
            " Not here if it was asked for as a cookie.",
            json_schema_extra=_without_default,
        ),
    ] = ""
    user: UserOut

    @classmethod
    def of(cls, signed_in: SignedIn) -> SignedInReply:
        return cls(
            message="Logged in.",
            token=signed_in.access.token,
            expires_in=signed_in.access.expires_in,
            refresh_token=signed_in.refresh_token,
            user=UserOut.of(signed_in.user),
        )


class SessionOut(Schema):
    id: UUID
    device: Annotated[str, Field(description="The user agent it signed in with.")]
    network: Annotated[str, Field(description="Where it signed in from, roughly.", examples=["203.0.113.0/24"])]
    created_at: Timestamp
    last_seen_at: Annotated[Timestamp, Field(description="When it signed in or was refreshed last.")]
    current: Annotated[bool, Field(description="The one that asks.")]

    @classmethod
    def of(cls, session: Session, *, current: bool) -> SessionOut:
        return cls(
            id=session.id,
            device=session.device,
            network=session.network,
            created_at=session.created_at,
            last_seen_at=session.last_seen_at,
            current=current,
        )


class SessionsReply(Reply):
    data: list[SessionOut]


class UsageOut(Schema):
    used: int
    total: Count
    remaining: Count
    resets_at: Timestamp
    input_tokens: Annotated[int, Field(description="Of today's replies, as the model counts them.")]
    output_tokens: int

    @classmethod
    def of(cls, allowance: Allowance) -> UsageOut:
        return cls(
            used=allowance.used,
            total=_count(allowance.total),
            remaining=_count(allowance.remaining),
            resets_at=allowance.resets_at,
            input_tokens=allowance.input_tokens,
            output_tokens=allowance.output_tokens,
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
    instructions: str | None
    auto_title: Annotated[bool, Field(description="It waits for a name of the model's making.")]

    @classmethod
    def of(cls, room: Chatroom, **more: Any) -> Self:
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


class UrlReply(Schema):
    url: Annotated[str, Field(description="A page of Stripe's, for the user's browser.")]


class SubscriptionOut(Schema):
    tier: Tier
    status: Annotated[SubscriptionStatus | None, Field(description="null if there never was a subscription.")]
    current_period_end: Timestamp | None
    cancel_at_period_end: Annotated[bool, Field(description="Pro ends by itself, then or earlier.")]

    @classmethod
    def of(cls, tier: Tier, subscription: Subscription | None) -> SubscriptionOut:
        return cls(
            tier=tier,
            status=subscription.status if subscription else None,
            current_period_end=subscription.current_period_end if subscription else None,
            cancel_at_period_end=subscription is not None and subscription.cancel_at is not None,
        )


class SubscriptionReply(Reply):
    data: SubscriptionOut


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
