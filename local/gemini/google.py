"""Google's errors as its REST API words them."""

from __future__ import annotations

from local.standin import Json

_TYPE = "type.googleapis.com/google.rpc."
_SERVICE = "generativelanguage.googleapis.com"

#: Kinds of error: HTTP code, Google's status, a message in Google's words.
ERRORS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "bad_key": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "no_key": (
        403,
        "PERMISSION_DENIED",
        "Method doesn't allow unregistered callers (callers without established identity). "
        "Please use API Key or other form of API consumer identity to call this API.",
    ),
    "permission_denied": (403, "PERMISSION_DENIED", "The caller does not have permission"),
    "service_disabled": (
        403,
        "PERMISSION_DENIED",
        "Generative Language API has not been used in project 123456789012 before or it is disabled. Enable it by "
        f"visiting https://console.developers.google.com/apis/api/{_SERVICE}/overview?project=123456789012 then retry.",
    ),
    "not_found": (404, "NOT_FOUND", "Requested entity was not found."),
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota. Please retry later."),
    "daily_quota": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan."),
    "cancelled": (499, "CANCELLED", "The operation was cancelled."),
    "internal": (500, "INTERNAL", "An internal error has occurred. Please retry."),
    "unavailable": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "timeout": (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}

_REASONS = {
    "bad_key": "API_KEY_INVALID",
    "permission_denied": "API_KEY_SERVICE_BLOCKED",
    "service_disabled": "SERVICE_DISABLED",
}

#: Beginnings of keys that are refused, and how. Any other key is accepted.
_REFUSED_KEYS = {"invalid": "bad_key", "denied": "permission_denied", "disabled": "service_disabled"}


def error_body(kind: str, *, message: str = "", retry_delay: str = "53.016s") -> tuple[int, Json]:
    """The HTTP code and the body that Google sends with it."""
    code, status, text = ERRORS[kind]
    error: Json = {"code": code, "message": message or text, "status": status}
    if details := _details(kind, error["message"], retry_delay):
        error["details"] = details
    return code, {"error": error}


def _details(kind: str, message: str, retry_delay: str) -> list[Json]:
    if kind in _REASONS:
        info = {"reason": _REASONS[kind], "domain": "googleapis.com", "metadata": {"service": _SERVICE}}
        return [
            {"@type": f"{_TYPE}ErrorInfo"} | info,
            {"@type": f"{_TYPE}LocalizedMessage", "locale": "en-US", "message": message},
        ]
    if kind in ("rate_limit", "daily_quota"):
        window = "PerDay" if kind == "daily_quota" else "PerMinute"
        violation = {
            "quotaMetric": f"{_SERVICE}/generate_content_free_tier_requests",
            "quotaId": f"GenerateRequests{window}PerProjectPerModel-FreeTier",
        }
        return [
            {"@type": f"{_TYPE}QuotaFailure", "violations": [violation]},
            {"@type": f"{_TYPE}RetryInfo", "retryDelay": retry_delay},
        ]
    return []


class GoogleError(Exception):
    def __init__(self, kind: str, message: str = "") -> None:
        self.kind = kind
        self.code, self.body = error_body(kind, message=message)


def check_key(key: str | None) -> None:
    """Raises GoogleError for a missing key and for one with a refused beginning."""
    if not key:
        raise GoogleError("no_key")
    for beginning, kind in _REFUSED_KEYS.items():
        if key.startswith(beginning):
            raise GoogleError(kind)
