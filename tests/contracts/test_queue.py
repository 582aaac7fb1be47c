"""What JobQueue promises: a list, and Taskiq's stream with the receiver that empties it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from redis.asyncio import Redis

from adapters.memory.runtime import MemoryJobQueue
from adapters.system import TimeOrderedIds
from adapters.taskiq.receiving import JobReceiver, StreamBroker
from adapters.taskiq.sending import GENERATE_REPLY, JobSender, TaskiqJobQueue
from application.ports.runtime import JobQueue
from domain.ids import MessageId
from tests.support.patience import HANG
from tests.support.ports import free_port


@dataclass(frozen=True)
class Notified:
    queue: JobQueue
    received: Callable[[int], Awaitable[list[UUID]]]
    """All that was notified of, as soon as there are `count`."""


@pytest.fixture
def memory_queue() -> Notified:
    queue = MemoryJobQueue()

    async def received(count: int) -> list[UUID]:
        assert len(queue.notified) >= count
        return queue.notified

    return Notified(queue, received)


@pytest.fixture
async def taskiq_queue(redis_url: str) -> AsyncIterator[Notified]:
    namespace = f"test-{secrets.token_hex(6)}"
    sender = JobSender(redis_url, namespace=namespace, command_seconds=HANG)
    broker = StreamBroker(redis_url, namespace=namespace, command_seconds=HANG)
    came: asyncio.Queue[UUID] = asyncio.Queue()
    receiver, stop, all_of_them = (
        JobReceiver(broker, {GENERATE_REPLY: came.put}, concurrency=5),
        asyncio.Event(),
        list[UUID](),
    )

    async def received(count: int) -> list[UUID]:
        async with asyncio.timeout(HANG):
            while len(all_of_them) < count:
                all_of_them.append(await came.get())
        while not came.empty():
            all_of_them.append(came.get_nowait())
        return all_of_them

    listening = asyncio.create_task(receiver.listen(stop))
    try:
        yield Notified(TaskiqJobQueue(sender, GENERATE_REPLY), received)
        stop.set()
        await listening
        async with Redis(connection_pool=broker.connection_pool) as redis:
            assert await redis.xlen(broker.queue_name) == 0, "jobs were left in the stream"
            await redis.delete(broker.queue_name)
    finally:
        stop.set()
        await asyncio.gather(listening, return_exceptions=True)
        await sender.close()
        await broker.close()


@pytest.fixture(params=["memory_queue", "taskiq_queue"])
def notified(request: pytest.FixtureRequest) -> Notified:
    chosen = request.getfixturevalue(request.param)
    assert isinstance(chosen, Notified)
    return chosen


def ids(count: int) -> list[UUID]:
    source = TimeOrderedIds()
    return [MessageId(source.new()) for _ in range(count)]


async def test_a_notification_is_received(notified: Notified) -> None:
    [message_id] = ids(1)
    assert await notified.queue.notify([message_id])
    assert await notified.received(1) == [message_id]


async def test_one_for_many_is_received_for_each(notified: Notified) -> None:
    sent = ids(200)
    assert await notified.queue.notify(sent)
    assert sorted(await notified.received(200)) == sent


async def test_a_second_notification_is_a_second_job(notified: Notified) -> None:
    [message_id] = ids(1)
    assert await notified.queue.notify([message_id])
    assert await notified.queue.notify([message_id])
    assert await notified.received(2) == [message_id] * 2


async def test_a_notification_of_nothing_is_no_error(notified: Notified) -> None:
    assert await notified.queue.notify([])
    assert await notified.received(0) == []


async def test_many_notifications_at_once(notified: Notified) -> None:
    sent = ids(60)
    assert all(await asyncio.gather(*(notified.queue.notify([message_id]) for message_id in sent)))
    assert sorted(await notified.received(60)) == sent


@asynccontextmanager
async def queue_at(url: str) -> AsyncIterator[JobQueue]:
    sender = JobSender(url, namespace="test", command_seconds=0.5)
    try:
        yield TaskiqJobQueue(sender, GENERATE_REPLY)
    finally:
        await sender.close()


class TestBrokenQueue:
    """False within a bound, and no exception."""

    async def notify(self, queue: JobQueue) -> bool:
        async with asyncio.timeout(HANG):
            results = await asyncio.gather(*(queue.notify(ids(2)) for _ in range(30)))
        assert len(set(results)) == 1
        return results[0]

    async def test_in_memory(self) -> None:
        queue = MemoryJobQueue()
        queue.broken = True
        assert not await self.notify(queue)
        assert queue.notified == []

    async def test_nobody_listens(self) -> None:
        async with queue_at(f"redis://127.0.0.1:{free_port()}/0") as queue:
            assert not await self.notify(queue)

    async def test_a_server_that_never_answers(self) -> None:
        leave = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await leave.wait()
            writer.close()

        async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with queue_at(f"redis://127.0.0.1:{port}/0") as queue:
                assert not await self.notify(queue)
            leave.set()

    async def test_a_server_that_talks_nonsense(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with queue_at(f"redis://127.0.0.1:{port}/0") as queue:
                assert not await self.notify(queue)

    async def test_a_wrong_password(self, redis_url: str) -> None:
        url = urlsplit(redis_url)
        url = url._replace(netloc=f":wrong@{url.hostname}:{url.port}")
        async with queue_at(url.geturl()) as queue:
            assert not await self.notify(queue)
