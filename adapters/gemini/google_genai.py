"""Gemini through google-genai, Google's current SDK."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import structlog

from adapters.gemini.reply import DEFAULT_BASE_URL, END_SECONDS, Reply, details_of, error_of
from application.ports.chat import LanguageModel
from domain.chat import Conversation, ReplyChunk
from domain.errors import ModelError, ModelUnavailable

if TYPE_CHECKING:
    import aiohttp
    from google.genai import Client
    from google.genai.types import GenerateContentResponse

logger = structlog.get_logger(__name__)

# The SDK keeps each HTTP response in a reference cycle: a stream that is closed half-way would hold
# its connection, and Google would go on writing, until the garbage collector comes by. So the
# responses made for a stream are noted, and closed with it.
_opened: ContextVar[list[aiohttp.ClientResponse] | None] = ContextVar("opened", default=None)


class GoogleGenai(LanguageModel):
    """Has no deadlines of its own: whoever asks sets them with `asyncio.timeout`.

    The SDK costs over a second and 65 MB to import, so `start()` does it, in a thread; a process
    that never asks the model never pays. What is called depends on the arguments alone: neither
    GOOGLE_API_KEY, nor GOOGLE_GENAI_USE_VERTEXAI, nor a proxy in the environment changes it.
    """

    def __init__(self, *, api_key: str, model: str, base_url: str = "") -> None:
        self._api_key = api_key
        self._model = model
        self._base_url = base_url or DEFAULT_BASE_URL
        self._starting = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._client: Client | None = None

    async def start(self) -> None:
        """Import the SDK and open the client. The first `stream()` does so if nobody has."""
        async with self._starting:
            if self._client is None:
                await asyncio.to_thread(_import_sdk)
                import aiohttp

                # The SDK's own session believes the environment's proxies; without `limit=0` the
                # 101st stream would wait for the first.
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0),
                    timeout=aiohttp.ClientTimeout(),
                    response_class=_noting_response(),
                    trust_env=False,
                )
                # In a thread too: it reads the certificates several times.
                self._client = await asyncio.to_thread(self._open, self._session)

    def _open(self, session: aiohttp.ClientSession) -> Client:
        from google.genai.client import Client, DebugConfig
        from google.genai.types import HttpOptions, HttpRetryOptions

        return Client(
            vertexai=False,
            api_key=self._api_key,
            http_options=HttpOptions(
                base_url=self._base_url,
                api_version="v1beta",
                aiohttp_client=session,
                # With no retry options at all the SDK waits 1 to 10 seconds after a lost connection
                # and silently asks again. Options of one attempt are what turns that off.
                retry_options=HttpRetryOptions(attempts=1),
            ),
            debug_config=DebugConfig(client_mode=None, replays_directory=None, replay_id=None),
        )

    async def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
        await self.start()
        assert self._client is not None
        reply = Reply()
        opened: list[aiohttp.ClientResponse] = []
        _opened.set(opened)
        try:
            responses: Any = await self._client.aio.models.generate_content_stream(
                model=self._model, contents=_contents(conversation), config=_config(conversation)
            )
            while (chunk := await _next(responses, reply)) is not None:
                yield _read(reply, chunk)
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - the port promises a ModelError for whatever happens
            # What was broken after the finish reason does not make the reply worse.
            if reply.finish_reason is None:
                raise _mapped(error) from None
        finally:
            for response in opened:
                response.close()  # does nothing to one that was read to its end
        yield reply.end()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        self._session = self._client = None


def _import_sdk() -> None:
    importlib.import_module("aiohttp")
    importlib.import_module("google.genai")


def _noting_response() -> type[aiohttp.ClientResponse]:
    import aiohttp

    class NotingResponse(aiohttp.ClientResponse):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            opened = _opened.get()
            if opened is not None:
                opened.append(self)

    return NotingResponse


def _contents(conversation: Conversation) -> Any:
    from google.genai.types import Content, Part

    return [Content(role=turn.role.value, parts=[Part(text=turn.text)]) for turn in conversation.turns]


def _config(conversation: Conversation) -> Any:
    from google.genai.types import AutomaticFunctionCallingConfig, GenerateContentConfig

    return GenerateContentConfig(
        system_instruction=conversation.instructions,
        max_output_tokens=conversation.max_output_tokens,
        # Both would make further requests out of one.
        automatic_continuation=False,
        automatic_function_calling=AutomaticFunctionCallingConfig(disable=True),
    )


async def _next(responses: AsyncIterator[GenerateContentResponse], reply: Reply) -> GenerateContentResponse | None:
    if reply.finish_reason is None:
        return await anext(responses, None)
    # All is said, only the end of the stream is missing: not worth the whole deadline.
    async with asyncio.timeout(END_SECONDS):
        return await anext(responses, None)


def _read(reply: Reply, response: GenerateContentResponse) -> ReplyChunk:
    candidate = response.candidates[0] if response.candidates else None
    parts = (candidate.content.parts if candidate and candidate.content else None) or []
    feedback, usage = response.prompt_feedback, response.usage_metadata
    return reply.read(
        text="".join(part.text for part in parts if part.text and not part.thought),
        finish_reason=candidate.finish_reason.value if candidate and candidate.finish_reason else None,
        block_reason=feedback.block_reason.value if feedback and feedback.block_reason else None,
        input_tokens=usage.prompt_token_count if usage else None,
        answer_tokens=usage.candidates_token_count if usage else None,
        thought_tokens=usage.thoughts_token_count if usage else None,
    )


def _mapped(error: Exception) -> ModelError:
    """Google's error, or that of the transport or of a reply that nobody can read.

    Only its kind is logged: its text may quote the prompt.
    """
    from google.genai.errors import APIError

    if isinstance(error, APIError):
        logger.warning("model_call_failed", error=type(error).__name__, status_code=error.code, status=error.status)
        return error_of(error.code, details_of(error.details), getattr(error.response, "headers", None))
    logger.warning("model_call_failed", error=type(error).__name__)
    return ModelUnavailable()
