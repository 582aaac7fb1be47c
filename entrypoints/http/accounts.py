"""/auth and /user."""

from __future__ import annotations

from application.accounts.sessions import Caller
from domain.accounts import Device, OtpPurpose, User
from domain.errors import (
    CodesOff,
    CodesSentTooOften,
    CountryNotAllowed,
    CredentialsInvalid,
    InvalidMobile,
    MobileTaken,
    OtpInvalid,
    PasswordWrong,
    PaymentsRefused,
    PaymentsUnavailable,
    RefreshTokenInvalid,
    SessionNotFound,
    TooManyGuesses,
    UserNotFound,
)
from domain.ids import SessionId, UserId
from entrypoints.container import Container
from entrypoints.http.endpoints import Endpoints
from entrypoints.http.schemas import (
    ChangePasswordBody,
    DailyUsageOut,
    LogInBody,
    MobileBody,
    OtpReply,
    ProfileOut,
    ProfileReply,
    RefreshBody,
    RenameBody,
    Reply,
    ResetPasswordBody,
    SessionOut,
    SessionsReply,
    SignedInReply,
    SignUpBody,
    SignUpReply,
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
    limits=("signup",),
    errors=(InvalidMobile, MobileTaken),
)
async def sign_up(container: Container, body: SignUpBody, user_id: UserId | None = None) -> SignUpReply:
    """Create an account for a mobile number.

    A number has one account, however it is spelled. Next prove that it is yours, with send-otp and verify-otp.
    """
    user = await container.sign_up()(mobile=body.mobile, name=body.name, user_id=user_id)
    return SignUpReply(message="Signed up. Verify the mobile number next.", user=UserOut.of(user))


@endpoints.add(
    "POST",
    "/auth/send-otp",
    body=MobileBody,
    reply=OtpReply,
    limits=("codes", "codes-prefix"),
    errors=(InvalidMobile, CountryNotAllowed, UserNotFound, CodesSentTooOften),
)
async def send_otp(container: Container, body: MobileBody) -> OtpReply:
    """Send a one-time code to log in with.

    It is good for five minutes and five guesses, and replaces the one before. It goes to the number by SMS; in
    development it is handed out in the reply, as `otp`.
    """
    return _otp_reply(await container.send_otp()(mobile=body.mobile, purpose=OtpPurpose.LOGIN))


@endpoints.add(
    "POST",
    "/auth/verify-otp",
    body=VerifyOtpBody,
    reply=SignedInReply,
    limits=("verify",),
    refresh_cookie=True,
    errors=(InvalidMobile, OtpInvalid, TooManyGuesses, CodesOff),
)
async def verify_otp(container: Container, body: VerifyOtpBody, device: Device) -> SignedInReply:
    """Log in with a one-time code.

    A code works once. A number has ten wrong guesses an hour and twenty a day, and from the fifth in a row on
    each has to be waited for: no new code gives them back.
    """
    return SignedInReply.of(await container.verify_otp()(mobile=body.mobile, code=body.otp, device=device))


@endpoints.add(
    "POST",
    "/auth/login",
    body=LogInBody,
    reply=SignedInReply,
    limits=("login",),
    refresh_cookie=True,
    errors=(InvalidMobile, CredentialsInvalid, TooManyGuesses),
)
async def log_in(container: Container, body: LogInBody, device: Device) -> SignedInReply:
    """Log in with the password.

    An account has none until it sets one: by forgot-password and then reset-password or change-password.
    """
    return SignedInReply.of(await container.log_in()(mobile=body.mobile, password=body.password, device=device))


@endpoints.add(
    "POST",
    "/auth/refresh",
    body=RefreshBody,
    reply=SignedInReply,
    limits=("refresh",),
    refresh_cookie=True,
    errors=(RefreshTokenInvalid,),
)
async def refresh(container: Container, body: RefreshBody) -> SignedInReply:
    """Exchange the refresh token for a new pair of tokens.

    The old refresh token is spent. If the answer is lost, repeat the call within ten seconds: it is answered
    the same. A spent token that comes later must have been copied, and ends the session for whoever has it.
    """
    return SignedInReply.of(await container.refresh_session()(refresh_token=body.refresh_token))


@endpoints.add("POST", "/auth/logout", reply=Reply, authenticated=True, refresh_cookie=True, idempotent=True)
async def log_out(container: Container, caller: Caller) -> Reply:
    """End this session. Its tokens are refused from now on.

    Repeated it is answered with 401, with an `Idempotency-Key` too: the session has ended.
    """
    await container.end_session()(caller=caller)
    return Reply(message="Logged out.")


@endpoints.add("GET", "/auth/sessions", reply=SessionsReply, authenticated=True)
async def list_sessions(container: Container, caller: Caller) -> SessionsReply:
    """List the devices that are logged in, the one seen last first."""
    found = await container.list_sessions()(caller=caller)
    return SessionsReply(
        message="Your sessions.",
        data=[SessionOut.of(session, current=session.id == caller.session_id) for session in found],
    )


@endpoints.add("DELETE", "/auth/sessions", reply=Reply, authenticated=True)
async def end_other_sessions(container: Container, caller: Caller) -> Reply:
    """Log out every device but this one."""
    await container.end_other_sessions()(caller=caller)
    return Reply(message="All other sessions have ended.")


@endpoints.add("DELETE", "/auth/sessions/<session_id>", reply=Reply, authenticated=True, errors=(SessionNotFound,))
async def end_session(container: Container, caller: Caller, session_id: SessionId) -> Reply:
    """Log out one device."""
    await container.end_session()(caller=caller, session_id=session_id)
    return Reply(message="The session has ended.")


@endpoints.add(
    "POST",
    "/auth/forgot-password",
    body=MobileBody,
    reply=OtpReply,
    limits=("codes", "codes-prefix"),
    errors=(InvalidMobile, CountryNotAllowed, UserNotFound, CodesSentTooOften),
)
async def forgot_password(container: Container, body: MobileBody) -> OtpReply:
    """Send a one-time code to set a new password with.

    It is for reset-password or change-password; nobody can log in with it.
    """
    return _otp_reply(await container.send_otp()(mobile=body.mobile, purpose=OtpPurpose.RESET))


@endpoints.add(
    "POST",
    "/auth/reset-password",
    body=ResetPasswordBody,
    reply=Reply,
    limits=("verify",),
    idempotent=True,
    errors=(InvalidMobile, OtpInvalid, TooManyGuesses, CodesOff),
)
async def reset_password(container: Container, body: ResetPasswordBody) -> Reply:
    """Set a new password with a code from forgot-password.

    Every session of the account ends: log in with the new password.
    """
    await container.reset_password()(mobile=body.mobile, code=body.otp, new_password=body.new_password)
    return Reply(message="The password is set. Log in with it.")


@endpoints.add(
    "POST",
    "/auth/change-password",
    body=ChangePasswordBody,
    reply=Reply,
    authenticated=True,
    limits=("verify",),
    idempotent=True,
    errors=(OtpInvalid, PasswordWrong, TooManyGuesses, CodesOff),
)
async def change_password(container: Container, caller: Caller, body: ChangePasswordBody) -> Reply:
    """Set a new password while logged in.

    Proof is a code from forgot-password or the current password. All other sessions end.
    """
    await container.change_password()(
        caller=caller, new_password=body.new_password, code=body.otp, current_password=body.current_password
    )
    return Reply(message="The password is changed.")


@endpoints.add("GET", "/user/me", reply=ProfileReply, authenticated=True)
async def get_profile(container: Container, caller: Caller) -> ProfileReply:
    """Get who is logged in, on which tier, and what is left of today's messages."""
    return await _profile(container, caller.user)


@endpoints.add("PATCH", "/user/me", body=RenameBody, reply=ProfileReply, authenticated=True)
async def rename_user(container: Container, caller: Caller, body: RenameBody) -> ProfileReply:
    """Change your name."""
    user = await container.rename_user()(user=caller.user, name=body.name)
    return await _profile(container, user)


@endpoints.add(
    "DELETE",
    "/user/me",
    reply=Reply,
    authenticated=True,
    refresh_cookie=True,
    errors=(PaymentsUnavailable, PaymentsRefused),
)
async def delete_user(container: Container, caller: Caller) -> Reply:
    """Delete your account and all that belongs to it.

    At once and for good. A subscription is cancelled at Stripe first; if that fails, nothing is deleted. What the
    number has used of today's messages stays used, also for a new account.
    """
    await container.delete_user()(user=caller.user)
    return Reply(message="The account is deleted.")


async def _profile(container: Container, user: User) -> ProfileReply:
    return ProfileReply(
        message="Your profile.",
        data=ProfileOut(
            id=user.id,
            mobile=user.mobile,
            name=user.name,
            subscription_tier=user.tier(container.clock().now()),
            usage=DailyUsageOut.of(await container.get_allowance()(user=user)),
        ),
    )


def _otp_reply(code: str | None) -> OtpReply:
    return OtpReply(message="A code is on its way.") if code is None else OtpReply(message="Your code.", otp=code)
