"""Gemini through google-genai, Google's current SDK, which makes the request; the reply is read as ours is."""

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

    The SDK costs over a second and 65 MB to import, so `start()` does it, in a thread. What is called depends on the
    arguments alone: neither GOOGLE_API_KEY, nor GOOGLE_GENAI_USE_VERTEXAI, nor a proxy in the environment changes it.
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
                # The SDK's own session believes the environment's proxies.
                self._session = open_session(self._endpoint.proxy or None, middlewares=(_take_answer,))
                # In a thread too: it reads the certificates several times.
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
            # The body goes past the SDK's types, whose validation takes 47 ms of CPU for 39 turns.
            http_options=HttpOptions(extra_body=msgspec.to_builtins(body)),
            # Both would make further requests out of one.
            automatic_continuation=False,
            automatic_function_calling=AutomaticFunctionCallingConfig(disable=True),
        )
        model = self._endpoint.resource
        try:
            # `contents` must be something; those of `extra_body` take their place.
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
                async_client_args={"ssl": True},  # as aiohttp does it, by the system's certificates
                # With no retry options at all the SDK waits 1 to 10 seconds after a lost connection
                # and silently asks again. Options of one attempt are what turns that off.
                retry_options=HttpRetryOptions(attempts=1),
            ),
            debug_config=DebugConfig(client_mode=None, replays_directory=None, replay_id=None),
        )


class _Answered(Exception):
    """Takes a response past the SDK, which would read it by rules of its own, keep it in a reference cycle, and
    follow a redirect with the key."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response


async def _take_answer(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    raise _Answered(await handler(request))
