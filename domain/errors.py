"""Everything that can go wrong by the rules of the product.

DomainError
├── InvalidInput                 a value that no rule can accept
│   ├── InvalidMobile
│   └── CountryNotAllowed        codes are sent to some countries only
├── NotAuthenticated             no proof, or none that holds, of who is asking
│   ├── TokenMissing
│   ├── TokenInvalid
│   ├── TokenExpired
│   ├── RefreshTokenInvalid      unknown, spent, or of a session that is over
│   └── CredentialsInvalid       login: unknown number or wrong password
├── OtpInvalid                   wrong, spent, expired or never sent
├── PasswordWrong                the current password given with a change
├── OtpLocked                     too many wrong codes in a row: none is taken for this number any more
├── NotFound
│   ├── UserNotFound
│   ├── ChatroomNotFound         absent, or somebody else's: the same to the caller
│   ├── MessageNotFound
│   └── SessionNotFound
├── MobileTaken
├── MessageEnded                 too late to cancel
├── MessageNotEnded              too early to regenerate or to continue
├── MessageNotContinuable        its reply was not cut off
├── QuotaExceeded                the day's allowance is used up
├── TooManyRequests              slow down: the request is right, the moment is not
│   ├── TooManyInFlight          so many messages of the user are unanswered
│   ├── SendingTooFast           fair use: so many messages a minute
│   ├── TooManyStreams           so many streams of the user are open
│   ├── TooManyGuesses           wrong codes or passwords for a number: wait before the next
│   ├── CodesSentTooOften        to one number
│   └── RateLimited              calls by one address or user
├── IdempotencyKeyReused         the key was used for another request
├── IdempotencyKeyInUse          the request with this key is still running
├── Unavailable                  a part we depend on is away; ask again later
│   ├── DatabaseUnavailable
│   ├── RedisUnavailable
│   ├── StreamsExhausted         this process has as many streams open as it may
│   └── PaymentsUnavailable      Stripe is away or slow, or not set up
├── PaymentsRefused              Stripe understood and said no: our own settings or state are wrong
├── WebhookInvalid               not signed by Stripe, or not lately
├── AlreadySubscribed            a second subscription would charge the user twice
├── NotSubscribed                there is no subscription to manage
└── ModelError                   the language model gave no usable reply
    ├── ModelUnavailable         may work on another try
    │   ├── ModelRateLimited     … after the wait it named
    │   ├── ModelOverloaded      it has no room for anybody's request at the moment
    │   ├── ModelTimedOut        it was silent, or wrote, for longer than we wait
    │   ├── ModelDeferred        not asked at all, to spare it: no failure of the message
    │   └── GenerationFailed     our own fault, whatever it was
    ├── ModelQuotaExhausted      the deployment's own daily quota: no try will help today
    ├── ModelRejectedRequest             the request itself is wrong (model name, argument)
    │   └── ModelNotConfigured   the deployment's key or project is not accepted
    ├── ReplyBlocked             refused by the model's safety filter
    ├── ReplyEmpty               the model ended without a word
    └── WorkerCrashed              every worker that tried died of it, or with it

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
    detail = "The code is wrong, used or expired. Ask for a new one."


class PasswordWrong(DomainError):
    code = "password_wrong"
    detail = "The current password is wrong."


class OtpLocked(DomainError):
    code = "codes_off"
    detail = "Too many wrong codes were given for this number. Ask the operator to let it use codes again."


class NotFound(DomainError):
    code = "not_found"
    detail = "There is nothing here."


class UserNotFound(NotFound):
    code = "user_not_found"
    detail = "No account has this mobile number. Sign up first."


class ChatroomNotFound(NotFound):
    code = "chatroom_not_found"
    detail = "There is no such chatroom."


class MessageNotFound(NotFound):
    code = "message_not_found"
    detail = "There is no such message."


class SessionNotFound(NotFound):
    code = "session_not_found"
    detail = "There is no such session."


class MobileTaken(DomainError):
    code = "mobile_taken"
    detail = "An account with this mobile number exists already."


class MessageEnded(DomainError):
    code = "message_ended"
    detail = "The message has ended already. There is nothing to cancel."


class MessageNotEnded(DomainError):
    code = "message_not_ended"
    detail = "The message is still being answered. Cancel it first, or wait."


class MessageNotContinuable(DomainError):
    code = "message_not_continuable"
    detail = "The reply was not cut off, or is too long to go on. There is nothing to continue."


class QuotaExceeded(DomainError):
    code = "quota_exceeded"
    detail = "The day's messages are used up."

    def __init__(self, *, total: int, resets_at: datetime) -> None:
        super().__init__(f"All {total} messages of today are used. The allowance returns at 00:00 UTC.")
        self.total = total
        self.resets_at = resets_at


class TooManyRequests(DomainError):
    """`retry_after` is in seconds."""

    code = "too_many_requests"
    retry_after: float = 1.0


class TooManyInFlight(TooManyRequests):
    code = "too_many_in_flight"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} of your messages are still being answered. Wait for one of them.")


class SendingTooFast(TooManyRequests):
    code = "sending_too_fast"

    def __init__(self, limit: int, *, retry_after: float) -> None:
        super().__init__(f"At most {limit} messages a minute can be sent.")
        self.retry_after = retry_after


class TooManyStreams(TooManyRequests):
    code = "too_many_streams"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} of your streams are open. Close one of them.")


class TooManyGuesses(TooManyRequests):
    code = "too_many_guesses"
    detail = "There were too many wrong guesses for this number. Wait before the next."

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class CodesSentTooOften(TooManyRequests):
    code = "codes_sent_too_often"
    detail = "Codes were sent to this number too often. Use the last one, or wait."

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class RateLimited(TooManyRequests):
    code = "rate_limited"
    detail = "There were too many requests. Slow down."

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class IdempotencyKeyReused(DomainError):
    code = "idempotency_key_reused"
    detail = "This Idempotency-Key was used for another request."


class IdempotencyKeyUnsupported(DomainError):
    code = "idempotency_key_unsupported"
    detail = "This call takes no Idempotency-Key. Nothing was done; send it without one."


class IdempotencyKeyInUse(DomainError):
    code = "idempotency_key_in_use"
    detail = "The request with this Idempotency-Key is still running. Repeat it shortly."
    retry_after: float = 1.0


class Unavailable(DomainError):
    """`retry_after` is in seconds."""

    code = "unavailable"
    detail = "A part of the service is away. Try again shortly."
    retry_after: float = 2.0


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    detail = "The database is away. Try again shortly."


class RedisUnavailable(Unavailable):
    code = "redis_unavailable"
    detail = "Redis is away. Try again shortly."


class StreamsExhausted(Unavailable):
    code = "streams_exhausted"
    detail = "As many streams as this server allows are open. Try again shortly."


class PaymentsUnavailable(Unavailable):
    """Seen by a request it is a 503; seen by a worker, a reason to try again."""

    code = "payments_unavailable"
    detail = "The payment service is away. Try again shortly."


class PaymentsRefused(DomainError):
    code = "payments_refused"
    detail = "The payment service did not accept the request."


class WebhookInvalid(DomainError):
    code = "webhook_invalid"
    detail = "This is no event that Stripe has signed in the last five minutes."


class AlreadySubscribed(DomainError):
    code = "already_subscribed"
    detail = "There is a subscription already. Manage it in the customer portal."


class NotSubscribed(DomainError):
    code = "not_subscribed"
    detail = "There is no subscription to manage. Subscribe first."


class ModelError(DomainError):
    """Its detail may be shown to the user: never the vendor's own text."""

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
    detail = "The model is being spared for a moment."


class GenerationFailed(ModelUnavailable):
    code = "generation_failed"
    detail = "Something went wrong on our side."


class ModelQuotaExhausted(ModelError):
    code = "model_quota_exhausted"
    detail = "The service's daily quota of the model is used up."


class ModelRejectedRequest(ModelError):
    code = "model_refused"
    detail = "The model did not accept the request."


class ModelNotConfigured(ModelRejectedRequest):
    """`reason` is Google's, such as API_KEY_INVALID, for operators."""

    code = "model_not_configured"
    detail = "This service is not set up to reach the model. Its operator has to correct the key."

    def __init__(self, reason: str | None = None) -> None:
        super().__init__()
        self.reason = reason


class ReplyBlocked(ModelError):
    """`reason` is the vendor's own word, such as SAFETY."""

    code = "reply_blocked"
    detail = "The model's safety filter refused to answer."

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class ReplyEmpty(ModelError):
    """`reason` is the finish reason the vendor gave, such as MAX_TOKENS."""

    code = "reply_empty"
    detail = "The model ended without a word."

    def __init__(self, reason: str | None = None) -> None:
        super().__init__()
        self.reason = reason

    @property
    def may_differ(self) -> bool:
        """Asked the same once more, the model usually answers."""
        return self.reason in (None, "STOP", "OTHER", "NO_CANDIDATES") or self.reason.startswith("MALFORMED_")


class WorkerCrashed(ModelError):
    code = "workers_died"
    detail = "The message could not be answered: it was interrupted too often."
