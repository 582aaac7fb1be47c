"""The innermost step: the handler with its use cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sanic import HTTPResponse

from domain.errors import TokenInvalid, UserNotFound
from entrypoints.container import provider_of
from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.server import sse
from entrypoints.http.steps.call import Answer, Call, Kit, Step


def handled(endpoint: Endpoint, kit: Kit) -> Step:
    use_cases = _providers(endpoint, kit)

    async def handle(call: Call) -> Answer:
        arguments = {name: provider() for name, provider in use_cases.items()} | call.arguments
        try:
            return Answer(endpoint.status, await endpoint.handler(**arguments))
        except UserNotFound:
            if not endpoint.authenticated:
                raise
            raise TokenInvalid from None  # the caller was deleted concurrently

    return handle


def streamed(endpoint: Endpoint, kit: Kit) -> Step:
    """The same for a call whose reply is a stream."""
    use_cases = _providers(endpoint, kit)

    async def stream(call: Call) -> HTTPResponse | None:
        arguments = {name: provider() for name, provider in use_cases.items()} | call.arguments
        if "after" in endpoint.takes:
            arguments["after"] = sse.last_event_id(call.request)
        assert call.caller is not None, "only users stream"
        with kit.streams.slot(call.caller) as slot:
            reply = await endpoint.handler(**arguments)
            call.leave()
            return await kit.streams.send(call.request, slot, reply)

    return stream


def _providers(endpoint: Endpoint, kit: Kit) -> dict[str, Callable[[], Any]]:
    return {name: provider_of(kit.container, kind) for name, kind in endpoint.use_cases.items()}
