"""Gemini through google-genai, Google's current SDK. It sends the request; our codec reads the reply."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession

from adapters.gemini.model import Endpoint
from adapters.gemini.request import GenerateContent
from adapters.gemini.rest import Received, open_session, received

if TYPE_CHECKING:
    from google.genai import Client


class GoogleGenaiTransport:
    """The optional extra `google-genai`.

    Importing the SDK costs over a second and 65 MB, so `start()` does it, in a thread. Requests depend on the arguments
    alone: GOOGLE_API_KEY, GOOGLE_GENAI_USE_VERTEXAI and proxies of the environment have no effect.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._starting = asyncio.Lock()
        self._session: ClientSession | None = None
        self._client: Client | None = None

    async def start(self) -> None:
        async with self._starting:
            if self._client is None:
                await asyncio.to_thread(importlib.import_module, "google.genai")
                # The SDK's session would use the environment's proxies.
                self._session = open_session(self._endpoint.proxy or None, middlewares=(_take_answer,))
                # Also in a thread, since it reads the certificates several times.
                self._client = await asyncio.to_thread(self._open, self._session)

    async def close(self) -> None:
        session, self._session, self._client = self._session, None, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def ask(self, body: GenerateContent) -> AsyncIterator[Received]:
        async with received(await self._request(body)) as answer:
            yield answer

    async def _request(self, body: GenerateContent) -> ClientResponse:
        from google.genai.types import AutomaticFunctionCallingConfig, GenerateContentConfig, HttpOptions

        assert self._client is not None, "start() comes first"
        config = GenerateContentConfig(
            # The body bypasses the SDK's types, whose validation takes 47 ms of CPU for 39 turns.
            http_options=HttpOptions(extra_body=msgspec.to_builtins(body)),
            # Either would turn one request into several.
            automatic_continuation=False,
            automatic_function_calling=AutomaticFunctionCallingConfig(disable=True),
        )
        model = self._endpoint.resource
        try:
            # `contents` is required; `extra_body` replaces it.
            events = await self._client.aio.models.generate_content_stream(model=model, contents="-", config=config)
            await anext(events)
        except _Answered as answered:
            return answered.response
        raise RuntimeError("the SDK sent no request")

    def _open(self, session: ClientSession) -> Client:
        from google.genai.client import Client, DebugConfig
        from google.genai.types import HttpOptions, HttpRetryOptions

        return Client(
            vertexai=False,
            api_key=self._endpoint.api_key,
            http_options=HttpOptions(
                base_url=self._endpoint.base_url,
                api_version="v1beta",
                aiohttp_client=session,
                async_client_args={"ssl": True},  # as in aiohttp: the system's certificates
                # Without options the SDK repeats the request silently, 1 to 10 seconds after a lost connection.
                retry_options=HttpRetryOptions(attempts=1),
            ),
            debug_config=DebugConfig(client_mode=None, replays_directory=None, replay_id=None),
        )


class _Answered(Exception):
    """Carries a response past the SDK, which would parse it, keep it in a reference cycle, and send the key along with
    redirects."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response


async def _take_answer(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    raise _Answered(await handler(request))
