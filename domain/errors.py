"""Everything that can go wrong by the rules of the product.

DomainError
├── InvalidInput                 a value that no rule can accept
│   ├── InvalidMobile
│   └── CountryNotAllowed        codes are sent to some countries only
├── NotAuthenticated             no valid proof of who is calling
│   ├── TokenMissing
│   ├── TokenInvalid
│   ├── TokenExpired
│   ├── RefreshTokenInvalid      unknown, spent, or of a session that is over
│   └── CredentialsInvalid       login: unknown number or wrong password
├── OtpInvalid                   wrong, spent, expired or never sent
├── PasswordWrong                the current password given with a change
├── OtpLocked                    too many consecutive wrong codes: codes are off for the number for a day
├── ProofRequired                a call that needs a code or the password besides the token
├── NotFound
│   ├── UserNotFound
│   ├── ChatroomNotFound         absent, or another user's: the same to the caller
│   ├── MessageNotFound
│   └── SessionNotFound
├── MobileTaken
├── MessageEnded                 too late to cancel
├── MessageNotEnded              too early to regenerate or to continue
├── MessageNotContinuable        its reply was not cut off
├── QuotaExceeded                the day's allowance is used up
├── TooManyChatrooms             the user's limit of chatrooms
├── TooManyRequests              the request is valid, but must wait
│   ├── TooManyInFlight          the user's limit of unanswered messages
│   ├── SendingTooFast           fair use: the user's messages per minute
│   ├── TooManyStreams           the user's limit of open streams
│   ├── TooManyGuesses           wrong codes or passwords for a number: wait before the next
│   ├── CodesSentTooOften        to one number
│   ├── TooManyConcurrent        the user's limit of requests at a time
│   └── RateLimited              calls by one address or user
├── IdempotencyKeyReused         the key was used for another request
├── IdempotencyKeyInUse          the request with this key is still running
├── Unavailable                  a dependency is unavailable; try again later
│   ├── DatabaseUnavailable
│   ├── RedisUnavailable
│   │   └── RedisMisconfigured   waiting does not help
│   ├── StreamsExhausted         this process's limit of open streams
│   ├── HashingBusy              too many passwords and codes are being checked
│   ├── CodesExhausted           the service has sent all codes that it may send today
│   └── PaymentsUnavailable      Stripe is unavailable, slow, or not set up
├── PaymentsRefused              Stripe rejected the request: our own settings or state are wrong
├── WebhookInvalid               not signed by Stripe, or not lately
├── AlreadySubscribed            a second subscription would charge the user twice
├── NotSubscribed                there is no subscription to manage
└── ModelError                   the language model gave no usable reply
    ├── ModelUnavailable         another attempt may succeed
    │   ├── ModelRateLimited     … after the wait it named
    │   ├── ModelOverloaded      it lacks capacity for any request
    │   ├── ModelTimedOut        it was silent, or kept writing, for longer than the timeout
    │   ├── ModelDeferred        not called, to protect it: the message has not failed
    │   └── GenerationFailed     our own fault, whatever it was
    ├── ModelQuotaExhausted      the deployment's own daily quota: no attempt will succeed today
    ├── ModelRejectedRequest     the request itself is wrong (model name, argument)
    │   └── ModelNotConfigured   the deployment's key or project is not accepted
    ├── ReplyBlocked             refused by the model's safety filter
    ├── ReplyEmpty               the model returned an empty reply
    └── WorkerCrashed            every worker that tried crashed or was killed

`code` is part of the API: clients program against it. HTTP numbers live in
entrypoints/http/server/errors.py, and only there.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar


class DomainError(Exception):
    code: ClassVar[str] = "error"
    detail: str = "The request could not be carried out."

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or type(self).detail
        super().__init__(self.detail)


class InvalidInput(DomainError):
    """`pointer` is the JSON pointer of the offending value, such as "/mobile"."""

    code = "validation_failed"
    detail = "A value in the request is not valid."

    def __init__(self, detail: str | None = None, *, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


class InvalidMobile(InvalidInput):
    code = "mobile_invalid"
    detail = "This is not a valid mobile number."

    def __init__(self, detail: str | None = None, *, pointer: str = "/mobile") -> None:
        super().__init__(detail, pointer=pointer)


class CountryNotAllowed(InvalidInput):
    code = "country_not_allowed"
    detail = "Codes are not sent to numbers of this country."

    def __init__(self) -> None:
        super().__init__(pointer="/mobile")


class NotAuthenticated(DomainError):
    code = "not_authenticated"
    detail = "Authentication is required."


class TokenMissing(NotAuthenticated):
    code = "token_missing"
    detail = "Send an access token as 'Authorization: Bearer <token>'."


class TokenInvalid(NotAuthenticated):
    code = "token_invalid"
    detail = "The access token is not valid, or its session has ended."


class TokenExpired(NotAuthenticated):
    code = "token_expired"
    detail = "The access token has expired. Log in again."


class RefreshTokenInvalid(NotAuthenticated):
    code = "refresh_token_invalid"
    detail = "The refresh token is not valid, was used before, or its session has ended. Log in again."


class CredentialsInvalid(NotAuthenticated):
    code = "credentials_invalid"
    detail = "The mobile number or the password is wrong."


class OtpInvalid(DomainError):
    code = "otp_invalid"
    detail = "The code is wrong, used or expired. Request a new one."


class PasswordWrong(DomainError):
    code = "password_wrong"
    detail = "The current password is wrong."


class OtpLocked(DomainError):
    """`retry_after`: seconds until codes are on again."""

    code = "codes_off"
    detail = (
        "Too many wrong codes were entered for this number. Codes are off for a day; devices that have logged in before"
        " can still use them. Or log in with the password."
    )

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class ProofRequired(DomainError):
    code = "proof_required"
    detail = "Send a one-time code as otp, or the current password as currentPassword."


class NotFound(DomainError):
    code = "not_found"
    detail = "Not found."


class UserNotFound(NotFound):
    code = "user_not_found"
    detail = "No account has this mobile number. Sign up first."


class ChatroomNotFound(NotFound):
    code = "chatroom_not_found"
    detail = "Chatroom not found."


class MessageNotFound(NotFound):
    code = "message_not_found"
    detail = "Message not found."


class SessionNotFound(NotFound):
    code = "session_not_found"
    detail = "Session not found."


class MobileTaken(DomainError):
    code = "mobile_taken"
    detail = "An account with this mobile number already exists."


class MessageEnded(DomainError):
    code = "message_ended"
    detail = "The message has already ended. There is nothing to cancel."


class MessageNotEnded(DomainError):
    code = "message_not_ended"
    detail = "The message is still being answered. Cancel it first, or wait."


class MessageNotContinuable(DomainError):
    code = "message_not_continuable"
    detail = "The reply was not cut off, or is too long to continue."


class QuotaExceeded(DomainError):
    code = "quota_exceeded"
    detail = "Today's messages are used up."

    def __init__(self, *, total: int, resets_at: datetime) -> None:
        super().__init__(f"All of today's {total} messages are used. The allowance resets at 00:00 UTC.")
        self.total = total
        self.resets_at = resets_at


class TooManyChatrooms(DomainError):
    code = "too_many_chatrooms"
    detail = "You have reached the limit of chatrooms. Delete one."


class TooManyRequests(DomainError):
    """`retry_after` is in seconds."""

    code = "too_many_requests"
    retry_after: float = 1.0


class TooManyInFlight(TooManyRequests):
    code = "too_many_in_flight"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} of your messages are still being answered. Wait for one to end.")


class SendingTooFast(TooManyRequests):
    code = "sending_too_fast"

    def __init__(self, limit: int, *, retry_after: float) -> None:
        super().__init__(f"You can send at most {limit} messages per minute.")
        self.retry_after = retry_after


class TooManyStreams(TooManyRequests):
    code = "too_many_streams"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} of your streams are open. Close one.")


class TooManyGuesses(TooManyRequests):
    code = "too_many_guesses"
    detail = "Too many wrong attempts for this number. Wait before you try again."

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class CodesSentTooOften(TooManyRequests):
    code = "codes_sent_too_often"
    detail = "Too many codes were sent to this number. Use the latest one, or wait."

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class TooManyConcurrent(TooManyRequests):
    code = "too_many_concurrent"
    detail = "Too many of your requests are running at the same time. Wait for one to end."


class RateLimited(TooManyRequests):
    code = "rate_limited"
    detail = "Too many requests. Slow down."

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class IdempotencyKeyReused(DomainError):
    code = "idempotency_key_reused"
    detail = "This Idempotency-Key was used for another request."


class IdempotencyKeyUnsupported(DomainError):
    code = "idempotency_key_unsupported"
    detail = "This call does not accept an Idempotency-Key. Nothing was done; send it without one."


class IdempotencyKeyInUse(DomainError):
    code = "idempotency_key_in_use"
    detail = "The request with this Idempotency-Key is still running. Repeat it shortly."
    retry_after: float = 1.0


class Unavailable(DomainError):
    """`retry_after` is in seconds. `cause` is for operators: it may name hosts, and clients do not see it."""

    code = "unavailable"
    detail = "A dependency is unavailable. Try again shortly."
    retry_after: float = 2.0

    def __init__(self, detail: str | None = None, *, cause: str = "") -> None:
        super().__init__(detail)
        self.cause = cause or self.detail


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    detail = "The database is unavailable. Try again shortly."


class RedisUnavailable(Unavailable):
    """`state` says in a word or two what is wrong with it, such as `full`; it is empty if it does not answer."""

    code = "redis_unavailable"
    detail = "Redis is unavailable. Try again shortly."

    def __init__(self, detail: str | None = None, *, cause: str = "", state: str = "") -> None:
        super().__init__(detail, cause=cause)
        self.state = state


class RedisMisconfigured(RedisUnavailable):
    """It will not become available by itself: the deployment has to be corrected."""


class StreamsExhausted(Unavailable):
    code = "streams_exhausted"
    detail = "The server's stream limit is reached. Try again shortly."


class HashingBusy(Unavailable):
    code = "busy"
    detail = "Too many logins are being checked. Try again shortly."
    retry_after = 1.0


class CodesExhausted(Unavailable):
    code = "codes_exhausted"
    detail = "The service cannot send more codes today. Log in with the password, or try again tomorrow."
    retry_after = 3600.0


class PaymentsUnavailable(Unavailable):
    """A request answers 503; a worker tries again."""

    code = "payments_unavailable"
    detail = "The payment service is unavailable. Try again shortly."


class PaymentsRefused(DomainError):
    code = "payments_refused"
    detail = "The payment service did not accept the request."


class WebhookInvalid(DomainError):
    code = "webhook_invalid"
    detail = "The signature is missing, invalid, or older than five minutes."


class AlreadySubscribed(DomainError):
    code = "already_subscribed"
    detail = "You already have a subscription. Manage it in the customer portal."


class NotSubscribed(DomainError):
    code = "not_subscribed"
    detail = "There is no subscription to manage. Subscribe first."


class ModelError(DomainError):
    """Its detail is shown to the user, so it never has the vendor's own text."""

    code = "model_error"
    detail = "The model gave no reply."


class ModelUnavailable(ModelError):
    """`retry_after`: seconds the model asked us to wait, if it did."""

    code = "model_unavailable"
    detail = "The model could not be reached or was overloaded."

    def __init__(self, detail: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ModelRateLimited(ModelUnavailable):
    code = "model_rate_limited"
    detail = "The model is receiving too many requests."


class ModelOverloaded(ModelUnavailable):
    code = "model_overloaded"
    detail = "The model is overloaded."


class ModelTimedOut(ModelUnavailable):
    code = "model_timed_out"
    detail = "The model took too long."


class ModelDeferred(ModelUnavailable):
    code = "model_deferred"
    detail = "Model calls are paused briefly."


class GenerationFailed(ModelUnavailable):
    code = "generation_failed"
    detail = "Something went wrong on our side."


class ModelQuotaExhausted(ModelError):
    code = "model_quota_exhausted"
    detail = "The service's daily model quota is used up."


class ModelRejectedRequest(ModelError):
    code = "model_refused"
    detail = "The model did not accept the request."


class ModelNotConfigured(ModelRejectedRequest):
    """`reason` is Google's, such as API_KEY_INVALID, for operators."""

    code = "model_not_configured"
    detail = "This service cannot use the model. Its operator has to correct the key."

    def __init__(self, reason: str | None = None) -> None:
        super().__init__()
        self.reason = reason


class ReplyBlocked(ModelError):
    """`reason` is the vendor's, such as SAFETY."""

    code = "reply_blocked"
    detail = "The model's safety filter refused to answer."

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class ReplyEmpty(ModelError):
    """`reason` is the finish reason the vendor gave, such as MAX_TOKENS."""

    code = "reply_empty"
    detail = "The model returned an empty reply."

    def __init__(self, reason: str | None = None) -> None:
        super().__init__()
        self.reason = reason

    @property
    def may_differ(self) -> bool:
        """Whether the model usually answers the same request the second time."""
        return self.reason in (None, "STOP", "OTHER", "NO_CANDIDATES") or self.reason.startswith("MALFORMED_")


class WorkerCrashed(ModelError):
    code = "workers_died"
    detail = "The message could not be answered: it was interrupted too often."
