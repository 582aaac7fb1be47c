"""The innermost step: the handler, with its use cases."""

from __future__ import annotations

from domain.errors import TokenInvalid, UserNotFound
from entrypoints.container import provider_of
from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.steps.call import Answer, Call, Kit, Step


def handled(endpoint: Endpoint, kit: Kit) -> Step:
    use_cases = {name: provider_of(kit.container, kind) for name, kind in endpoint.use_cases.items()}

    async def handle(call: Call) -> Answer:
        arguments = {name: provider() for name, provider in use_cases.items()} | call.arguments
        try:
            return Answer(endpoint.status, await endpoint.handler(**arguments))
        except UserNotFound:
            if not endpoint.authenticated:
                raise
            raise TokenInvalid from None  # the caller was deleted concurrently

    return handle
