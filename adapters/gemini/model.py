"""Gemini: sends a conversation and reads the reply, over any transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from adapters.gemini.failures import failure_of, failure_of_connection
from adapters.gemini.reply import Reply
from adapters.gemini.request import GenerateContent, request_of
from adapters.gemini.sse import EventStream
from adapters.gemini.thinking import Thinking
from application.ports.chat import LanguageModel
from application.ports.runtime import Resource
from domain.chat.conversation import Conversation, ReplyChunk
from domain.errors import ModelError, ModelNotConfigured, ModelTimedOut

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"

#: Seconds to wait for the end of a stream after its finish reason.
END_SECONDS = 2.0

CHECK_SECONDS = 2.0

_ERROR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The model, the API key and the route: `proxy` is a URL, or "" for none."""

    api_key: str = field(repr=False)
    model: str
    base_url: str = DEFAULT_BASE_URL
    proxy: str = field(default="", repr=False)

    @property
    def resource(self) -> str:
        """`models/<name>`; a name with a slash is a resource name already, such as `tunedModels/mine`."""
        return self.model if "/" in self.model else f"models/{self.model}"

    @property
    def url(self) -> str:
        return f"{self.base_url}/v1beta/{quote(self.resource)}"


class Answer(Protocol):
    """An HTTP response with an unread body."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names are case-insensitive."""

    async def read(self) -> bytes:
        """The next bytes of the body as they arrive, empty at its end. Raises if the body was cut off."""


class Transport(Resource, Protocol):
    """Sends requests to Google. Starting it twice has no further effect.

    It repeats nothing, follows no redirect and ignores proxies of the environment. Leaving the block before
    the end of the body closes the connection at once.
    """

    def ask(self, body: GenerateContent) -> AbstractAsyncContextManager[Answer]:
        """POST …:streamGenerateContent?alt=sse."""


class GeminiModel(LanguageModel):
    """Sets no deadlines; callers do, with `asyncio.timeout`."""

    name = "gemini"

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._thinking = Thinking(endpoint.model)

    async def start(self) -> None:
        await self._transport.start()

    async def close(self) -> None:
        await self._transport.close()

    async def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
        reply = Reply()
        try:
            await self._transport.start()
            async with AsyncExitStack() as stack:
                answer = await self._accepted(conversation, stack)
                events = EventStream()
                block = b"-"
                while block:
                    block = await _next(answer, reply)
                    for data in events.feed(block) if block else events.end():
                        yield reply.read(data)
                        if reply.failure:
                            raise reply.failure
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - the port promises a ModelError for whatever happens
            # An error after the finish reason does not affect the reply.
            if reply.finish_reason is None:
                raise failure_of_connection(error) from None
        yield reply.end()

    async def _accepted(self, conversation: Conversation, stack: AsyncExitStack) -> Answer:
        config = self._thinking.config(conversation)
        refusals: list[str] = []
        while True:
            body = request_of(conversation, config)
            answer = await stack.enter_async_context(self._transport.ask(body))
            if answer.status == 200:
                break
            failure = failure_of(answer.status, await _error_body(answer), answer.headers)
            if config is None or not failure.is_invalid_argument:
                raise failure.error
            config = self._thinking.less(config, failure.message)
            refusals.append(failure.message)
        self._thinking.accepted(conversation.thinking, config, refusals)
        if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise ValueError("not an event stream")  # a proxy's page, for instance
        return answer

    async def check(self) -> None:
        # Always over REST: importing an SDK takes longer than this may last.
        from adapters.gemini.rest import RestTransport

        if not self._endpoint.api_key:
            raise ModelNotConfigured("API_KEY_MISSING")
        transport = RestTransport(self._endpoint)
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await transport.start()
                async with transport.describe() as answer:
                    if answer.status != 200:
                        raise failure_of(answer.status, await _error_body(answer), answer.headers).error
        except ModelError:
            raise
        except TimeoutError:
            raise ModelTimedOut from None
        except Exception as error:  # noqa: BLE001 - the port promises a ModelError for whatever happens
            raise failure_of_connection(error) from None
        finally:
            await transport.close()


async def _next(answer: Answer, reply: Reply) -> bytes:
    if reply.finish_reason is None:
        return await answer.read()
    # The reply is complete. Only the end of the stream is missing, which is not worth the whole deadline.
    async with asyncio.timeout(END_SECONDS):
        return await answer.read()


async def _error_body(answer: Answer) -> bytes:
    body = bytearray()
    while len(body) < _ERROR_BYTES and (block := await answer.read()):
        body += block
    return bytes(body)
