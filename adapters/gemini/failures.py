"""Which of Google's errors means what to the product."""

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

#: 499 is CANCELLED, which Google says when it drops a request of its own accord.
_OVERLOADED = frozenset({499, 503, 529})
_RETRYABLE = frozenset({408, 500, 502, 504})
#: The key, the project or the way to Google is wrong, whatever the prompt.
_NOT_CONFIGURED = frozenset({401, 402, 403, 407})

_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s?")
_NAME = re.compile(r"[A-Z][A-Z0-9_]{1,63}")


@dataclass(frozen=True, slots=True)
class Failure:
    """`message` is Google's. It may quote the prompt or the key, so it is compared and goes no further."""

    error: ModelError
    message: str
    is_invalid_argument: bool


def failure_of(code: int, body: bytes, headers: Mapping[str, str]) -> Failure:
    """Of a reply whose HTTP code is not 200."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None  # a proxy on the way may have replaced it by anything
    return _failure(code, _error_in(given), headers)


def failure_in_stream(error: object) -> Failure:
    """Of an error object in the place of an event."""
    error = error if isinstance(error, Mapping) else {}
    code = error.get("code")
    return _failure(code if isinstance(code, int) else 500, error, {})


def failure_of_connection(error: Exception) -> ModelError:
    """Of whatever the transport or an unreadable reply raised. Its text may quote the prompt or a proxy's password."""
    status = getattr(error, "status", None)
    logger.warning("model_call_failed", error=type(error).__name__, status_code=status)
    if status == 407:
        return ModelNotConfigured("HTTP_407")
    return ModelUnavailable()


def _failure(code: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> Failure:
    status, said = _name(error.get("status")), error.get("message")
    message = said if isinstance(said, str) else ""
    details = error.get("details")
    details = [one for one in details if isinstance(one, Mapping)] if isinstance(details, list) else []
    reason = next((name for one in _of_type(details, "ErrorInfo") if (name := _name(one.get("reason")))), None)
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
        # A prepaid account without credit is answered like a rate limit, and stays so until somebody pays.
        is_spent = _is_daily(details) or "credits are depleted" in says
        return ModelQuotaExhausted() if is_spent else ModelRateLimited(retry_after=wait)
    if code in _NOT_CONFIGURED or (code == 400 and (_is_of_key(reason) or status == "FAILED_PRECONDITION")):
        return ModelNotConfigured(reason or status or f"HTTP_{code}")
    if code == 404:
        return ModelNotConfigured("MODEL_NOT_FOUND" if status == "NOT_FOUND" else "HTTP_404")
    if 300 <= code < 400:  # the base URL is not Google's; the key is not carried on to wherever it points
        return ModelNotConfigured(f"HTTP_{code}")
    if code in _OVERLOADED or "overloaded" in says:
        return ModelOverloaded(retry_after=wait)
    if code in _RETRYABLE or not 400 <= code < 500:
        return ModelUnavailable(retry_after=wait)
    return ModelRejectedRequest()


def _error_in(body: object) -> Mapping[str, Any]:
    """The error of a body: an object with `error`, or a list of one, as the streaming method sometimes sends it."""
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error") if isinstance(body, Mapping) else None
    return error if isinstance(error, Mapping) else {}


def _of_type(details: Iterable[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [one for one in details if str(one.get("@type", "")).endswith(f"google.rpc.{name}")]


def _wait(details: Iterable[Mapping[str, Any]], headers: Mapping[str, str]) -> float | None:
    """The longest that was asked for, in the body's RetryInfo or a Retry-After header."""
    asked = [headers.get("Retry-After"), *(one.get("retryDelay") for one in _of_type(details, "RetryInfo"))]
    # The date form of Retry-After is not Google's; without a number our own back-off decides.
    found = [_SECONDS.fullmatch(one.strip()) for one in asked if isinstance(one, str)]
    return max((float(one[1]) for one in found if one), default=None)


def _is_daily(details: Iterable[Mapping[str, Any]]) -> bool:
    violations = [one.get("violations") for one in _of_type(details, "QuotaFailure")]
    flat = [violation for some in violations if isinstance(some, list) for violation in some]
    return any("PerDay" in str(one.get("quotaId", "")) for one in flat if isinstance(one, Mapping))


def _is_of_key(reason: str | None) -> bool:
    return reason is not None and reason.startswith("API_KEY_")


def _name(given: object) -> str | None:
    """One of Google's constants; anything else might be somebody's text."""
    return given if isinstance(given, str) and _NAME.fullmatch(given) else None
