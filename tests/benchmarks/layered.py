"""The API with each hot call also served at lesser depths, so that the cost of a layer is a difference of two handlers.

`protocol` answers a constant from a bare handler of our application, `steps` from a handler behind the same steps but
without a caller, `session` from one with a caller, and `use-case` after the use case has run. The call itself adds the
making of its reply. All answer with the bytes of the call, which `PUT /layer/CALL` sets.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import uvloop
from sanic import HTTPResponse, Request, Sanic

from entrypoints.container import Container
from entrypoints.http.api import accounts, chat
from entrypoints.http.api.endpoints import Endpoint
from entrypoints.http.server.app import create_app
from entrypoints.http.server.server import _tune_gc
from entrypoints.http.steps.call import Kit
from entrypoints.http.steps.compiled import compiled
from entrypoints.http.steps.rate_limits import RateLimits
from entrypoints.settings import Settings
from tests.support.served import served

DEPTHS = ("protocol", "steps", "session", "use-case")
_JSON = "application/json"


async def _allowance(get_allowance: Any, caller: Any, **_: Any) -> None:
    await get_allowance(user=caller.user)


async def _opened(open_room: Any, caller: Any, chatroom_id: Any, query: Any) -> None:
    await open_room(user=caller.user, chatroom_id=chatroom_id, limit=query.limit, before=query.before)


async def _sent(send: Any, caller: Any, chatroom_id: Any, body: Any) -> None:
    await send(user=caller.user, chatroom_id=chatroom_id, input=body.input)


_USE_CASES: dict[str, tuple[Endpoint, Callable[..., Awaitable[None]]]] = {
    name: (next(one for one in area.endpoints if one.name == call), use_case)
    for name, area, call, use_case in (
        ("me", accounts, "get_profile", _allowance),
        ("room", chat, "open_chatroom", _opened),
        ("post", chat, "send_message", _sent),
    )
}
CALLS = tuple(_USE_CASES)


class _Layers:
    def __init__(self, app: Sanic[Any, Any], kit: Kit) -> None:
        self._app = app
        self._kit = kit
        self._bodies = dict.fromkeys(CALLS, b"{}")
        app.add_route(self._set_body, "/layer/<call:str>", methods=["PUT"], name="set_body")
        for call, (endpoint, use_case) in _USE_CASES.items():
            self._add(call, endpoint, use_case)

    async def _set_body(self, request: Request, call: str) -> HTTPResponse:
        self._bodies[call] = request.body
        return HTTPResponse(b"{}", content_type=_JSON)

    def _add(self, call: str, endpoint: Endpoint, use_case: Callable[..., Awaitable[None]]) -> None:
        async def protocol(_: Request, **path: str) -> HTTPResponse:
            return HTTPResponse(self._bodies[call], status=endpoint.status, content_type=_JSON)

        async def constant(**_: Any) -> Any:
            return self._bodies[call]

        async def used(**arguments: Any) -> Any:
            await use_case(**arguments)
            return self._bodies[call]

        of_request = {name: kind for name, kind in endpoint.takes.items() if name not in endpoint.use_cases}
        callerless = {name: kind for name, kind in of_request.items() if name != "caller"}
        handlers = {
            "protocol": protocol,
            "steps": compiled(replace(endpoint, handler=constant, takes=callerless), self._kit),
            "session": compiled(replace(endpoint, handler=constant, takes=of_request), self._kit),
            "use-case": compiled(replace(endpoint, handler=used), self._kit),
        }
        for depth, handler in handlers.items():
            path, name = f"/{depth}{endpoint.path}", f"{call}_{depth}".replace("-", "_")
            self._app.add_route(handler, path, methods=[endpoint.method], name=name)


async def main() -> None:
    settings = Settings.from_environment(os.environ)
    container = Container(settings=settings)
    app = create_app(settings, container)
    limits = RateLimits(
        settings, container.rate_limiter(), container.process_rate_limiter(), container.mobile_numbers()
    )
    _Layers(app, Kit.of(container, app.ctx.streams, limits))
    async with served(app) as url:
        _tune_gc()
        print(f'{{"url": "{url}"}}', flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
