"""/auth and /user."""

from __future__ import annotations

from application.accounts.sessions import Caller
from domain.accounts import OtpPurpose
from domain.errors import (
    CredentialsInvalid,
    InvalidMobile,
    MobileTaken,
    OtpInvalid,
    PasswordWrong,
    UserNotFound,
)
from domain.ids import UserId
from entrypoints.container import Container
from entrypoints.http.endpoints import Endpoints
from entrypoints.http.schemas import (
    ChangePasswordBody,
    LogInBody,
    MobileBody,
    OtpReply,
    ProfileOut,
    ProfileReply,
    Reply,
    ResetPasswordBody,
    SignedInReply,
    SignUpBody,
    SignUpReply,
    UsageOut,
    UserOut,
    VerifyOtpBody,
)

endpoints = Endpoints("Accounts")


@endpoints.add(
    "POST",
    "/auth/signup",
    body=SignUpBody,
    reply=SignUpReply,
    status=201,
    creates="user_id",
    errors=(InvalidMobile, MobileTaken),
)
async def sign_up(container: Container, body: SignUpBody, user_id: UserId | None = None) -> SignUpReply:
    """Create an account for a mobile number.

    One number has one account, however it is spelled. Prove the number next, with send-otp and verify-otp.
    """
    user = await container.sign_up()(mobile=body.mobile, name=body.name, user_id=user_id)
    return SignUpReply(message="Signed up. Verify the mobile number next.", user=UserOut.of(user))


@endpoints.add("POST", "/auth/send-otp", body=MobileBody, reply=OtpReply, errors=(InvalidMobile, UserNotFound))
async def send_otp(container: Container, body: MobileBody) -> OtpReply:
    """Send a one-time code to log in with.

    It lives five minutes and for five guesses; a new one replaces it.
    """
    return _otp_reply(await container.send_otp()(mobile=body.mobile, purpose=OtpPurpose.LOGIN))


@endpoints.add("POST", "/auth/verify-otp", body=VerifyOtpBody, reply=SignedInReply, errors=(InvalidMobile, OtpInvalid))
async def verify_otp(container: Container, body: VerifyOtpBody) -> SignedInReply:
    """Log in with the one-time code. A code works once."""
    return SignedInReply.of(await container.verify_otp()(mobile=body.mobile, code=body.otp))


@endpoints.add("POST", "/auth/login", body=LogInBody, reply=SignedInReply, errors=(InvalidMobile, CredentialsInvalid))
async def log_in(container: Container, body: LogInBody) -> SignedInReply:
    """Log in with the password. An account has none until it sets one."""
    return SignedInReply.of(await container.log_in()(mobile=body.mobile, password=body.password))


@endpoints.add("POST", "/auth/forgot-password", body=MobileBody, reply=OtpReply, errors=(InvalidMobile, UserNotFound))
async def forgot_password(container: Container, body: MobileBody) -> OtpReply:
    """Send a one-time code to set a new password with, by reset-password or change-password."""
    return _otp_reply(await container.send_otp()(mobile=body.mobile, purpose=OtpPurpose.RESET))


@endpoints.add("POST", "/auth/reset-password", body=ResetPasswordBody, reply=Reply, errors=(InvalidMobile, OtpInvalid))
async def reset_password(container: Container, body: ResetPasswordBody) -> Reply:
    """Set a new password with a code from forgot-password. Every session of the account ends."""
    await container.reset_password()(mobile=body.mobile, code=body.otp, new_password=body.new_password)
    return Reply(message="The password is set. Log in with it.")


@endpoints.add(
    "POST",
    "/auth/change-password",
    body=ChangePasswordBody,
    reply=Reply,
    authenticated=True,
    errors=(OtpInvalid, PasswordWrong),
)
async def change_password(container: Container, caller: Caller, body: ChangePasswordBody) -> Reply:
    """Set a new password, proved by a one-time code or by the current password. All other sessions end."""
    await container.change_password()(
        caller=caller, new_password=body.new_password, code=body.otp, current_password=body.current_password
    )
    return Reply(message="The password is changed.")


@endpoints.add("GET", "/user/me", reply=ProfileReply, authenticated=True)
async def get_profile(container: Container, caller: Caller) -> ProfileReply:
    """Who is logged in, on which tier, and what is left of today's messages."""
    user = caller.user
    allowance = await container.get_allowance()(user=user)
    return ProfileReply(
        message="Your profile.",
        data=ProfileOut(
            id=user.id,
            mobile=user.mobile,
            name=user.name,
            subscription_tier=user.tier,
            usage=UsageOut.of(allowance),
        ),
    )


def _otp_reply(code: str | None) -> OtpReply:
    return OtpReply(message="A code is on its way.") if code is None else OtpReply(message="Your code.", otp=code)
