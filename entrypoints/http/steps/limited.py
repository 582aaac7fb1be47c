"""Counts the call in the rate limits that it is declared with."""

from __future__ import annotations

from sanic import HTTPResponse

from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.steps.call import Answer, Call, Step
from entrypoints.http.steps.rate_limits import RateLimits


def limited(step: Step, endpoint: Endpoint, limits: RateLimits) -> Step:
    rules = limits.named(endpoint.all_limits)
    if not rules:
        return step

    async def limit(call: Call) -> Answer | HTTPResponse | None:
        user_id = call.user_id if call.caller else None
        await limits.apply(call.request, rules, user_id=user_id, body=call.arguments.get("body"))
        return await step(call)

    return limit
