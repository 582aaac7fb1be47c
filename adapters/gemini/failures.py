"""Translates Google's errors into the domain's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from domain.errors import (
    ModelError,
    ModelNotConfigured,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRejectedRequest,
    ModelUnavailable,
)

logger = structlog.get_logger(__name__)

#: 499 is CANCELLED: Google dropped the request.
_OVERLOADED = frozenset({499, 503, 529})
_RETRYABLE = frozenset({408, 500, 502, 504})
#: The key, the project or the route to Google is wrong, whatever the prompt.
_NOT_CONFIGURED = frozenset({401, 402, 403, 407})

_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s?")
_NAME = re.compile(r"[A-Z][A-Z0-9_]{1,63}")


@dataclass(frozen=True, slots=True)
class Failure:
    """`message` is Google's. It may quote the prompt or the key, so it is only compared, never logged or passed on."""

    error: ModelError
    message: str
    is_invalid_argument: bool


def failure_of(code: int, body: bytes, headers: Mapping[str, str]) -> Failure:
    """For a response whose status is not 200."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None  # a proxy may have replaced it
    return _failure(code, _error_in(given), headers)


def failure_in_stream(error: object) -> Failure:
    """For an error object in place of an event."""
    error = error if isinstance(error, Mapping) else {}
    code = error.get("code")
    return _failure(code if isinstance(code, int) else 500, error, {})


def failure_of_connection(error: Exception) -> ModelError:
    """For an error of the transport or of the parser. Its text may quote the prompt or a proxy's password."""
    status = getattr(error, "status", None)
    logger.warning("model_call_failed", error=type(error).__name__, status_code=status)
    if status == 407:
        return ModelNotConfigured("HTTP_407")
    return ModelUnavailable()


def _failure(code: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> Failure:
    status, said = _name(error.get("status")), error.get("message")
    message = said if isinstance(said, str) else ""
    details = error.get("details")
    details = [detail for detail in details if isinstance(detail, Mapping)] if isinstance(details, list) else []
    reason = next((name for info in _of_type(details, "ErrorInfo") if (name := _name(info.get("reason")))), None)
    logger.warning("model_call_failed", status_code=code, status=status, reason=reason)
    return Failure(
        error=_error(code, status, reason, message, details, _wait(details, headers)),
        message=message,
        is_invalid_argument=code == 400 and status in (None, "INVALID_ARGUMENT") and not _is_of_key(reason),
    )


def _error(
    code: int,
    status: str | None,
    reason: str | None,
    message: str,
    details: list[Mapping[str, Any]],
    wait: float | None,
) -> ModelError:
    says = message.lower()
    if code == 429:
        # A prepaid account without credit gets the status of a rate limit, until somebody pays.
        is_spent = _is_daily(details) or "credits are depleted" in says
        return ModelQuotaExhausted() if is_spent else ModelRateLimited(retry_after=wait)
    if code in _NOT_CONFIGURED or (code == 400 and (_is_of_key(reason) or status == "FAILED_PRECONDITION")):
        return ModelNotConfigured(reason or status or f"HTTP_{code}")
    if code == 404:
        return ModelNotConfigured("MODEL_NOT_FOUND" if status == "NOT_FOUND" else "HTTP_404")
    if 300 <= code < 400:  # the base URL is not Google's; the key must not follow the redirect
        return ModelNotConfigured(f"HTTP_{code}")
    if code in _OVERLOADED or "overloaded" in says:
        return ModelOverloaded(retry_after=wait)
    if code in _RETRYABLE or not 400 <= code < 500:
        return ModelUnavailable(retry_after=wait)
    return ModelRejectedRequest()


def _error_in(body: object) -> Mapping[str, Any]:
    """The error in a body: an object with `error`, or a list of one, as the streaming method sometimes sends."""
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error") if isinstance(body, Mapping) else None
    return error if isinstance(error, Mapping) else {}


def _of_type(details: Iterable[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [detail for detail in details if str(detail.get("@type", "")).endswith(f"google.rpc.{name}")]


def _wait(details: Iterable[Mapping[str, Any]], headers: Mapping[str, str]) -> float | None:
    """The longest delay in the body's RetryInfo and the Retry-After header."""
    asked = [headers.get("Retry-After"), *(info.get("retryDelay") for info in _of_type(details, "RetryInfo"))]
    # Google does not use the date form of Retry-After. Without a number our own back-off decides.
    found = [_SECONDS.fullmatch(text.strip()) for text in asked if isinstance(text, str)]
    return max((float(match[1]) for match in found if match), default=None)


def _is_daily(details: Iterable[Mapping[str, Any]]) -> bool:
    violations = [failure.get("violations") for failure in _of_type(details, "QuotaFailure")]
    flat = [violation for some in violations if isinstance(some, list) for violation in some]
    return any("PerDay" in str(violation.get("quotaId", "")) for violation in flat if isinstance(violation, Mapping))


def _is_of_key(reason: str | None) -> bool:
    return reason is not None and reason.startswith("API_KEY_")


def _name(given: object) -> str | None:
    """One of Google's constants. Anything else may be text of a user."""
    return given if isinstance(given, str) and _NAME.fullmatch(given) else None
