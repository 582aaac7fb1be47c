"""The pipeline of a request: named steps around its handler.

A step takes the call and returns the answer. It may act before and after the next step, or refuse the call.
`compiled` folds the steps that an endpoint needs, innermost first.
"""

from __future__ import annotations

from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.steps.authenticated import authenticated
from entrypoints.http.steps.call import Kit, Step
from entrypoints.http.steps.concurrent import concurrent
from entrypoints.http.steps.handled import handled, streamed
from entrypoints.http.steps.idempotent import idempotent, keyless
from entrypoints.http.steps.limited import limited
from entrypoints.http.steps.parsed import identified, parsed, validated
from entrypoints.http.steps.preferred import preferred
from entrypoints.http.steps.refresh_cookie import cookied
from entrypoints.http.steps.remembered import remembered
from entrypoints.http.steps.rendered import SanicHandler, rendered


def compiled(endpoint: Endpoint, kit: Kit) -> SanicHandler:
    step: Step
    if endpoint.reply is None:
        step = streamed(endpoint, kit)
    else:
        step = handled(endpoint, kit)
        if endpoint.of_chatrooms_version:
            step = remembered(step, endpoint)
        if endpoint.refresh_cookie:
            step = cookied(step)
        if endpoint.takes_key:
            step = idempotent(step, endpoint, kit)
        if endpoint.takes_preference:
            step = preferred(step, endpoint, kit)
    if endpoint.query or endpoint.path_ids:
        step = validated(step, endpoint)
    if endpoint.all_limits:
        step = limited(step, endpoint, kit.rate_limits)
    if endpoint.body:
        step = parsed(step, endpoint.body, method=endpoint.method)
    if "device" in endpoint.takes:
        step = identified(step, kit)
    if endpoint.authenticated and not endpoint.urgent and kit.settings.limits.enabled:
        step = concurrent(step, kit.running)
    if endpoint.authenticated:
        step = authenticated(step, kit.authenticate)
    if endpoint.method == "POST" and not endpoint.takes_key:
        step = keyless(step)
    return rendered(step, endpoint, kit)
