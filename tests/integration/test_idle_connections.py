"""Managed services drop idle connections: the next use of Redis must not notice."""

from __future__ import annotations

import ast
import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from adapters.redis.cache import RedisChatroomLists
from adapters.redis.connection import RedisConnection
from adapters.redis.rate_limiter import RedisRateLimiter
from adapters.redis.reply_stream import RedisReplyStream
from adapters.system import TimeOrderedIds
from adapters.taskiq.receiving import JobReceiver, StreamBroker
from adapters.taskiq.sending import GENERATE_REPLY, JobSender, TaskiqJobQueue
from application.ports.runtime import Bucket
from domain.chat.streams import START
from domain.ids import MessageId, UserId
from domain.rates import Rate
from local.valkey import EmbeddedValkey
from tests.support.patience import HANG
from tests.support.processes import ROOT

IDS = TimeOrderedIds()
NAMESPACE = f"test-{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def valkey(data_dir: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(data_dir / "valkey-of-idle-connections")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def drop(valkey: EmbeddedValkey) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Ends all connections that are not the test's own."""
    async with Redis.from_url(valkey.url) as admin:

        async def drop() -> None:
            await admin.client_kill_filter(_type="normal", skipme=True)

        yield drop


async def until(condition: Callable[[], bool], *, seconds: float = HANG) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"did not come true within {seconds} s"
        await asyncio.sleep(0.01)


@dataclass
class Notifier:
    """A queue with its receiver, and no sweep that would find what was not notified."""

    queue: TaskiqJobQueue
    sender: JobSender
    handled: list[MessageId]

    async def handles(self, message_id: MessageId) -> None:
        await until(lambda: message_id in self.handled)


@pytest.fixture
async def notifier(valkey: EmbeddedValkey) -> AsyncIterator[Notifier]:
    sending = JobSender(valkey.url, namespace=NAMESPACE, command_seconds=2)
    receiving = StreamBroker(valkey.url, namespace=NAMESPACE, command_seconds=2)
    handled: list[MessageId] = []

    async def handle(message_id: MessageId) -> None:
        handled.append(message_id)

    receiver, stop = JobReceiver(receiving, {GENERATE_REPLY: handle}, concurrency=5), asyncio.Event()
    listening = asyncio.create_task(receiver.listen(stop))
    yield Notifier(TaskiqJobQueue(sending, GENERATE_REPLY), sending, handled)
    stop.set()
    await listening
    await receiving.close()
    await sending.close()


async def test_the_next_message_is_notified_at_once(notifier: Notifier, drop: Callable[[], Awaitable[None]]) -> None:
    for _ in range(50):
        await drop()
        message_id = MessageId(IDS.new())
        assert await notifier.queue.notify([message_id]), "it was not sent at the first call"
        await notifier.handles(message_id)
    for _ in range(3):
        await drop()
        ids = [MessageId(IDS.new()) for _ in range(3)]
        assert await notifier.queue.notify(ids), "nor were several"
        for message_id in ids:
            await notifier.handles(message_id)


async def test_what_is_notified_is_in_the_stream_once(
    valkey: EmbeddedValkey, drop: Callable[[], Awaitable[None]]
) -> None:
    sender = JobSender(valkey.url, namespace=f"{NAMESPACE}-unheard", command_seconds=2)
    queue, ids = TaskiqJobQueue(sender, GENERATE_REPLY), [MessageId(IDS.new()) for _ in range(10)]
    for message_id in ids:
        await drop()
        assert await queue.notify([message_id])
    async with Redis.from_url(valkey.url) as redis:
        entries: Any = await redis.xrange(sender.stream)
    assert len(entries) == 10
    for (_, entry), message_id in zip(entries, ids, strict=True):
        assert str(message_id).encode() in entry[b"data"]
    await sender.close()


async def test_nobody_else_notices_either(valkey: EmbeddedValkey, drop: Callable[[], Awaitable[None]]) -> None:
    """The cache, the rate limits and the readiness check; and a reply that is written and followed."""
    redis = RedisConnection(valkey.url, command_seconds=2)
    lists = RedisChatroomLists(redis, namespace=NAMESPACE)
    limiter = RedisRateLimiter(redis, namespace=NAMESPACE, key=b"key")
    stream = RedisReplyStream(valkey.url, namespace=NAMESPACE, command_seconds=2)
    user_id, bucket = UserId(IDS.new()), Bucket("reads", "somebody", Rate(1_000, 60))
    with capture_logs() as logs:
        for version in range(10):
            for call in (
                lambda version=version: lists.put(user_id, version, []),
                lambda version=version: lists.get(user_id, version),
                lambda: limiter.hit([bucket]),
                redis.check,
            ):
                await drop()
                await call()
            message_id = MessageId(IDS.new())
            await drop()
            writer = stream.write(message_id, 1)
            writer.add("Hello.")
            await writer.close()
            await drop()
            async with asyncio.timeout(HANG), stream.follow(message_id, after=START) as reader:
                text = ""
                while text != "Hello.":
                    text += "".join(piece.text for piece in await reader.read())
    await stream.close()
    await redis.close()
    assert "redis_unavailable" not in {line["event"] for line in logs}


def test_clients_are_made_in_one_place() -> None:
    """So that each has the retry: a new client that is made elsewhere would have none."""
    makers = {"from_url", "BlockingConnectionPool", "ConnectionPool", "Retry"}
    elsewhere = []
    for file in [*ROOT.glob("adapters/**/*.py"), *ROOT.glob("entrypoints/**/*.py")]:
        if file.name != "redis_clients.py" and "redis" in (text := file.read_text()):
            names = {node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
            called = {getattr(name, "attr", getattr(name, "id", "")) for name in names}
            elsewhere += [f"{file.relative_to(ROOT)}: {name}" for name in called & makers]
    assert elsewhere == []


class TestRepeat:
    """What could not be sent is sent a little later, though nobody waits for it."""

    async def test_a_notification_that_failed_comes_by_itself(self, valkey: EmbeddedValkey, notifier: Notifier) -> None:
        first = MessageId(IDS.new())
        assert await notifier.queue.notify([first])
        await notifier.handles(first)
        valkey.kill()
        late = [MessageId(IDS.new()) for _ in range(3)]
        for message_id in late:
            assert not await notifier.queue.notify([message_id])
        valkey.start()
        for message_id in late:
            await notifier.handles(message_id)
        assert Counter(notifier.handled) == Counter([first, *late])

    async def test_it_is_given_up_after_a_while_and_begun_anew_with_the_next(self, valkey: EmbeddedValkey) -> None:
        sender = JobSender(valkey.url, namespace=f"{NAMESPACE}-away", command_seconds=0.2, repeat_seconds=0.02)
        queue = TaskiqJobQueue(sender, GENERATE_REPLY)
        valkey.kill()
        for _ in range(2):
            assert not await queue.notify([MessageId(IDS.new())])
            assert sender.unsent == 1
            await until(lambda: not sender.unsent)
        await sender.close()
        valkey.start()

    async def test_it_is_bounded(self, valkey: EmbeddedValkey) -> None:
        sender = JobSender(valkey.url, namespace=f"{NAMESPACE}-full", command_seconds=0.2)
        queue = TaskiqJobQueue(sender, GENERATE_REPLY)
        valkey.kill()
        for _ in range(3):
            assert not await queue.notify([MessageId(IDS.new()) for _ in range(500)])
        assert sender.unsent == 1_000
        async with asyncio.timeout(HANG):
            await sender.close()
        valkey.start()

    async def test_it_runs_outside_of_the_callers_context(self, valkey: EmbeddedValkey) -> None:
        """Which may hold a transaction that is over by then."""
        transaction: ContextVar[str] = ContextVar("transaction", default="none")
        seen = []

        class Looking(JobSender):
            async def _add(self, calls: Sequence[Sequence[tuple[str, str]]]) -> Sequence[None]:
                seen.append(transaction.get())
                return await super()._add(calls)

        sender = Looking(valkey.url, namespace=f"{NAMESPACE}-context", command_seconds=0.2, repeat_seconds=0.02)
        valkey.kill()
        transaction.set("open")
        assert not await TaskiqJobQueue(sender, GENERATE_REPLY).notify([MessageId(IDS.new())])
        valkey.start()
        await until(lambda: not sender.unsent)
        assert len(seen) >= 2
        assert set(seen) == {"none"}
        await sender.close()
