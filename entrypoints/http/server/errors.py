"""Every error as problem+json: the table that maps domain errors to HTTP, and the handler that uses it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from pydantic import ValidationError
from sanic import HTTPResponse, Request
from sanic.exceptions import MethodNotAllowed, RequestCancelled, SanicException
from sanic.exceptions import NotFound as RouteNotFound
from sanic.handlers import ErrorHandler
from sanic.response import json

from domain import errors
from entrypoints.http.api.schemas.problem import FieldError, Problem
from entrypoints.http.server.headers import NO_STORE, request_id
from entrypoints.validation import explanation

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
DISCARDED_BYTES = 134_217_728

STATUS: dict[type[errors.DomainError], int] = {
    errors.InvalidInput: 422,
    errors.NotAuthenticated: 401,
    errors.OtpInvalid: 400,
    errors.PasswordWrong: 400,
    errors.OtpLocked: 403,
    errors.ProofRequired: 403,
    errors.NotFound: 404,
    errors.MobileTaken: 409,
    errors.MessageEnded: 409,
    errors.MessageNotEnded: 409,
    errors.MessageNotContinuable: 409,
    errors.AlreadySubscribed: 409,
    errors.NotSubscribed: 409,
    errors.WebhookInvalid: 400,
    errors.PaymentsRefused: 502,
    errors.QuotaExceeded: 403,
    errors.TooManyChatrooms: 403,
    errors.TooManyRequests: 429,
    errors.IdempotencyKeyReused: 422,
    errors.IdempotencyKeyUnsupported: 400,
    errors.IdempotencyKeyInUse: 409,
    errors.Unavailable: 503,
}

_SANIC_CODES = {
    400: ("malformed_request", "The request is malformed."),
    408: ("request_timeout", "The request did not arrive in time."),
    413: ("body_too_large", "The request exceeds the size limit."),
    417: ("expectation_failed", "The Expect header is not supported."),
    431: ("headers_too_large", "The request's headers exceed the size limit."),
    503: ("timeout", "The request timed out."),
}


class InvalidRequest(Exception):
    """The body or the query does not match its schema."""

    def __init__(self, invalid: list[FieldError], *, status: int = 422, code: str = "validation_failed") -> None:
        self.errors = invalid
        self.status = status
        self.code = code

    @classmethod
    def of(cls, error: ValidationError, *, prefix: str = "/") -> InvalidRequest:
        details = error.errors(include_url=False, include_input=False)
        if details[0]["type"] == "json_invalid" or (prefix == "/" and details[0]["type"] == "model_type"):
            return cls([FieldError(pointer="", detail="must be a JSON object")], status=400, code="malformed_body")
        return cls(
            [FieldError(pointer=_pointer(prefix, detail["loc"]), detail=explanation(detail)) for detail in details]
        )


def status_of(error: type[errors.DomainError]) -> int:
    return next((STATUS[cls] for cls in error.__mro__ if cls in STATUS), 500)


class ProblemHandler(ErrorHandler):
    """Turns every exception, on every path, into problem+json."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        if request.stream is not None and request.stream.request_body:
            # Closing while the client still sends resets the connection, and the client never sees the problem. So the
            # rest of the body is read and discarded, within the request's timeout.
            request.stream.request_max_size = DISCARDED_BYTES
        match exception:
            case InvalidRequest():
                return problem(
                    request,
                    exception.status,
                    exception.code,
                    "; ".join(f"{e.pointer or 'The body'} {e.detail}" for e in exception.errors) + ".",
                    fields=exception.errors,
                )
            case errors.DomainError():
                return _of_domain_error(request, exception)
            case RequestCancelled():  # the client disconnected; this only ends the connection
                return problem(request, 400, *_SANIC_CODES[400])
            case MethodNotAllowed():
                allowed = _allowed(request)
                preflight: HTTPResponse | None = request.app.ctx.headers.preflight(request, allowed)
                if preflight is not None:
                    return preflight
                detail = "Method not allowed for this path."
                return problem(request, 405, "method_not_allowed", detail, headers={"allow": allowed})
            case RouteNotFound():
                return problem(request, 404, "route_not_found", "No such path.")
            case SanicException() if exception.status_code in _SANIC_CODES:
                status = _true_status(request, exception.status_code)
                code, detail = _SANIC_CODES[status]
                return problem(request, status, code, detail, headers={"retry-after": "2"} if status == 503 else {})
            case SanicException() if exception.status_code < 500:
                code, detail = _SANIC_CODES[400]
                return problem(request, exception.status_code, code, detail)
        log.error("unexpected_error", request_id=request_id(request), exc_info=exception)
        return problem(request, 500, "internal_error", "Something went wrong on our side.")


def _true_status(request: Request, status: int) -> int:
    """Sanic distinguishes these only by the exception's text."""
    if status == 413 and request.method == "NONE":  # its substitute for an unreadable request
        return 431
    if status == 503 and request.stream is not None and request.stream.request_body:  # it was waiting for the body
        return 408
    return status


def _allowed(request: Request) -> str:
    """Sanic omits `Allow` for paths with an id and several methods."""
    parts = _path(request).strip("/").split("/")
    methods: set[str] = set()
    for route in request.app.router.routes:
        segments = route.path.strip("/").split("/")
        if len(segments) == len(parts) and all(
            segment.startswith("<") or segment == part for segment, part in zip(segments, parts, strict=True)
        ):
            methods |= route.methods
    return ", ".join(sorted(methods))


def _of_domain_error(request: Request, error: errors.DomainError) -> HTTPResponse:
    headers, extra, fields = {}, {}, None
    match error:
        case errors.NotAuthenticated():
            headers = {"www-authenticate": "Bearer"}
        case errors.Unavailable() | errors.TooManyRequests() | errors.IdempotencyKeyInUse() | errors.OtpLocked():
            headers = {"retry-after": str(math.ceil(error.retry_after))}
        case errors.InvalidInput():
            fields = [FieldError(pointer=error.pointer, detail=error.detail)]
        case errors.QuotaExceeded():
            extra = {"resetsAt": error.resets_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    return problem(
        request, status_of(type(error)), error.code, error.detail, headers=headers, fields=fields, extra=extra
    )


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    fields: list[FieldError] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> HTTPResponse:
    return json(
        {**problem_body(request, status, code, detail, fields=fields), **(extra or {})},
        status=status,
        headers={**(headers or {}), "x-request-id": request_id(request), **NO_STORE},
        content_type=MEDIA_TYPE,
    )


def problem_body(
    request: Request, status: int, code: str, detail: str, *, fields: list[FieldError] | None = None
) -> dict[str, Any]:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=_path(request),
        code=code,
        request_id=request_id(request),
        errors=fields,
    )
    return problem.model_dump(mode="json", by_alias=True, exclude_none=True)


def _path(request: Request) -> str:
    try:
        return request.path
    except Exception:  # noqa: BLE001 - a request too broken to have a path still gets a problem
        return ""


def _pointer(prefix: str, location: tuple[int | str, ...]) -> str:
    return prefix + "/".join(str(part) for part in location) if location else ""
