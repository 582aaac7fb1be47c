"""What JobQueue promises: a list, and Taskiq's stream with the receiver that empties it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from redis.asyncio import Redis

from adapters.memory.runtime import MemoryJobQueue
from adapters.system import TimeOrderedIds
from adapters.taskiq import GENERATE_REPLY, JobReceiver, StreamBroker, TaskiqJobQueue
from application.ports.runtime import JobQueue
from domain.ids import MessageId
from tests.support.patience import HANG
from tests.support.ports import free_port


@dataclass(frozen=True)
class Bell:
    queue: JobQueue
    heard: Callable[[int], Awaitable[list[UUID]]]
    """All that was rung for, as soon as there are so many."""


@pytest.fixture
def memory_bell() -> Bell:
    queue = MemoryJobQueue()

    async def heard(count: int) -> list[UUID]:
        assert len(queue.rung) >= count
        return queue.rung

    return Bell(queue, heard)


@pytest.fixture
async def taskiq_bell(redis_url: str) -> AsyncIterator[Bell]:
    broker = StreamBroker(redis_url, namespace=f"test-{secrets.token_hex(6)}", command_seconds=0.5)
    came: asyncio.Queue[UUID] = asyncio.Queue()
    receiver, stop, all_of_them = (
        JobReceiver(broker, {GENERATE_REPLY: came.put}, concurrency=5),
        asyncio.Event(),
        list[UUID](),
    )

    async def heard(count: int) -> list[UUID]:
        async with asyncio.timeout(HANG):
            while len(all_of_them) < count:
                all_of_them.append(await came.get())
        while not came.empty():
            all_of_them.append(came.get_nowait())
        return all_of_them

    listening = asyncio.create_task(receiver.listen(stop))
    yield Bell(TaskiqJobQueue(broker, GENERATE_REPLY), heard)
    stop.set()
    await listening
    async with Redis(connection_pool=broker.connection_pool) as redis:
        assert await redis.xlen(broker.queue_name) == 0, "jobs were left in the stream"
        await redis.delete(broker.queue_name)
    await broker.close()


@pytest.fixture(params=["memory_bell", "taskiq_bell"])
def bell(request: pytest.FixtureRequest) -> Bell:
    chosen = request.getfixturevalue(request.param)
    assert isinstance(chosen, Bell)
    return chosen


def ids(count: int) -> list[UUID]:
    source = TimeOrderedIds()
    return [MessageId(source.new()) for _ in range(count)]


async def test_a_ring_is_heard(bell: Bell) -> None:
    [message_id] = ids(1)
    assert await bell.queue.ring([message_id])
    assert await bell.heard(1) == [message_id]


async def test_a_ring_for_many_is_heard_for_each(bell: Bell) -> None:
    rung = ids(200)
    assert await bell.queue.ring(rung)
    assert sorted(await bell.heard(200)) == rung


async def test_a_second_ring_is_a_second_job(bell: Bell) -> None:
    [message_id] = ids(1)
    assert await bell.queue.ring([message_id])
    assert await bell.queue.ring([message_id])
    assert await bell.heard(2) == [message_id] * 2


async def test_a_ring_for_nobody_is_no_error(bell: Bell) -> None:
    assert await bell.queue.ring([])
    assert await bell.heard(0) == []


async def test_many_rings_at_once(bell: Bell) -> None:
    rung = ids(60)
    assert all(await asyncio.gather(*(bell.queue.ring([message_id]) for message_id in rung)))
    assert sorted(await bell.heard(60)) == rung


class TestBrokenBell:
    """False within a bound, and no exception."""

    async def ring(self, queue: JobQueue) -> bool:
        async with asyncio.timeout(HANG):
            results = await asyncio.gather(*(queue.ring(ids(2)) for _ in range(30)))
        assert len(set(results)) == 1
        return results[0]

    async def test_in_memory(self) -> None:
        queue = MemoryJobQueue()
        queue.broken = True
        assert not await self.ring(queue)
        assert queue.rung == []

    async def test_nobody_listens(self) -> None:
        broker = StreamBroker(f"redis://127.0.0.1:{free_port()}/0", namespace="test", command_seconds=0.5)
        assert not await self.ring(TaskiqJobQueue(broker, GENERATE_REPLY))
        await broker.close()

    async def test_a_server_that_never_answers(self) -> None:
        leave = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await leave.wait()
            writer.close()

        server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        broker = StreamBroker(f"redis://127.0.0.1:{port}/0", namespace="test", command_seconds=0.3)
        assert not await self.ring(TaskiqJobQueue(broker, GENERATE_REPLY))
        await broker.close()
        leave.set()
        server.close()

    async def test_a_server_that_talks_nonsense(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        broker = StreamBroker(f"redis://127.0.0.1:{port}/0", namespace="test", command_seconds=0.3)
        assert not await self.ring(TaskiqJobQueue(broker, GENERATE_REPLY))
        await broker.close()
        server.close()

    async def test_a_wrong_password(self, redis_url: str) -> None:
        url = urlsplit(redis_url)
        url = url._replace(netloc=f":wrong@{url.hostname}:{url.port}")
        broker = StreamBroker(url.geturl(), namespace="test", command_seconds=0.5)
        assert not await self.ring(TaskiqJobQueue(broker, GENERATE_REPLY))
        await broker.close()
