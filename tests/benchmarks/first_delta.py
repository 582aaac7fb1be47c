"""python -m tests.benchmarks.first_delta: from sending a message to the first piece of its reply, and to its end.

What counts is what the product adds to the model's own time: one API process, one worker, embedded
Postgres and Valkey, and the stand-in for Gemini, all idle but for one message at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from adapters.postgres.migrate import migrate
from local.postgres import EmbeddedPostgres
from local.valkey import EmbeddedValkey
from tests.support.gemini_standin import start_gemini_standin
from tests.support.http_client import http_client, sign_up
from tests.support.processes import api_process, worker_process
from tests.support.sse_client import Stream

FIRST_CHUNK_SECONDS = 0.12
WARM_UP = 30


async def _measure(url: str, messages: int) -> tuple[list[float], list[float]]:
    """Seconds from the request's last byte to the first delta, and from the reply's last delta to `done`."""
    parts = urlsplit(url)
    first, last = [], []
    async with http_client(url) as client:
        person = await sign_up(client)
        rooms = [await person.room() for _ in range(messages + WARM_UP)]
    body = json.dumps({"input": "Why?"}).encode()
    for number in range(messages + WARM_UP):
        room = rooms[number]  # a new room each, because the SDK's handling of long conversations is not measured here
        head = (
            f"POST /chatroom/{room}/message HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n"
            f"Authorization: Bearer {person.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        stream = Stream(reader, writer)
        began = time.perf_counter()
        writer.write(head + body)
        await stream.begin()
        assert stream.status == 200, stream.body
        events = [event async for event in stream.events()]
        writer.close()
        assert [event.name for event in events][-1] == "done", events
        if number >= WARM_UP:
            first.append(events[0].at - began)
            last.append(events[-1].at - events[-2].at)
    return first, last


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.benchmarks.first_delta", description=__doc__)
    arguments.add_argument("--messages", type=int, default=300)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="gemini-bench-") as folder, ExitStack() as stack:
        database_url = stack.enter_context(EmbeddedPostgres(Path(folder, "postgres")))
        # Two chunks with no delay between them: the reply ends with its first word.
        standin = start_gemini_standin(
            *("--first-chunk-seconds", str(FIRST_CHUNK_SECONDS)), "--chunk-seconds", "0", "--chunks", "2"
        )
        stack.callback(standin.close)
        environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": stack.enter_context(EmbeddedValkey(Path(folder, "valkey"))),
            "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
            "GEMINI_API_KEY": "stand-in",
            "GEMINI_BASE_URL": next(standin).url,
            "LOG_LEVEL": "warning",
            "RATE_LIMITS": "off",
            "FREE_DAILY_MESSAGES": "100000",
        }
        asyncio.run(migrate(database_url))
        url, _ = stack.enter_context(api_process(environment))
        stack.enter_context(worker_process(environment))
        first, last = asyncio.run(_measure(url, given.messages))
    added = [seconds - FIRST_CHUNK_SECONDS for seconds in first]
    print(f"{given.messages} messages one by one; milliseconds beyond the model's own {FIRST_CHUNK_SECONDS * 1000:.0f}")
    for name, seconds in (("POST to the first delta", added), ("last delta to done", last)):
        quantiles = statistics.quantiles(seconds, n=100)
        print(f"{name:24} p50 {quantiles[49] * 1000:6.1f}  p99 {quantiles[98] * 1000:6.1f}")


if __name__ == "__main__":
    main()
