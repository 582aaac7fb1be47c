"""Replies while they are written, through real processes."""

from __future__ import annotations

import httpx

from tests.gemini_standin import GeminiStandIn
from tests.http_client import sign_up
from tests.processes import ProductProcess
from tests.sse_client import Reply, open_stream


async def test_smoke(http: httpx.AsyncClient, worker: ProductProcess, gemini_standin: GeminiStandIn) -> None:
    asha = await sign_up(http)
    room = await asha.room()
    gemini_standin.pace(first_chunk_seconds=0.2, chunk_seconds=0.1, chunks=9)
    url = str(http.base_url)
    async with open_stream(url, f"/chatroom/{room}/message", asha.token, method="POST", body={"input": "Why?"}) as s:
        print(s.status, s.headers, s.body)
        reply = await s.read_to_end()
        print(reply)
        print(s.comments, s.retries)
