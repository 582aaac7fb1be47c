"""Bodies and replies of /auth and /user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from application.accounts.otp import SentOtp
from application.accounts.sessions import SignedIn
from domain import accounts
from domain.accounts import MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, Device, OtpChallenge
from domain.billing import Tier
from domain.text import opaque_string
from entrypoints.http.api.schemas.billing import DailyUsage
from entrypoints.http.api.schemas.common import (
    Id,
    Name,
    NonBlankText,
    Reply,
    ReplySchema,
    Schema,
    Timestamp,
    timestamp,
    without_default,
)

MAX_TOKEN_CHARACTERS = 128


def _code(text: str) -> str:
    """Malformed codes are refused here, so that they do not count as guesses."""
    code = OtpChallenge.read_code(text)
    if code is None:
        raise ValueError("must have six digits")
    return code


def _prepared(value: Any) -> Any:
    """Before its length is checked: an accent may be a separate character."""
    return opaque_string(value) if isinstance(value, str) else value


Mobile = Annotated[
    NonBlankText,
    Field(
        max_length=64,
        description="Mobile number: international with `+`, or as dialled in the service's default country.",
        examples=["+919876543210"],
    ),
]
PersonName = Annotated[Name, Field(description="Name of the person.", examples=["Asha"])]
Code = Annotated[
    str,
    Field(
        max_length=64,
        description="The one-time code: six digits in any script; spaces and dashes are ignored. Anything else is"
        " refused and does not count as a guess.",
        examples=["042137"],
    ),
    AfterValidator(_code),
]
Password = Annotated[
    str,
    Field(
        max_length=4 * MAX_PASSWORD_CHARACTERS,  # an accent may be typed as a separate character
        description="Password of the account.",
        examples=["seven blue herons"],
    ),
]
NewPassword = Annotated[
    NonBlankText,
    BeforeValidator(_prepared),
    Field(
        min_length=MIN_PASSWORD_CHARACTERS,
        max_length=MAX_PASSWORD_CHARACTERS,
        description="The new password. The most common ones are refused. Spaces of any kind, and accents in any"
        " form, are the same.",
        examples=["seven blue herons"],
    ),
]


Challenge = Annotated[
    NonBlankText | None,
    Field(
        max_length=MAX_TOKEN_CHARACTERS,
        description="`challenge` of the reply to the request for the code. With it, other people's wrong guesses at the"
        " number do not count against this code.",
        examples=["lJ1nVxQ0kq3bDkT4pZ8yYwS2rM6uA9cE5gHfN7iOxQk"],
        json_schema_extra=without_default,
    ),
]


class FromDevice(Schema):
    """A body that may name the device by the token that its last login returned."""

    device_token: Annotated[
        NonBlankText | None,
        Field(
            max_length=MAX_TOKEN_CHARACTERS,
            description="`deviceToken` of the last login on this device. A device that has logged in before has its"
            " own limits, which strangers cannot use up. Taken from the cookie if there is one.",
            examples=["lJ1nVxQ0kq3bDkT4pZ8yYwS2rM6uA9cE5gHfN7iOxQk"],
            json_schema_extra=without_default,
        ),
    ] = None

    def of(self, device: Device) -> Device:
        return device if self.device_token is None else replace(device, token=self.device_token)


class SignUpBody(Schema):
    mobile: Mobile
    name: PersonName


class MobileBody(FromDevice):
    mobile: Mobile


class VerifyOtpBody(FromDevice):
    mobile: Mobile
    otp: Code
    challenge: Challenge = None


class LogInBody(FromDevice):
    mobile: Mobile
    password: Password


class RefreshBody(Schema):
    refresh_token: Annotated[
        NonBlankText,
        Field(
            max_length=MAX_TOKEN_CHARACTERS,
            description="The refresh token from the latest login or refresh.",
            examples=["lJ1nVxQ0kq3bDkT4pZ8yYwS2rM6uA9cE5gHfN7iOxQk"],
        ),
    ]
    _alternatives: tuple[str, ...] = PrivateAttr(())

    @classmethod
    def of_cookies(cls, tokens: Sequence[str]) -> RefreshBody:
        """Any of them may be the current one. Raises ValidationError if none could be."""
        possible = [token for token in dict.fromkeys(tokens) if 0 < len(token) <= MAX_TOKEN_CHARACTERS]
        body = cls(refresh_token=possible[0] if possible else "")
        body._alternatives = tuple(possible[1:])
        return body

    @property
    def alternatives(self) -> tuple[str, ...]:
        return self._alternatives


class RenameBody(Schema):
    name: PersonName


class ResetPasswordBody(FromDevice):
    mobile: Mobile
    otp: Code
    challenge: Challenge = None
    new_password: NewPassword


class Proof(Schema):
    """One proof is required: `otp`, a code from forgot-password or send-otp, or `currentPassword`."""

    otp: Annotated[Code | None, Field(description="A code from forgot-password.", examples=["042137"])] = None
    challenge: Challenge = None
    current_password: Annotated[
        Password | None, Field(description="The current password.", examples=["six blue herons"])
    ] = None


class ChangePasswordBody(Proof):
    new_password: NewPassword

    @model_validator(mode="after")
    def _has_proof(self) -> ChangePasswordBody:
        if self.otp is None and self.current_password is None:
            raise ValueError("needs otp or currentPassword")
        return self


class DeleteUserBody(Proof):
    pass


class User(ReplySchema):
    """A person with an account."""

    id: Id
    mobile: Annotated[str, Field(description="Mobile number in E.164 format.", examples=["+919876543210"])]
    name: PersonName

    @classmethod
    def of(cls, user: accounts.User) -> User:
        return cls(id=user.id, mobile=user.mobile, name=user.name)


class SignUpReply(Reply):
    user: User


class OtpReply(Reply, omit_defaults=True, kw_only=True):
    """`otp` is present only while codes are returned in the reply, which is meant for development."""

    otp: Annotated[
        str | None,
        Field(description="The one-time code: six digits.", examples=["042137"], json_schema_extra=without_default),
    ] = None
    challenge: Annotated[
        str,
        Field(
            description="Send it back with the code, so that only guesses from here count against it.",
            examples=["lJ1nVxQ0kq3bDkT4pZ8yYwS2rM6uA9cE5gHfN7iOxQk"],
        ),
    ]

    @classmethod
    def of(cls, sent: SentOtp) -> OtpReply:
        if sent.code is None:
            return cls(message="A code is on its way.", challenge=sent.challenge)
        return cls(message="Your code.", otp=sent.code, challenge=sent.challenge)


class SignedInReply(Reply, omit_defaults=True, kw_only=True):
    token: Annotated[
        str,
        Field(description="The access token: send it as `Authorization: Bearer <token>`.", examples=["eyJhbGciOi…"]),
    ]
    expires_in: Annotated[int, Field(description="Seconds until the access token expires.", examples=[3600])]
    refresh_token: Annotated[
        str,
        Field(
            description="Valid for one refresh within seven days. Store it as safely as a password."
            " Omitted if it was requested as a cookie.",
            examples=["lJ1nVxQ0kq3bDkT4pZ8yYwS2rM6uA9cE5gHfN7iOxQk"],
            json_schema_extra=without_default,
        ),
    ] = ""
    device_token: Annotated[
        str,
        Field(
            description="By which this device is known at its next login; only after a login. It does not prove who"
            " you are. Keep it when you log out. A cookie if the refresh token was requested as one.",
            examples=["lJ1nVxQ0kq3bDkT4pZ8yYwS2rM6uA9cE5gHfN7iOxQk"],
            json_schema_extra=without_default,
        ),
    ] = ""
    user: User

    @classmethod
    def of(cls, signed_in: SignedIn) -> SignedInReply:
        device = {} if signed_in.device_token is None else {"device_token": signed_in.device_token}
        return cls(
            message="Logged in.",
            token=signed_in.access.token,
            expires_in=signed_in.access.expires_in,
            refresh_token=signed_in.refresh_token,
            user=User.of(signed_in.user),
            **device,
        )


class Session(ReplySchema):
    """A logged-in device."""

    id: Id
    device: Annotated[str, Field(description="User agent at login.", examples=["Mozilla/5.0 …"])]
    network: Annotated[str, Field(description="Network at login.", examples=["203.0.113.0/24"])]
    created_at: Timestamp
    last_seen_at: Annotated[Timestamp, Field(description="Time of the login or of the latest refresh.")]
    current: Annotated[bool, Field(description="Whether this is the session making the request.", examples=[True])]

    @classmethod
    def of(cls, session: accounts.Session, *, current: bool) -> Session:
        return cls(
            id=session.id,
            device=session.device,
            network=session.network,
            created_at=timestamp(session.created_at),
            last_seen_at=timestamp(session.last_seen_at),
            current=current,
        )


class SessionsReply(Reply):
    data: list[Session]


class Profile(User):
    """The logged-in user."""

    subscription_tier: Tier
    usage: DailyUsage


class ProfileReply(Reply):
    data: Profile
