"""The former SDK's REST client, made to do one request, report its errors and be interruptible.

Imported in a thread and only if this SDK is chosen: it costs seconds and 70 MB.
"""

# The library has hardly any types of its own.
# mypy: allow-untyped-calls

from __future__ import annotations

import json
import threading
from typing import Any, Protocol

import google.generativeai as genai
import requests
from google.ai.generativelanguage_v1beta.services.generative_service.transports.rest import (
    GenerativeServiceRestInterceptor,
    GenerativeServiceRestTransport,
)
from google.api_core.exceptions import GoogleAPICallError
from google.api_core.rest_streaming import ResponseIterator
from google.generativeai.client import get_default_generative_client
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

# genai.configure() is global to the process: two adapters must not take each other's settings.
_configuring = threading.Lock()


class Watcher(Protocol):
    def watch(self, connection: Any) -> None: ...


class OfThread(threading.local):
    """Who is told of the connection that the present thread uses."""

    watcher: Watcher | None = None


of_thread = OfThread()


def open_client(api_key: str, base_url: str) -> Any:
    def transport(**arguments: Any) -> GenerativeServiceRestTransport:
        return _Transport(api_key, interceptor=_Interceptor(), **arguments)

    with _configuring:
        # With its scheme, since without one the library takes https for granted.
        # Its type says that a transport is a name; the client it goes to takes a factory as well.
        configure: Any = genai.__dict__["configure"]
        configure(api_key=api_key, transport=transport, client_options={"api_endpoint": base_url})
        return get_default_generative_client()


class StreamedError(GoogleAPICallError):
    """An error object inside a reply that began with 200."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__("", details=error.get("details") or ())
        self.code = error.get("code")


class _Chunks(ResponseIterator):
    """The library reads a body one character at a time, and knows neither errors nor thoughts in it."""

    def __init__(self, response: requests.Response, message: Any) -> None:
        super().__init__(response, message)
        self._response_itr = response.iter_content(chunk_size=None, decode_unicode=True)

    def cancel(self) -> None:
        super().cancel()
        # It refers back to this object; the cycle would keep the connection until garbage is collected.
        self.__dict__.pop("_grab", None)

    def _create_grab(self) -> Any:
        grab = super()._create_grab()

        def checked(this: _Chunks) -> Any:
            if '"error"' in this._ready_objs[0] or '"thought' in this._ready_objs[0]:
                this._ready_objs[0] = _without_surprises(this._ready_objs[0])
            return grab(this)

        return checked


def _without_surprises(text: str) -> str:
    """Raises an error object, which would pass as an empty chunk.

    Thoughts, younger than this SDK, would pass as text and their tokens be lost: the former are
    taken out, the latter added to the output's.
    """
    whole = json.loads(text)
    if "error" in whole:
        raise StreamedError(whole["error"])
    for candidate in whole.get("candidates", ()):
        content = candidate.get("content", {})
        content["parts"] = [part for part in content.get("parts", ()) if not part.get("thought")]
    usage = whole.get("usageMetadata", {})
    if thoughts := usage.pop("thoughtsTokenCount", 0):
        usage["candidatesTokenCount"] = usage.get("candidatesTokenCount", 0) + thoughts
    return json.dumps(whole)


class _Interceptor(GenerativeServiceRestInterceptor):
    def post_stream_generate_content(self, response: Any) -> Any:
        return _Chunks(response._response, genai.protos.GenerateContentResponse)  # noqa: SLF001 - no public way


class _Transport(GenerativeServiceRestTransport):
    def __init__(self, api_key: str, **arguments: Any) -> None:
        self._api_key = api_key
        super().__init__(**arguments)

    def _prep_wrapped_messages(self, client_info: Any) -> None:
        # The library's own session repeats a request that met a 401, and trusts the environment's
        # proxies and .netrc. It is replaced here, since the methods about to be wrapped carry it.
        session = requests.Session()
        session.trust_env = False
        session.headers["x-goog-api-key"] = self._api_key
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(pool_maxsize=512))
        self._session = session  # type: ignore[assignment] # it is declared to be the library's own
        super()._prep_wrapped_messages(client_info)


def _report(connection: HTTPConnection) -> None:
    if of_thread.watcher:
        of_thread.watcher.watch(connection)


class _Http(HTTPConnection):
    """Tells the watcher when a request begins on it, and again when the reply is awaited."""

    def request(self, *arguments: Any, **named: Any) -> None:
        _report(self)
        super().request(*arguments, **named)

    def getresponse(self) -> Any:
        _report(self)
        return super().getresponse()


class _Https(_Http, HTTPSConnection):
    pass


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *arguments: Any, **named: Any) -> Any:
        pool = super().get_connection_with_tls_context(*arguments, **named)
        pool.ConnectionCls = _Https if pool.scheme == "https" else _Http
        return pool

    def close(self) -> None:
        # The library leaves its idle connections to the garbage collector.
        pools = self.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - it is no dict, and cannot be iterated
            pools[key].close()
        super().close()
