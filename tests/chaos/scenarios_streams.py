"""Reply streams that are dropped, resumed, cancelled and abandoned, and what they leave behind."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.chaos.client import Person
from tests.chaos.ledger import Ledger
from tests.chaos.load import percentile
from tests.chaos.scenarios_delivery import MANY
from tests.chaos.world import World, world
from tests.support.patience import PROCESS_HANG
from tests.support.processes import ProductProcess
from tests.support.scenarios import Row, Scale
from tests.support.sse_client import Cut, Reply, Stream, open_stream

#: What a client sees while a server is down or its stream's slot is not free again.
_UNAVAILABLE = (Cut, OSError, EOFError, TimeoutError)


@dataclass
class _Readers:
    """Clients that each send a message and follow its reply at any of the processes."""

    world: World
    chance: random.Random
    ledger: Ledger
    drops: int = 0
    cuts: int = 0
    most_events: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    replies: dict[str, Reply] = field(default_factory=dict)

    async def send_and_follow(self, person: Person, drops: int) -> int:
        """Disconnect `drops` times on the way, if the reply is long enough, and resume each time."""
        reply, message, key = Reply(), "", f"{self.chance.getrandbits(64):x}"
        before = drops
        while reply.ended is None:
            url = self.chance.choice(self.world.urls)
            path = f"/chatroom/{person.room}/message"
            try:
                if message:
                    opened = open_stream(url, f"{path}/{message}/stream", person.token, after=reply.position)
                else:
                    # The same key each time: after a cut before the first byte the request may or may not have arrived.
                    headers, body = {"Idempotency-Key": key}, {"input": f"Question {key}"}
                    opened = open_stream(url, path, person.token, method="POST", body=body, headers=headers)
                async with opened as stream:
                    if stream.status != 200:
                        self.refused[stream.status] += 1
                        await asyncio.sleep(0.05)
                        continue
                    message = message or stream.headers["location"].rpartition("/")[2]
                    self.ledger.accepted.add(message)
                    drops -= await self._read(stream, reply, self.chance.randrange(1, 8) if drops > 0 else None)
            except _UNAVAILABLE:
                self.cuts += 1
                await asyncio.sleep(0.05)
        self.replies[message] = reply
        self.drops += before - drops
        return before - drops

    async def _read(self, stream: Stream, reply: Reply, events: int | None) -> bool:
        """Read to the end, or `events` events and then disconnect (True)."""
        async with asyncio.timeout(PROCESS_HANG):
            if events is None:
                await stream.read_to_end(reply)
                return False
            with suppress(StopAsyncIteration):
                while events and reply.ended is None:
                    reply.take(await anext(stream.rest))
                    events -= 1
            if self.chance.random() < 0.5:
                stream.drop()
            return reply.ended is None and not stream.has_ended

    async def differing(self) -> list[str]:
        """Messages whose readers have a text that differs from the stored one."""
        rows = await self.world.fetch("SELECT id, response FROM messages")
        stored = {str(row["id"]): row["response"] for row in rows}
        return [message for message, reply in self.replies.items() if reply.text != (stored[message] or "")]


async def dropped_streams(scale: Scale, seed: int) -> Row:
    drops, readers, kills = scale.of(30, 1_000), scale.of(10, 40), scale.of(1, 8)
    each = drops // readers
    async with world(apis=2, workers=1, **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        long: dict[str, Any] = {"chunks": scale.of(80, 200), "first_chunk_seconds": 0.1, "chunk_seconds": 0.05}
        w.gemini.fault("reply", times=None, text="So short waves are scattered: आकाश 🌻. " * 60, **long)
        chance = random.Random(seed)
        clients = _Readers(w, chance, ledger)
        people = await w.people(readers)
        endings: list[float] = []

        async def read(person: Person) -> None:
            left = each
            while left > 0:
                left -= await clients.send_and_follow(person, left)

        async def restart() -> None:
            for number in range(kills):
                await asyncio.sleep(scale.of(1.0, 3.0))
                url = w.urls[number % 2]
                process = w.apis[url]
                if number % 2:
                    process.kill()
                else:
                    endings.append(await _seconds_to_end(process, url, people[0], ledger))
                    await asyncio.to_thread(process.stop, within=PROCESS_HANG)
                del w.apis[url]
                await w.start_api(url)

        async with asyncio.TaskGroup() as going:
            for person in people:
                going.create_task(read(person))
            going.create_task(restart())
        settled = await ledger.settled(seconds=scale.bound(30))
        differing, report = await clients.differing(), await ledger.report(quoted=False)
    resets = sum("reset" in reply.names for reply in clients.replies.values())
    return Row(
        f"{readers} readers drop and resume at random over 2 API processes, {kills} of which restart or die",
        f"≥ {drops} drops; each text is the stored one; no reset without a dead worker;"
        " streams of a stopped process end in ≤ 1 s",
        f"{len(clients.replies)} replies, {clients.drops} drops and {clients.cuts} cuts by servers,"
        f" {len(differing)} texts differ, {resets} reset, refused {dict(clients.refused)},"
        f" ended after {max(endings):.2f} s; {report}",
        report.kept
        and settled is not None
        and not differing
        and not resets
        and clients.drops >= drops
        and max(endings) <= scale.bound(1)
        and clients.refused.keys() <= {429, 503},
    )


async def _seconds_to_end(process: ProductProcess, url: str, person: Person, ledger: Ledger) -> float:
    """Seconds from SIGTERM until a stream of that process has ended properly."""
    path = f"/chatroom/{person.room}/message"
    async with open_stream(url, path, person.token, method="POST", body={"input": "Bye"}) as stream:
        ledger.accepted.add(stream.headers["location"].rpartition("/")[2])
        process.signal(signal.SIGTERM)
        began = time.monotonic()
        with suppress(Cut):
            await stream.read_to_end(seconds=PROCESS_HANG)
        assert stream.has_ended, "it was cut"
        return time.monotonic() - began


async def cancels(scale: Scale, seed: int) -> Row:
    messages = scale.of(20, 300)
    async with world(apis=2, workers=2, **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        w.gemini.pace(first_chunk_seconds=0.3, chunk_seconds=0.1, chunks=600)
        chance, client = random.Random(seed), w.client()
        people, after, wrong = await w.people(messages), list[float](), list[str]()
        texts: dict[str, str] = {}

        async def send_and_cancel(person: Person) -> None:
            path = f"/chatroom/{person.room}/message"
            url = chance.choice(w.urls)
            async with open_stream(url, path, person.token, method="POST", body={"input": "Why?"}) as stream:
                message = stream.headers["location"].rpartition("/")[2]
                ledger.accepted.add(message)
                reading = asyncio.create_task(stream.read_to_end(seconds=PROCESS_HANG))
                await asyncio.sleep(chance.random() * 2)
                began = time.monotonic()
                answer = await client.ask(person, "POST", f"{path}/{message}/cancel")
                reply = await reading
                after.append(time.monotonic() - began)
            assert reply.ended is not None
            texts[message] = reply.text
            if answer.status not in (200, 202) or reply.ended.data["status"] != "cancelled":
                wrong.append(f"{answer.status} {reply.ended.data['status']}")

        async with asyncio.TaskGroup() as going:
            for person in people:
                going.create_task(send_and_cancel(person))
                await asyncio.sleep(scale.of(0.05, 0.02))
        settled = await ledger.settled(seconds=scale.bound(10))
        log = await w.gemini.until(lambda log: log["open"] == 0)
        stored = {str(row["id"]): row["response"] or "" for row in await w.fetch("SELECT id, response FROM messages")}
        differing = [message for message, text in texts.items() if stored[message] != text]
        report = await ledger.report()
    return Row(
        f"{messages} messages cancelled at any moment, two workers",
        "each ends as cancelled ≤ 1 s after, with the text that was streamed; no call of the model goes on",
        f"ended p50 {percentile(after, 50):.2f} s, last {max(after):.2f} s after; {len(wrong)} ended otherwise"
        f" {wrong[:2] or ''}, {len(differing)} texts differ, {log['open']} calls open,"
        f" {log['counts']['client_left']} of {log['total']} were closed; {report}",
        report.kept
        and settled is not None
        and not wrong
        and not differing
        and not log["open"]
        and max(after) <= scale.bound(1),
    )


@dataclass
class _Forgetful:
    """Clients that open a stream, read little or nothing of it, and leave."""

    url: str
    path: str
    token: str
    chance: random.Random
    refused: Counter[int] = field(default_factory=Counter)

    async def open_many(self, count: int, at_once: int) -> None:
        for begun in range(0, count, at_once):
            await asyncio.gather(*(self._open_and_forget() for _ in range(min(at_once, count - begun))))

    async def _open_and_forget(self) -> None:
        while not await self._opened_and_forgotten():  # noqa: ASYNC110 - Retry-After says when, roughly
            await asyncio.sleep(self.chance.random())

    async def _opened_and_forgotten(self) -> bool:
        """False if the server is too busy and says so."""
        try:
            async with open_stream(self.url, self.path, self.token, seconds=PROCESS_HANG) as stream:
                if stream.status != 200:
                    self.refused[stream.status] += 1
                    return stream.status not in (429, 503) or "retry-after" not in stream.headers
                for _ in range(self.chance.choice([0, 0, 1, 3])):
                    await asyncio.wait_for(anext(stream.rest), PROCESS_HANG)
                await asyncio.sleep(self.chance.random() * 0.5)  # without reading
                if self.chance.random() < 0.5:
                    stream.drop()
        except _UNAVAILABLE:
            self.refused[0] += 1
        return True


async def forgotten_streams(scale: Scale, seed: int) -> Row:
    streams, at_once = scale.of(150, 10_000), scale.of(50, 500)
    async with world(apis=1, workers=1, **MANY, **scale.settings) as w:
        ledger = await Ledger(w).open()
        # One endless reply that everyone follows.
        w.gemini.reply("So. " * 20_000, chunks=20_000, first_chunk_seconds=0, chunk_seconds=0.1)
        [url], [person] = w.urls, await w.people(1)
        path = f"/chatroom/{person.room}/message"
        api = w.apis[url].process.pid
        async with open_stream(url, path, person.token, method="POST", body={"input": "Why?"}) as stream:
            message = stream.headers["location"].rpartition("/")[2]
            ledger.accepted.add(message)

            clients = _Forgetful(url, f"{path}/{message}/stream", person.token, random.Random(seed))
            await clients.open_many(at_once, at_once)  # memory that a busy process keeps is not a leak
            await asyncio.sleep(1)
            before, files_before = _resident_mb(api), _files(api)
            await clients.open_many(streams, at_once)
            give_up = time.monotonic() + scale.bound(10)
            while _files(api) > files_before and time.monotonic() < give_up:  # noqa: ASYNC110 - no event to wait on
                await asyncio.sleep(0.1)
            after, files_after = _resident_mb(api), _files(api)
            async with Redis.from_url(w.valkey.url) as redis:
                channels = len(await redis.pubsub_channels())
            client = w.client()
            cancelled = await client.ask(person, "POST", f"{path}/{message}/cancel")
            reply = await stream.read_to_end(seconds=PROCESS_HANG)
        settled = await ledger.settled(seconds=scale.bound(10))
        stored = await w.fetch("SELECT response FROM messages")
        report = await ledger.report(quoted=False)
    return Row(
        f"{streams} streams opened and forgotten, {at_once} at once",
        "file handles and memory as before; who stays has every word",
        f"files {files_before} → {files_after}, memory {before:.0f} → {after:.0f} MB, {channels} channel(s) left,"
        f" asked to come later {dict(clients.refused)}; {len(reply.events)} events read by who stayed; {report}",
        report.kept
        and settled is not None
        and cancelled.status in (200, 202)
        and files_after <= files_before
        and after <= before + 20
        and channels == 1
        and clients.refused.keys() <= {503}
        and reply.text == stored[0]["response"],
    )


def _files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
