"""What goes over the wire. These classes validate, serialise and document it; there is no second description."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    StrictBool,
    model_validator,
)
from pydantic.alias_generators import to_camel

from application.accounts.sessions import SignedIn
from domain.accounts import (
    MAX_NAME_CHARACTERS,
    MAX_PASSWORD_CHARACTERS,
    MIN_PASSWORD_CHARACTERS,
    OtpChallenge,
    Session,
    User,
)
from domain.billing import Allowance, Subscription, SubscriptionStatus, Tier
from domain.chat.chatrooms import MAX_INSTRUCTIONS_CHARACTERS, Chatroom
from domain.chat.messages import MAX_INPUT_CHARACTERS, Message, MessageStatus
from domain.ids import ChatroomId, MessageId
from domain.text import is_blank

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
    if is_blank(text):
        raise ValueError("must not be blank")
    return _text(text)


def _code(text: str) -> str:
    """Refused here, so that what cannot be the code costs no guess."""
    code = OtpChallenge.read_code(text)
    if code is None:
        raise ValueError("must have six digits")
    return code


Id = Annotated[UUID, Field(description="Its id.", examples=["01890a5d-ac96-774b-bcce-b302099a8057"])]


class _NotBlank:
    """Says in the schema what the validator sees to."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": r"\S"}


Timestamp = Annotated[
    datetime,
    PlainSerializer(_iso, return_type=str, when_used="json"),
    Field(
        description="UTC, with milliseconds.",
        examples=["2026-01-31T09:30:00.000Z"],
        json_schema_extra={"format": "date-time"},
    ),
]
SomeText = Annotated[str, AfterValidator(_some_text), _NotBlank()]
Mobile = Annotated[
    SomeText,
    Field(
        max_length=64,
        description="A mobile number: international with `+`, or as it is dialled in the service's own country.",
        examples=["+919876543210"],
    ),
]
Name = Annotated[SomeText, Field(max_length=MAX_NAME_CHARACTERS)]
PersonName = Annotated[Name, Field(description="What to call the person.", examples=["Asha"])]
ChatroomName = Annotated[Name, Field(description="What the chatroom is called.", examples=["Physics"])]
Code = Annotated[
    str,
    Field(
        max_length=64,
        description="The one-time code: six digits, of any script; spaces and dashes do not matter. Anything else is"
        " refused and costs no guess.",
        examples=["042137"],
    ),
    AfterValidator(_code),
]
Password = Annotated[
    str,
    Field(
        max_length=MAX_PASSWORD_CHARACTERS,
        description="The password of the account.",
        examples=["seven blue herons"],
    ),
]
NewPassword = Annotated[
    SomeText,
    Field(
        min_length=MIN_PASSWORD_CHARACTERS,
        max_length=MAX_PASSWORD_CHARACTERS,
        description="The password to have from now on. The most common ones are refused.",
        examples=["seven blue herons"],
    ),
]
Instructions = Annotated[
    str,
    Field(
        max_length=MAX_INSTRUCTIONS_CHARACTERS,
        description="What the model is told before every conversation of the chatroom.",
        examples=["Answer in verse."],
    ),
    AfterValidator(lambda text: "" if is_blank(_text(text)) else text),
]
Count = Annotated[int | Literal["unlimited"], Field(examples=[5])]
NextCursor = Annotated[UUID | None, Field(description="Where the next page begins; null on the last.", examples=[None])]


def _count(number: int | None) -> Any:
    return UNLIMITED if number is None else number


def _without_default(schema: dict[str, Any]) -> None:
    """For what may be left out, but then means nothing at all."""
    schema.pop("default", None)


# --- requests ---


class SignUpBody(Schema):
    mobile: Mobile
    name: PersonName


class MobileBody(Schema):
    mobile: Mobile


class VerifyOtpBody(Schema):
    mobile: Mobile
    otp: Code


class LogInBody(Schema):
    mobile: Mobile
    password: Password


class RefreshBody(Schema):
    refresh_token: Annotated[
        SomeText,
        Field(
            max_length=128,
            description="The one of the latest log-in or refresh.",
            examples=["lJ1nVxQ0kq3bDkT4pZ8yYwS2rM6uA9cE5gHfN7iOxQk"],
        ),
    ]


class RenameBody(Schema):
    name: PersonName


class ResetPasswordBody(Schema):
    mobile: Mobile
    otp: Code
    new_password: NewPassword


class ChangePasswordBody(Schema):
    """Prove who you are by `otp`, a code from forgot-password, or by `currentPassword`: one of them is required."""

    otp: Annotated[Code | None, Field(description="A code from forgot-password.", examples=["042137"])] = None
    current_password: Annotated[
        Password | None, Field(description="The password until now.", examples=["six blue herons"])
    ] = None
    new_password: NewPassword

    @model_validator(mode="after")
    def _has_proof(self) -> ChangePasswordBody:
        if self.otp is None and self.current_password is None:
            raise ValueError("needs otp or currentPassword")
        return self


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
        SomeText,
        Field(max_length=MAX_INPUT_CHARACTERS, description="What to ask the model.", examples=["Why is the sky blue?"]),
    ]


class PageQuery(Schema):
    limit: Annotated[int, Field(ge=1, le=100, description="How many at most.")] = 50


class ChatroomsQuery(PageQuery):
    cursor: Annotated[ChatroomId | None, Field(description="`nextCursor` of the page before.")] = None


class MessagesQuery(PageQuery):
    before: Annotated[MessageId | None, Field(description="`nextCursor` of the page before: older messages.")] = None


# --- replies ---


class Reply(Schema):
    message: Annotated[str, Field(description="What happened, for people.", examples=["Done."])]


class UserOut(Schema):
    """Who has an account."""

    id: Id
    mobile: Annotated[str, Field(description="The mobile number in E.164 form.", examples=["+919876543210"])]
    name: PersonName

    @classmethod
    def of(cls, user: User) -> UserOut:
        return cls(id=user.id, mobile=user.mobile, name=user.name)


class SignUpReply(Reply):
    user: UserOut


class OtpReply(Reply):
    """`otp` is there only while codes are handed out in the reply, which is for development."""

    otp: Annotated[
        str | None,
        Field(description="The one-time code: six digits.", examples=["042137"], json_schema_extra=_without_default),
    ] = None


class SignedInReply(Reply):
    token: Annotated[
        str,
        Field(description="The access token: send it as `Authorization: Bearer <token>`.", examples=["eyJhbGciOi…"]),
    ]
    expires_in: Annotated[int, Field(description="Seconds until the access token expires.", examples=[3600])]
    refresh_token: Annotated[
        str,
        Field(
            description="Good for one refresh within seven days. Keep it as safe as a password."
            " Left out when it was asked for as a cookie.",
            examples=["lJ1nVxQ0kq3bDkT4pZ8yYwS2rM6uA9cE5gHfN7iOxQk"],
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
    """A device that is logged in."""

    id: Id
    device: Annotated[str, Field(description="The user agent it logged in with.", examples=["Mozilla/5.0 …"])]
    network: Annotated[str, Field(description="The network it logged in from.", examples=["203.0.113.0/24"])]
    created_at: Timestamp
    last_seen_at: Annotated[Timestamp, Field(description="When it logged in or was refreshed last.")]
    current: Annotated[bool, Field(description="Whether it is the one that asks.", examples=[True])]

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


class DailyUsageOut(Schema):
    """What is used of today's allowance. The day is that of UTC."""

    used: Annotated[int, Field(description="Messages sent today.", examples=[2])]
    total: Annotated[Count, Field(description="Messages a day; unlimited on Pro.")]
    remaining: Annotated[Count, Field(description="Messages left today.", examples=[3])]
    resets_at: Annotated[Timestamp, Field(description="When the allowance returns.")]
    input_tokens: Annotated[int, Field(description="Tokens the model has read for it today.", examples=[210])]
    output_tokens: Annotated[int, Field(description="Tokens the model has written.", examples=[840])]

    @classmethod
    def of(cls, allowance: Allowance) -> DailyUsageOut:
        return cls(
            used=allowance.used,
            total=_count(allowance.total),
            remaining=_count(allowance.remaining),
            resets_at=allowance.resets_at,
            input_tokens=allowance.input_tokens,
            output_tokens=allowance.output_tokens,
        )


class ProfileOut(UserOut):
    """Who is logged in."""

    subscription_tier: Tier
    usage: DailyUsageOut


class ProfileReply(Reply):
    data: ProfileOut


class ChatroomOut(Schema):
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
    def of(cls, message: Message) -> MessageUsage:
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


class MessageOut(Schema):
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
    def of(cls, message: Message) -> MessageOut:
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
    data: MessageOut


class MessagesReply(Reply):
    data: list[MessageOut]
    next_cursor: NextCursor


class OpenChatroomOut(ChatroomOut):
    messages: Annotated[list[MessageOut], Field(description="A page of its messages, oldest first.")]


class OpenChatroomReply(Reply):
    data: OpenChatroomOut
    next_cursor: NextCursor


class DailyLimitOut(Schema):
    """The day's allowance after this message."""

    used: Annotated[int, Field(description="Messages sent today.", examples=[3])]
    total: Annotated[Count, Field(description="Messages a day; unlimited on Pro.")]
    resets_at: Annotated[Timestamp, Field(description="When the allowance returns.")]


class AcceptedReply(Reply):
    data: MessageOut
    remaining_messages: Annotated[Count, Field(description="Messages left today.", examples=[2])]
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
    url: Annotated[
        str,
        Field(
            description="A page of Stripe's: open it in the user's browser.",
            examples=["https://checkout.stripe.com/c/pay/cs_test_a1B2"],
        ),
    ]


class SubscriptionOut(Schema):
    """The tier, and the subscription behind it."""

    tier: Tier
    status: Annotated[
        SubscriptionStatus | None,
        Field(description="Stripe's word; null if there never was a subscription.", examples=["active"]),
    ]
    current_period_end: Annotated[Timestamp | None, Field(description="Up to when it is paid for.")]
    cancel_at_period_end: Annotated[
        bool, Field(description="Pro ends by itself, at that time or earlier.", examples=[False])
    ]

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
    status: Annotated[Literal["ok"], Field(description="The process answers.")] = "ok"


class ReadyReply(Schema):
    """`degraded`: everything is served, but something is slower or later than usual."""

    status: Annotated[Literal["ready", "degraded"], Field(description="Whether anything is away.", examples=["ready"])]
    dependencies: Annotated[
        dict[str, str],
        Field(
            description="Postgres and Redis: `ok` or `away`. If the model refuses the workers' key, `model` says why:"
            " `not configured (API_KEY_INVALID)`.",
            examples=[{"postgres": "ok", "redis": "ok"}],
        ),
    ]
    warnings: Annotated[list[str], Field(description="What production was told to do and should not.", examples=[[]])]


class FieldError(Schema):
    """A value that was not accepted."""

    pointer: Annotated[
        str,
        Field(
            description="Where: a JSON pointer into the body, `?name` in the query, or the name of a header.",
            examples=["/mobile"],
        ),
    ]
    detail: Annotated[str, Field(description="What is wrong with it, for people.", examples=["is required"])]


class Problem(Schema):
    """Every error, by RFC 9457. Program against `code`; `title` and `detail` are for people."""

    type: Annotated[str, Field(description="Always `about:blank`: `code` tells more.")] = "about:blank"
    title: Annotated[str, Field(description="The status in words.", examples=["Forbidden"])]
    status: Annotated[int, Field(description="The status of the answer.", examples=[403])]
    detail: Annotated[str, Field(description="What happened.", examples=["The day's messages are used up."])]
    instance: Annotated[str, Field(description="The path that was called.", examples=["/chatroom"])]
    code: Annotated[str, Field(description="A stable word for what happened.", examples=["quota_exceeded"])]
    request_id: Annotated[
        str,
        Field(
            description="The same as in `X-Request-ID` and in the service's log: name it to its operator.",
            examples=["9f1c2a7be04d4a1c8f3e5b6d7a8c9e0f"],
        ),
    ]
    errors: Annotated[
        list[FieldError] | None,
        Field(
            description="With `validation_failed` and its like: each value that was not accepted.",
            json_schema_extra=_without_default,
        ),
    ] = None
    resets_at: Annotated[
        Timestamp | None,
        Field(
            description="With `quota_exceeded`: when the allowance returns.",
            examples=["2026-02-01T00:00:00.000Z"],
            json_schema_extra=_without_default,
        ),
    ] = None
