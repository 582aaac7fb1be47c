"""Stripe's errors as its API words them."""

from __future__ import annotations

from typing import Any

from local.standin import Json

#: Errors that a fault can cause, by HTTP status: type, code, message.
ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request was unacceptable."),
    401: ("invalid_request_error", None, "Invalid API Key provided: sk_test_***"),
    402: ("card_error", "card_declined", "Your card was declined."),
    403: ("invalid_request_error", None, "The provided key does not have the required permissions."),
    404: ("invalid_request_error", "resource_missing", "No such object."),
    409: ("invalid_request_error", "lock_timeout", "This object cannot be accessed right now."),
    429: ("invalid_request_error", "rate_limit", "Request rate limit exceeded."),
    500: ("api_error", None, "An unknown error occurred."),
    502: ("api_error", None, "Bad gateway."),
    503: ("api_error", None, "Stripe is temporarily unavailable."),
}


class StripeError(Exception):
    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        self.status = status
        more = {name: value for name, value in more.items() if value}
        self.body: Json = {"error": {"type": kind, "message": message} | more}
        super().__init__(message)


def invalid(message: str, param: str | None = None, code: str | None = None) -> StripeError:
    return StripeError(400, "invalid_request_error", message, param=param, code=code)


def missing(kind: str, object_id: str, param: str = "id") -> StripeError:
    """404 for the object of the call itself, 400 for one that a parameter names."""
    message = f"No such {kind.replace('checkout.session', 'checkout session')}: '{object_id}'"
    status = 404 if param == "id" else 400
    return StripeError(status, "invalid_request_error", message, code="resource_missing", param=param)


def error_with(status: int) -> StripeError:
    kind, code, message = ERRORS[status]
    return StripeError(status, kind, message, code=code)
