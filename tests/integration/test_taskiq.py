"""The receiver of jobs on a Redis that stops, starts, forgets and hangs; and how it is stopped itself."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from adapters.system import TimeOrderedIds
from adapters.taskiq.receiving import JobReceiver, StreamBroker
from adapters.taskiq.sending import GENERATE_REPLY, JobSender, TaskiqJobQueue
from domain.errors import DatabaseUnavailable
from domain.ids import MessageId
from local.valkey import EmbeddedValkey
from tests.support.patience import HANG

IDS = TimeOrderedIds()


@pytest.fixture(scope="module")
def valkey(data_dir: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(data_dir / "valkey-of-taskiq")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def running_valkey(valkey: EmbeddedValkey) -> EmbeddedValkey:
    """Alive, whatever an earlier test did to it."""
    if valkey.exit_code is not None or valkey.pid is None:
        valkey.start()
    return valkey


class Worker:
    """A receiver with its handler, and the queue that notifies it."""

    def __init__(
        self,
        server: EmbeddedValkey,
        handler: Callable[[MessageId], Awaitable[object]] | None = None,
        *,
        namespace: str | None = None,
        concurrency: int = 10,
    ) -> None:
        self.namespace = namespace or f"test-{secrets.token_hex(6)}"
        self.sender = JobSender(server.url, namespace=self.namespace, command_seconds=1)
        self.broker = StreamBroker(server.url, namespace=self.namespace, command_seconds=1)
        self.queue = TaskiqJobQueue(self.sender, GENERATE_REPLY)
        self._handler = handler
        self.begun: list[MessageId] = []
        self.ended: list[MessageId] = []
        self.cancelled: list[MessageId] = []
        self.receiver = JobReceiver(self.broker, {GENERATE_REPLY: self._handle}, concurrency=concurrency)
        self.stop = asyncio.Event()
        self.listening = asyncio.create_task(self.receiver.listen(self.stop))

    async def _handle(self, message_id: MessageId) -> None:
        self.begun.append(message_id)
        try:
            if self._handler:
                await self._handler(message_id)
        except asyncio.CancelledError:
            self.cancelled.append(message_id)
            raise
        self.ended.append(message_id)

    async def until(self, condition: Callable[[], bool], *, seconds: float = HANG) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up, f"begun {len(self.begun)}, ended {len(self.ended)}"
            await asyncio.sleep(0.01)

    async def notify(self, count: int = 1) -> list[MessageId]:
        """Notifies until it works: its first try may meet a connection that died with a server."""
        ids = [MessageId(IDS.new()) for _ in range(count)]
        give_up = time.monotonic() + HANG
        while not await self.queue.notify(ids):
            assert time.monotonic() < give_up, "the queue does not come back"
            await asyncio.sleep(0.05)
        return ids

    async def left_in_stream(self) -> int:
        async with Redis(connection_pool=self.broker.connection_pool) as redis:
            return int(await redis.xlen(self.broker.queue_name))


@asynccontextmanager
async def worker(
    server: EmbeddedValkey,
    handler: Callable[[MessageId], Awaitable[object]] | None = None,
    *,
    namespace: str | None = None,
    concurrency: int = 10,
) -> AsyncIterator[Worker]:
    worker = Worker(server, handler, namespace=namespace, concurrency=concurrency)
    try:
        yield worker
    finally:
        worker.stop.set()
        async with asyncio.timeout(HANG):
            await worker.listening
        await worker.receiver.drain(0)
        await worker.sender.close()
        await worker.broker.close()


async def test_each_job_is_handled_and_the_stream_left_empty(running_valkey: EmbeddedValkey) -> None:
    async with worker(running_valkey) as one:
        ids = [id for _ in range(10) for id in await one.notify(25)]
        await one.until(lambda: len(one.ended) == 250)
        assert sorted(one.ended) == ids
        assert await one.left_in_stream() == 0


async def test_a_job_is_a_message_of_taskiqs_own_with_an_id_of_its_own(running_valkey: EmbeddedValkey) -> None:
    namespace = f"test-{secrets.token_hex(6)}"
    sender = JobSender(running_valkey.url, namespace=namespace, command_seconds=1)
    broker = StreamBroker(running_valkey.url, namespace=namespace, command_seconds=1)
    ids = [MessageId(IDS.new()) for _ in range(3)]
    assert await TaskiqJobQueue(sender, GENERATE_REPLY).notify(ids)
    async with Redis(connection_pool=broker.connection_pool) as redis:
        entries: Any = await redis.xrange(broker.queue_name)
    jobs = [broker.formatter.loads(entry[b"data"]) for _, entry in entries]
    assert [(job.task_name, job.args, job.kwargs, job.labels) for job in jobs] == [
        (GENERATE_REPLY, [str(id)], {}, {}) for id in ids
    ]
    assert len({job.task_id for job in jobs}) == 3
    await sender.close()
    await broker.close()


async def test_a_job_sent_before_the_first_worker_came_is_handled(running_valkey: EmbeddedValkey) -> None:
    namespace = f"test-{secrets.token_hex(6)}"
    sender = JobSender(running_valkey.url, namespace=namespace, command_seconds=1)
    message_id = MessageId(IDS.new())
    assert await TaskiqJobQueue(sender, GENERATE_REPLY).notify([message_id])
    await sender.close()
    async with worker(running_valkey, namespace=namespace) as late:
        await late.until(lambda: late.ended == [message_id])


async def test_no_more_at_once_than_its_concurrency(running_valkey: EmbeddedValkey) -> None:
    most = now = 0

    async def handler(_: MessageId) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1

    async with worker(running_valkey, handler, concurrency=3) as one:
        await one.notify(40)
        await one.until(lambda: len(one.ended) == 40)
    assert most == 3


async def test_workers_share_the_jobs(running_valkey: EmbeddedValkey) -> None:
    both = asyncio.Event()
    async with (
        worker(running_valkey, lambda _: both.wait(), concurrency=2) as one,
        worker(running_valkey, lambda _: both.wait(), concurrency=2, namespace=one.namespace) as other,
    ):
        ids = await one.notify(100)
        await one.until(lambda: bool(one.begun and other.begun))
        both.set()
        await one.until(lambda: len(one.ended) + len(other.ended) == 100)
        assert sorted(one.ended + other.ended) == ids
        assert one.ended
        assert other.ended


async def test_a_handler_that_fails_hurts_no_other(running_valkey: EmbeddedValkey) -> None:
    errors: list[Exception] = [DatabaseUnavailable(), LookupError("quoted words")] * 10

    async def handler(_: MessageId) -> None:
        if errors:
            raise errors.pop()

    with capture_logs() as logs:
        async with worker(running_valkey, handler, concurrency=2) as one:
            await one.notify(25)
            await one.until(lambda: len(one.begun) == 25)
            await one.until(lambda: len(one.ended) == 5)
            assert await one.left_in_stream() == 0
    assert Counter(line["event"] for line in logs) == {"job_failed": 10, "job_given_up": 10}
    failed = [line for line in logs if line["event"] == "job_failed"]
    assert {line["error"] for line in failed} == {"LookupError"}
    assert all("in handler" in "".join(line["where"]) for line in failed)
    assert "quoted words" not in str(logs), "where it was, and not what it says"


async def test_what_is_no_job_of_ours_is_thrown_away(running_valkey: EmbeddedValkey) -> None:
    async with worker(running_valkey) as one:
        async with Redis(connection_pool=one.broker.connection_pool) as redis:
            await redis.xadd(one.broker.queue_name, {b"data": b"garbage"})
            await redis.xadd(one.broker.queue_name, {b"other": b"garbage"})
        await one.sender.send("a_task_of_tomorrow", ["x"])
        await one.sender.send("generate_reply", ["no id"])
        [message_id] = await one.notify()
        await one.until(lambda: one.ended == [message_id])
        assert await one.left_in_stream() == 0


class TestTake:
    async def test_needs_no_notification(self, running_valkey: EmbeddedValkey) -> None:
        running_valkey.kill()
        ids = [MessageId(IDS.new()) for _ in range(3)]
        async with worker(running_valkey) as one:
            one.receiver.run_now(GENERATE_REPLY, ids)
            await one.until(lambda: sorted(one.ended) == ids)
            running_valkey.start()

    async def test_takes_no_more_than_it_has_places(self, running_valkey: EmbeddedValkey) -> None:
        gate = asyncio.Event()
        async with worker(running_valkey, lambda _: gate.wait(), concurrency=3) as one:
            sent = await one.notify(2)
            await one.until(lambda: len(one.begun) == 2)
            taken = [MessageId(IDS.new()) for _ in range(4)]
            one.receiver.run_now(GENERATE_REPLY, taken)
            one.receiver.run_now(GENERATE_REPLY, taken[1:])
            await one.until(lambda: len(one.begun) == 3)
            gate.set()
            await one.until(lambda: len(one.ended) == 3)
            assert sorted(one.ended) == sorted([*sent, taken[0]])

    async def test_nor_do_the_notifications_that_come_meanwhile(self, running_valkey: EmbeddedValkey) -> None:
        most = now = 0
        gate = asyncio.Event()

        async def handler(_: MessageId) -> None:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await gate.wait()
            now -= 1

        async with worker(running_valkey, handler, concurrency=3) as one:
            one.receiver.run_now(GENERATE_REPLY, [MessageId(IDS.new()) for _ in range(2)])
            await one.notify(10)
            await one.until(lambda: len(one.begun) >= 3)
            await asyncio.sleep(0.1)
            gate.set()
            await one.until(lambda: len(one.ended) == 12)
        assert most == 3

    async def test_a_notification_that_waits_for_a_slot_begins_nothing_after_the_stop(
        self, running_valkey: EmbeddedValkey
    ) -> None:
        gate = asyncio.Event()
        async with worker(running_valkey, lambda _: gate.wait(), concurrency=1) as one:
            one.receiver.run_now(GENERATE_REPLY, [MessageId(IDS.new())])
            await one.notify()
            await asyncio.sleep(0.2)
            one.stop.set()
            await one.listening
            gate.set()
            await one.receiver.drain(5)
            await asyncio.sleep(0.05)
            assert len(one.begun) == 1

    async def test_is_drained_like_the_others(self, running_valkey: EmbeddedValkey) -> None:
        ids = [MessageId(IDS.new()) for _ in range(2)]
        async with worker(running_valkey, lambda _: asyncio.Event().wait()) as one:
            one.receiver.run_now(GENERATE_REPLY, ids)
            await one.until(lambda: len(one.begun) == 2)
            one.stop.set()
            await one.listening
            await one.receiver.drain(0.05)
            assert sorted(one.cancelled) == ids


class TestOutage:
    async def running(self, one: Worker) -> list[MessageId]:
        ids = await one.notify(3)
        await one.until(lambda: len(one.begun) == 3)
        return ids

    async def test_killed_and_restarted(self, running_valkey: EmbeddedValkey) -> None:
        gate = asyncio.Event()
        async with worker(running_valkey, lambda _: gate.wait()) as one:
            before = await self.running(one)
            running_valkey.kill()
            assert not await one.queue.notify([MessageId(IDS.new())])
            assert not one.listening.done()
            running_valkey.start()
            after = await one.notify(2)
            await one.until(lambda: len(one.begun) >= 5)
            gate.set()
            await one.until(lambda: set(one.ended) >= {*before, *after})
            assert one.cancelled == [], "a running reply was cut"

    async def test_killed_and_restarted_with_nothing_left(self, running_valkey: EmbeddedValkey) -> None:
        gate = asyncio.Event()
        async with worker(running_valkey, lambda _: gate.wait()) as one:
            before = await self.running(one)
            running_valkey.kill()
            for file in (running_valkey.data_dir / "appendonlydir").iterdir():
                file.unlink()
            running_valkey.start()
            after = await one.notify(2)
            await one.until(lambda: len(one.begun) == 5)
            gate.set()
            await one.until(lambda: len(one.ended) == 5)
            assert sorted(one.ended) == [*before, *after]
            assert one.cancelled == []
            assert await one.left_in_stream() == 0

    async def test_flushed_under_its_hands(self, running_valkey: EmbeddedValkey) -> None:
        gate = asyncio.Event()
        async with worker(running_valkey, lambda _: gate.wait()) as one:
            before = await self.running(one)
            async with Redis(connection_pool=one.broker.connection_pool) as redis:
                await redis.flushall()
            after = await one.notify(2)
            await one.until(lambda: len(one.begun) == 5)
            gate.set()
            await one.until(lambda: len(one.ended) == 5)
            assert sorted(one.ended) == [*before, *after]

    async def test_away_from_the_start(self, running_valkey: EmbeddedValkey) -> None:
        running_valkey.kill()
        async with worker(running_valkey) as one:
            await asyncio.sleep(0.2)
            assert not one.listening.done()
            running_valkey.start()
            [message_id] = await one.notify()
            await one.until(lambda: one.ended == [message_id])

    async def test_hung_and_back(self, running_valkey: EmbeddedValkey) -> None:
        async with worker(running_valkey) as one:
            await one.notify()
            await one.until(lambda: len(one.ended) == 1)
            assert running_valkey.pid is not None
            os.kill(running_valkey.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(HANG):
                    assert not await one.queue.notify([MessageId(IDS.new())])
            finally:
                os.kill(running_valkey.pid, signal.SIGCONT)
            [message_id] = await one.notify()
            await one.until(lambda: message_id in one.ended)


class TestStop:
    async def test_idle_it_stops_at_once(self, running_valkey: EmbeddedValkey) -> None:
        async with worker(running_valkey) as one:
            await one.notify()
            await one.until(lambda: len(one.ended) == 1)
            one.stop.set()
            async with asyncio.timeout(HANG):
                await one.listening
                await one.receiver.drain(60)

    async def test_while_redis_is_away_it_stops_at_once(self, running_valkey: EmbeddedValkey) -> None:
        async with worker(running_valkey) as one:
            await one.notify()
            await one.until(lambda: len(one.ended) == 1)
            running_valkey.kill()
            await asyncio.sleep(0.5)
            one.stop.set()
            async with asyncio.timeout(HANG):
                await one.listening

    async def test_takes_no_new_jobs_and_lets_running_ones_end(self, running_valkey: EmbeddedValkey) -> None:
        gate = asyncio.Event()
        async with worker(running_valkey, lambda _: gate.wait()) as one:
            ids = await one.notify(3)
            await one.until(lambda: len(one.begun) == 3)
            one.stop.set()
            await one.listening
            await one.notify()
            draining = asyncio.create_task(one.receiver.drain(10))
            await asyncio.sleep(0.05)
            assert not draining.done()
            gate.set()
            await draining
            assert sorted(one.ended) == ids
            assert one.cancelled == []
            assert len(one.begun) == 3

    async def test_cancels_what_does_not_end_in_time_and_waits_for_its_cleaning_up(
        self, running_valkey: EmbeddedValkey
    ) -> None:
        cleaned: list[MessageId] = []

        async def handler(message_id: MessageId) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                cleaned.append(message_id)

        async with worker(running_valkey, handler) as one:
            ids = await one.notify(3)
            await one.until(lambda: len(one.begun) == 3)
            one.stop.set()
            await one.listening
            await one.receiver.drain(0.05)
            assert sorted(cleaned) == sorted(one.cancelled) == ids

    async def test_what_a_full_worker_had_fetched_is_not_left_in_the_stream_for_ever(
        self, running_valkey: EmbeddedValkey
    ) -> None:
        async with worker(running_valkey, lambda _: asyncio.Event().wait(), concurrency=1) as one:
            await one.notify(5)
            await one.until(lambda: len(one.begun) == 1)
            one.stop.set()
            await one.listening
            async with Redis(connection_pool=one.broker.connection_pool) as redis:
                [group] = await redis.xinfo_groups(one.broker.queue_name)
            assert group["pending"] == 0, "entries that nobody will ever acknowledge"

    async def test_what_it_had_fetched_and_not_begun_is_another_workers_at_once(
        self, running_valkey: EmbeddedValkey
    ) -> None:
        async with worker(running_valkey, lambda _: asyncio.Event().wait(), concurrency=1) as one:
            ids = await one.notify(5)
            await one.until(lambda: len(one.begun) == 1)
            one.stop.set()
            await one.listening
            async with worker(running_valkey, namespace=one.namespace) as other:
                await other.until(lambda: len(other.ended) >= 4)
                assert sorted([*one.begun, *other.ended]) == ids

    async def test_leaves_no_consumer_behind(self, running_valkey: EmbeddedValkey) -> None:
        async with worker(running_valkey) as one:
            await one.notify()
            await one.until(lambda: len(one.ended) == 1)
        async with Redis.from_url(running_valkey.url) as redis:
            assert await redis.xinfo_consumers(one.broker.queue_name, one.broker.consumer_group_name) == []
