"""The former SDK's REST client, made to send our body once, hand over the response and be interruptible.

Imported in a thread and only if this SDK is chosen: it costs seconds and 70 MB.
"""

# The library has hardly any types of its own.
# mypy: allow-untyped-calls

from __future__ import annotations

import ssl
import threading
from typing import Any, Protocol

import google.generativeai as genai
import requests
from google.ai.generativelanguage_v1beta.services.generative_service.transports.rest import (
    GenerativeServiceRestTransport,
)
from google.generativeai import protos
from google.generativeai.client import get_default_generative_client
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

# genai.configure() is global to the process: two adapters must not take each other's settings.
_configuring = threading.Lock()


class Watcher(Protocol):
    def watch(self, connection: Any) -> None: ...


class OfThread(threading.local):
    """The call that the present thread makes: who is told of its connection, its body and its response."""

    watcher: Watcher | None = None
    body: bytes = b""
    response: requests.Response | None = None

    def begin(self, watcher: Watcher, body: bytes) -> None:
        self.watcher, self.body, self.response = watcher, body, None


of_thread = OfThread()


def open_client(api_key: str, base_url: str, proxy: str) -> Any:
    def transport(**arguments: Any) -> GenerativeServiceRestTransport:
        return _Transport(api_key, proxy, **arguments)

    with _configuring:
        # With its scheme, since without one the library takes https for granted.
        # Its type says that a transport is a name; the client it goes to takes a factory as well.
        configure: Any = genai.__dict__["configure"]
        configure(api_key=api_key, transport=transport, client_options={"api_endpoint": base_url})
        return get_default_generative_client()


def ask(client: Any, model: str, body: bytes, watcher: Watcher, timeout: float) -> requests.Response:
    """The response of one request, made in this thread; its body is still to be read."""
    of_thread.begin(watcher, body)
    try:
        # `retry=None`: by default the library repeats a 503 for a minute.
        client.stream_generate_content(protos.GenerateContentRequest(model=model), retry=None, timeout=timeout)
    except Exception:
        # What the library makes of a response that is an error, if it can read it at all, is not needed.
        if of_thread.response is None:
            raise
    if of_thread.response is None:
        raise RuntimeError("the SDK sent no request")
    return of_thread.response


class _Session(requests.Session):
    """Sends the body that the codec made, asks for server-sent events, and keeps the response.

    The library's own types are years old: they lose what is younger, such as thoughts and finish reasons.
    """

    def post(self, url: Any, data: Any = None, json: Any = None, **named: Any) -> requests.Response:
        named |= {"params": {"alt": "sse"}, "allow_redirects": False}
        of_thread.response = super().post(url, data=of_thread.body, **named)
        return of_thread.response


class _Transport(GenerativeServiceRestTransport):
    def __init__(self, api_key: str, proxy: str, **arguments: Any) -> None:
        self._api_key = api_key
        self._proxy = proxy
        super().__init__(**arguments)

    def _prep_wrapped_messages(self, client_info: Any) -> None:
        # The library's own session repeats a request that met a 401, and trusts the environment's
        # proxies and .netrc. It is replaced here, since the methods about to be wrapped carry it.
        session = _Session()
        session.trust_env = False
        session.headers["x-goog-api-key"] = self._api_key
        if self._proxy:
            session.proxies = {"http": self._proxy, "https": self._proxy}
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
    """Takes the system's certificates beside those that requests brings along."""

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=ssl.create_default_context(), **named)

    def proxy_manager_for(self, proxy: Any, **named: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=ssl.create_default_context(), **named)

    def get_connection_with_tls_context(self, *arguments: Any, **named: Any) -> Any:
        pool = super().get_connection_with_tls_context(*arguments, **named)
        pool.ConnectionCls = _Https if pool.scheme == "https" else _Http
        return pool

    def close(self) -> None:
        # The library leaves its idle connections to the garbage collector.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it is no dict, and cannot be iterated
                manager.pools[key].close()
        super().close()
