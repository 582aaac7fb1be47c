"""The former SDK's REST client, adapted to send our body once, return the response and be interruptible.

Imported in a thread, and only if this SDK is chosen: it costs seconds and 70 MB.
"""

# The library has hardly any types.
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

# genai.configure() is global: two adapters must not mix their settings.
_configuring = threading.Lock()


class Watcher(Protocol):
    def watch(self, connection: Any) -> None: ...


class _ThreadState(threading.local):
    """The current thread's call: the watcher of its connection, its body and its response."""

    watcher: Watcher | None = None
    body: bytes = b""
    response: requests.Response | None = None

    def begin(self, watcher: Watcher, body: bytes) -> None:
        self.watcher, self.body, self.response = watcher, body, None


_thread_state = _ThreadState()


def open_client(api_key: str, base_url: str, proxy: str) -> Any:
    def transport(**arguments: Any) -> GenerativeServiceRestTransport:
        return _Transport(api_key, proxy, **arguments)

    with _configuring:
        # The URL has its scheme, without which the library assumes https.
        # The signature allows only a transport's name; the client behind it takes a factory as well.
        configure: Any = genai.__dict__["configure"]
        configure(api_key=api_key, transport=transport, client_options={"api_endpoint": base_url})
        return get_default_generative_client()


def ask(client: Any, model: str, body: bytes, watcher: Watcher, timeout: float) -> requests.Response:
    """Send one request in this thread. The response's body is still unread."""
    _thread_state.begin(watcher, body)
    try:
        # By default the library repeats a 503 for a minute.
        client.stream_generate_content(protos.GenerateContentRequest(model=model), retry=None, timeout=timeout)
    except Exception:
        # The library's reading of an error response is not needed.
        if _thread_state.response is None:
            raise
    if _thread_state.response is None:
        raise RuntimeError("the SDK sent no request")
    return _thread_state.response


class _Session(requests.Session):
    """Sends our body, requests server-sent events, and keeps the response.

    The library's types are years old and drop newer fields, such as thoughts and finish reasons.
    """

    def post(self, url: Any, data: Any = None, json: Any = None, **named: Any) -> requests.Response:
        named |= {"params": {"alt": "sse"}, "allow_redirects": False}
        _thread_state.response = super().post(url, data=_thread_state.body, **named)
        return _thread_state.response


class _Transport(GenerativeServiceRestTransport):
    def __init__(self, api_key: str, proxy: str, **arguments: Any) -> None:
        self._api_key = api_key
        self._proxy = proxy
        super().__init__(**arguments)

    def _prep_wrapped_messages(self, client_info: Any) -> None:
        # The library's session repeats a request after a 401, and uses the environment's proxies and .netrc.
        # It is replaced here because the methods about to be wrapped refer to it.
        session = _Session()
        session.trust_env = False
        session.headers["x-goog-api-key"] = self._api_key
        if self._proxy:
            session.proxies = {"http": self._proxy, "https": self._proxy}
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(pool_maxsize=512))
        self._session = session  # type: ignore[assignment] # declared as the library's session
        super()._prep_wrapped_messages(client_info)


def _report(connection: HTTPConnection) -> None:
    if _thread_state.watcher:
        _thread_state.watcher.watch(connection)


class _Http(HTTPConnection):
    """Reports to the watcher when a request begins, and again when the response is awaited."""

    def request(self, *arguments: Any, **named: Any) -> None:
        _report(self)
        super().request(*arguments, **named)

    def getresponse(self) -> Any:
        _report(self)
        return super().getresponse()


class _Https(_Http, HTTPSConnection):
    pass


class _Adapter(HTTPAdapter):
    """Trusts the system's certificates in addition to those of requests."""

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
            for key in manager.pools.keys():  # noqa: SIM118 - not a dict, and not iterable
                manager.pools[key].close()
        super().close()
