"""/auth and /user."""

from __future__ import annotations

from application.accounts.otp import SendOtp, VerifyOtp
from application.accounts.passwords import ChangePassword, ResetPassword
from application.accounts.profile import DeleteUser, RenameUser
from application.accounts.sessions import (
    Caller,
    EndOtherSessions,
    EndSession,
    ListSessions,
    LogIn,
    RefreshSession,
)
from application.accounts.signup import SignUp
from application.chat.messages import GetAllowance
from application.ports.runtime import Clock
from domain.accounts import Device, OtpPurpose, User
from domain.errors import (
    CodesExhausted,
    CodesSentTooOften,
    CountryNotAllowed,
    CredentialsInvalid,
    HashingBusy,
    InvalidMobile,
    MobileTaken,
    OtpInvalid,
    OtpLocked,
    PasswordWrong,
    PaymentsRefused,
    PaymentsUnavailable,
    ProofRequired,
    RefreshTokenInvalid,
    SessionNotFound,
    TooManyGuesses,
    UserNotFound,
)
from domain.ids import SessionId, UserId
from entrypoints.http.api.endpoints import Endpoints
from entrypoints.http.api.schemas import accounts as schemas
from entrypoints.http.api.schemas.billing import DailyUsage
from entrypoints.http.api.schemas.common import Reply

endpoints = Endpoints("Accounts")


@endpoints.post("/auth/signup", status=201, creates="user_id", limits=("signup",), errors=(InvalidMobile, MobileTaken))
async def sign_up(register: SignUp, body: schemas.SignUpBody, user_id: UserId | None = None) -> schemas.SignUpReply:
    """Create an account for a mobile number.

    A number has one account, in whatever format it is written. Next verify the number with send-otp and verify-otp.
    """
    user = await register(mobile=body.mobile, name=body.name, user_id=user_id)
    return schemas.SignUpReply(message="Signed up. Verify the mobile number next.", user=schemas.User.of(user))


@endpoints.post(
    "/auth/send-otp",
    limits=("codes", "codes-prefix"),
    errors=(InvalidMobile, CountryNotAllowed, UserNotFound, CodesSentTooOften, CodesExhausted, HashingBusy),
)
async def send_otp(send: SendOtp, body: schemas.MobileBody, device: Device) -> schemas.OtpReply:
    """Send a one-time code for login.

    It is valid for five minutes and five guesses. It is sent by SMS; in development it is returned in the reply as
    `otp`. `challenge` belongs to this code: send both back. Without it, only the number's latest code is accepted.
    """
    return schemas.OtpReply.of(await send(mobile=body.mobile, purpose=OtpPurpose.LOGIN, device=body.of(device)))


@endpoints.post(
    "/auth/verify-otp",
    limits=("verify",),
    refresh_cookie=True,
    errors=(InvalidMobile, OtpInvalid, TooManyGuesses, OtpLocked, HashingBusy),
)
async def verify_otp(verify: VerifyOtp, body: schemas.VerifyOtpBody, device: Device) -> schemas.SignedInReply:
    """Log in with a one-time code.

    A code works once. With its `challenge`, the first guess at it is always accepted. All other guesses from devices
    that have not logged in before are limited to ten per day for a number; after five wrong ones in a row, each further
    one requires a wait. A device that has logged in before has its own ten per hour and twenty per day. A new code does
    not reset these limits.
    """
    return schemas.SignedInReply.of(
        await verify(mobile=body.mobile, code=body.otp, device=body.of(device), challenge=body.challenge)
    )


@endpoints.post(
    "/auth/login",
    limits=("login",),
    refresh_cookie=True,
    errors=(InvalidMobile, CredentialsInvalid, TooManyGuesses, HashingBusy),
)
async def log_in(check: LogIn, body: schemas.LogInBody, device: Device) -> schemas.SignedInReply:
    """Log in with a password.

    A new account has no password. Set one with forgot-password and then reset-password or change-password.
    """
    return schemas.SignedInReply.of(await check(mobile=body.mobile, password=body.password, device=body.of(device)))


@endpoints.post("/auth/refresh", limits=("refresh",), refresh_cookie=True, errors=(RefreshTokenInvalid,))
async def refresh(refresh_session: RefreshSession, body: schemas.RefreshBody) -> schemas.SignedInReply:
    """Exchange the refresh token for a new pair of tokens.

    The old refresh token is used up. If the response is lost, repeat the call: the same refresh token is returned until
    it is used. A used token that arrives after that must have been copied, and ends the session.
    """
    return schemas.SignedInReply.of(
        await refresh_session(refresh_token=body.refresh_token, alternatives=body.alternatives)
    )


@endpoints.post("/auth/logout", limits=("sessions",), urgent=True, refresh_cookie=True, idempotent=True)
async def log_out(end_session: EndSession, caller: Caller) -> Reply:
    """End this session. Its tokens are no longer valid.

    A repeated call gets 401, even with an `Idempotency-Key`: the session has ended.
    """
    await end_session(caller=caller)
    return Reply(message="Logged out.")


@endpoints.get("/auth/sessions")
async def list_sessions(find: ListSessions, caller: Caller) -> schemas.SessionsReply:
    """List the logged-in devices, most recently used first."""
    found = await find(caller=caller)
    return schemas.SessionsReply(
        message="Your sessions.",
        data=[schemas.Session.of(session, current=session.id == caller.session_id) for session in found],
    )


@endpoints.delete("/auth/sessions", limits=("sessions",), urgent=True)
async def end_other_sessions(end_others: EndOtherSessions, caller: Caller) -> Reply:
    """Log out all other devices."""
    await end_others(caller=caller)
    return Reply(message="All other sessions have ended.")


@endpoints.delete("/auth/sessions/<session_id>", limits=("sessions",), urgent=True, errors=(SessionNotFound,))
async def end_session(end: EndSession, caller: Caller, session_id: SessionId) -> Reply:
    """Log out one device."""
    await end(caller=caller, session_id=session_id)
    return Reply(message="The session has ended.")


@endpoints.post(
    "/auth/forgot-password",
    limits=("codes", "codes-prefix"),
    errors=(InvalidMobile, CountryNotAllowed, UserNotFound, CodesSentTooOften, CodesExhausted, HashingBusy),
)
async def forgot_password(send_otp: SendOtp, body: schemas.MobileBody, device: Device) -> schemas.OtpReply:
    """Send a one-time code for setting a new password.

    It is valid for reset-password and change-password, not for login.
    """
    return schemas.OtpReply.of(await send_otp(mobile=body.mobile, purpose=OtpPurpose.RESET, device=body.of(device)))


@endpoints.post(
    "/auth/reset-password",
    limits=("verify",),
    idempotent=True,
    errors=(InvalidMobile, OtpInvalid, TooManyGuesses, OtpLocked, HashingBusy),
)
async def reset_password(reset: ResetPassword, body: schemas.ResetPasswordBody, device: Device) -> Reply:
    """Set a new password with a code from forgot-password.

    All sessions of the account end. Log in with the new password.
    """
    await reset(
        mobile=body.mobile,
        code=body.otp,
        new_password=body.new_password,
        device=body.of(device),
        challenge=body.challenge,
    )
    return Reply(message="The password is set. Log in with it.")


@endpoints.post(
    "/auth/change-password",
    limits=("verify", "sessions"),
    urgent=True,
    idempotent=True,
    errors=(OtpInvalid, PasswordWrong, TooManyGuesses, OtpLocked, HashingBusy),
)
async def change_password(change: ChangePassword, caller: Caller, body: schemas.ChangePasswordBody) -> Reply:
    """Set a new password while logged in.

    The proof is a code from forgot-password or the current password. All other sessions end.
    """
    await change(
        caller=caller,
        new_password=body.new_password,
        code=body.otp,
        current_password=body.current_password,
        challenge=body.challenge,
    )
    return Reply(message="The password is changed.")


@endpoints.get("/user/me")
async def get_profile(get_allowance: GetAllowance, clock: Clock, caller: Caller) -> schemas.ProfileReply:
    """Get your profile: user, tier, and the messages left today."""
    return await _profile(get_allowance, clock, caller.user)


@endpoints.patch("/user/me")
async def rename_user(
    rename: RenameUser, get_allowance: GetAllowance, clock: Clock, caller: Caller, body: schemas.RenameBody
) -> schemas.ProfileReply:
    """Change your name."""
    user = await rename(user=caller.user, name=body.name)
    return await _profile(get_allowance, clock, user)


@endpoints.delete(
    "/user/me",
    refresh_cookie=True,
    limits=("verify",),
    errors=(
        ProofRequired,
        OtpInvalid,
        PasswordWrong,
        TooManyGuesses,
        OtpLocked,
        HashingBusy,
        PaymentsUnavailable,
        PaymentsRefused,
    ),
)
async def delete_user(delete: DeleteUser, caller: Caller, body: schemas.DeleteUserBody) -> Reply:
    """Delete your account and all its data.

    The proof is a code from send-otp or forgot-password, or the current password. Deletion is immediate and permanent.
    A subscription is cancelled at Stripe first; if that fails, nothing is deleted. The messages that the number has
    used today stay used, even for a new account.
    """
    await delete(caller=caller, code=body.otp, current_password=body.current_password, challenge=body.challenge)
    return Reply(message="The account is deleted.")


async def _profile(get_allowance: GetAllowance, clock: Clock, user: User) -> schemas.ProfileReply:
    return schemas.ProfileReply(
        message="Your profile.",
        data=schemas.Profile(
            id=user.id,
            mobile=user.mobile,
            name=user.name,
            subscription_tier=user.tier(clock.now()),
            usage=DailyUsage.of(await get_allowance(user=user)),
        ),
    )
