"""Gemini's documented REST API, by aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiohttp import ClientMiddlewareType, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from adapters.gemini.model import Endpoint
from adapters.gemini.request import GenerateContent

#: Seconds to keep an idle connection. Google's timeout is longer.
KEEP_ALIVE_SECONDS = 60.0

DNS_SECONDS = 60

_encode = msgspec.json.Encoder().encode


class RestTransport:
    """Keeps connections, with their TLS sessions, between calls. Their number is not limited."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._session: ClientSession | None = None
        self._proxy = endpoint.proxy or None
        self._key = {"x-goog-api-key": endpoint.api_key}
        # Parsed once; the model's name is already quoted.
        self._model = URL(endpoint.url, encoded=True)
        self._stream = URL(f"{endpoint.url}:streamGenerateContent?alt=sse", encoded=True)
        self._headers = {**self._key, "Content-Type": "application/json"}

    async def start(self) -> None:
        self._opened()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def ask(self, body: GenerateContent) -> AsyncIterator[Received]:
        response = await self._opened().post(
            self._stream, data=_encode(body), headers=self._headers, allow_redirects=False
        )
        async with received(response) as answer:
            yield answer

    @asynccontextmanager
    async def describe(self) -> AsyncIterator[Received]:
        """GET the model."""
        response = await self._opened().get(self._model, headers=self._key, allow_redirects=False)
        async with received(response) as answer:
            yield answer

    def _opened(self) -> ClientSession:
        if self._session is None:
            self._session = open_session(self._proxy)
        return self._session


def open_session(proxy: str | None, middlewares: Sequence[ClientMiddlewareType] = ()) -> ClientSession:
    """With the system's certificates, and without deadline, cookies, compression and settings of the environment."""
    return ClientSession(
        # Without `limit=0` the 101st stream would wait for the first.
        connector=TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=DNS_SECONDS),
        timeout=ClientTimeout(),
        cookie_jar=DummyCookieJar(),
        skip_auto_headers=("Accept-Encoding", "User-Agent"),
        trust_env=False,
        proxy=proxy,
        middlewares=middlewares,
    )


class Received:
    """An aiohttp response as an answer."""

    def __init__(self, response: ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.read = response.content.readany


@asynccontextmanager
async def received(response: ClientResponse) -> AsyncIterator[Received]:
    try:
        yield Received(response)
    finally:
        response.close()  # no effect after the end of the body
