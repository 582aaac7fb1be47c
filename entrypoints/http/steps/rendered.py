"""The outermost step: it turns the answer into a response."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import structlog
from sanic import HTTPResponse, Request

from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.server.headers import JsonResponse, request_id
from entrypoints.http.steps import refresh_cookie
from entrypoints.http.steps.call import Answer, Call, Kit, Step
from entrypoints.telemetry import REQUEST_ID

log = structlog.get_logger(__name__)

SanicHandler: TypeAlias = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]


def rendered(step: Step, endpoint: Endpoint, kit: Kit) -> SanicHandler:
    name, is_logged = endpoint.name, kit.settings.log_level == "debug"

    async def render(request: Request, **path: str) -> HTTPResponse | None:
        identifier = request_id(request)
        before = REQUEST_ID.set(identifier)
        try:
            answer = await step(Call(request, path))
            if not isinstance(answer, Answer):
                return answer
            if is_logged:
                log.debug("request", call=name, status=answer.status)
        finally:
            REQUEST_ID.reset(before)
        headers = {"x-request-id": identifier, **answer.headers}
        response = JsonResponse(answer.body, status=answer.status, headers=headers)
        for cookie, token in answer.cookies.items():
            refresh_cookie.put(response, request, cookie, token, kit.settings)
        return response

    return render
