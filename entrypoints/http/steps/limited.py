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

    shared = [rule for rule in rules if rule.shared]
    own = [rule for rule in rules if not rule.shared]

    async def limit(call: Call) -> Answer | HTTPResponse | None:
        if own:
            await limits.apply(call.request, own, caller=call.caller, shared=False)
        if shared:
            await limits.apply(call.request, shared, caller=call.caller, body=call.arguments.get("body"))
        return await step(call)

    return limit
