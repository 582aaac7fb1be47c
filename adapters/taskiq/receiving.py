"""Receives jobs: Taskiq's receiver on the stream. Only a worker loads it."""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from adapters.redis_causes import cause_of
from adapters.redis_clients import redis_pool
from adapters.taskiq.sending import stream_of
from application.patience import Backoff
from application.ports.runtime import Resource
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

_NEVER_MS = 3_600_000


class StreamBroker(RedisStreamBroker, Resource):
    """Taskiq's broker, whose stream shrinks again and skips no job that was sent before the first worker started."""

    def __init__(self, url: str, *, namespace: str, command_seconds: float) -> None:
        block_ms = 2_000
        super().__init__(
            "redis://",
            queue_name=stream_of(namespace),
            consumer_id="0",  # "$" would skip what was sent before the group existed
            xread_count=10,  # a larger batch starves the other workers
            xread_block=block_ms,
            idle_timeout=_NEVER_MS,  # leases do the reclaiming
        )
        # Its own pool, which has not connected, knows neither Sentinels nor our retry.
        self.connection_pool = redis_pool(
            url, command_seconds=command_seconds, max_connections=20, block_seconds=block_ms / 1000
        )
        self.has_listened = False
        """Whether the stream was read since the last start."""
        self._command_seconds = command_seconds
        self._fetched: deque[bytes] = deque()

    async def start(self) -> None:
        """The receiver creates the consumer group, also after an outage."""

    async def startup(self) -> None:
        self.has_listened = False
        await super().startup()

    async def _declare_consumer_group(self) -> None:
        """Taskiq's own takes every refusal for a group that exists."""
        try:
            async with Redis(connection_pool=self.connection_pool) as redis:
                await redis.xgroup_create(
                    self.queue_name, self.consumer_group_name, id=self.consumer_id, mkstream=self.mkstream
                )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def close(self) -> None:
        with suppress(RedisError, OSError):  # or each start of a worker would leave a consumer in the group
            async with asyncio.timeout(self._command_seconds), Redis(connection_pool=self.connection_pool) as redis:
                await redis.xgroup_delconsumer(self.queue_name, self.consumer_group_name, self.consumer_name)
        await self.shutdown()

    async def listen(self) -> AsyncGenerator[bytes, None]:  # type: ignore[override]  # the receiver takes both
        """Jobs, already removed from the stream: leases, not acknowledgements, guarantee that each is done.

        Taskiq's own method acknowledges one by one, leaves the entries in the stream forever, and strands
        those that a busy worker had fetched when it stopped.
        """
        async with Redis(connection_pool=self.connection_pool) as redis:
            while True:
                while self._fetched:
                    yield self._fetched.popleft()
                fetched: Any = await redis.xreadgroup(
                    self.consumer_group_name,
                    self.consumer_name,
                    {self.queue_name: ">"},
                    count=self.count,
                    block=self.block,
                )
                self.has_listened = True
                for stream, entries in fetched or ():
                    self._fetched += (job for _, entry in entries if (job := entry.get(b"data")))
                    pipeline = redis.pipeline(transaction=False)
                    pipeline.xack(stream, self.consumer_group_name, *(entry_id for entry_id, _ in entries))
                    pipeline.xdel(stream, *(entry_id for entry_id, _ in entries))
                    await pipeline.execute()

    async def requeue_fetched(self) -> None:
        """Return jobs that were fetched but not started to the stream, for another worker."""
        async with asyncio.timeout(self._command_seconds), Redis(connection_pool=self.connection_pool) as redis:
            pipeline = redis.pipeline(transaction=False)
            for job in self._fetched:
                pipeline.xadd(self.queue_name, {b"data": job})
            await pipeline.execute()
            self._fetched.clear()


class JobReceiver:
    """Runs the handler of a job for each of its ids. A Redis outage does not disturb running handlers."""

    def __init__(
        self, broker: StreamBroker, handlers: Mapping[str, Callable[[Any], Awaitable[object]]], *, concurrency: int
    ) -> None:
        self._broker = broker
        self._handlers = handlers
        self._concurrency = concurrency
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = False
        for job in handlers:
            broker.register_task(self._task(job), task_name=job)
        self._receiver = Receiver(
            broker,
            max_async_tasks=concurrency,
            max_prefetch=0,  # jobs wait in the stream, where every worker can take them
            run_startup=False,
            validate_params=False,
            wait_tasks_timeout=0.001,  # `drain` does this
        )

    async def listen(self, stop: asyncio.Event) -> None:
        """Take jobs until `stop` is set."""
        backoff = Backoff(0.1, 2.0)
        while not stop.is_set():
            try:
                await self._broker.startup()  # creates the consumer group again if Redis has lost it
                await self._receiver.listen(stop)
            except Exception as error:  # noqa: BLE001 - Redis fails in many shapes, also grouped; none ends a worker
                if self._broker.has_listened:  # a server that lets us in and then refuses has not worked
                    backoff.reset()
                pause = backoff.pause()
                log.warning("job_queue_lost", error=type(error).__name__, cause=cause_of(error).words, again_in=pause)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
        self._stopped = True
        with suppress(RedisError, OSError):  # then a sweep finds the messages, a lease later
            await self._broker.requeue_fetched()

    @property
    def free_slots(self) -> int:
        """How many more jobs can run now."""
        return 0 if self._stopped else self._concurrency - len(self._running)

    def run_now(self, job: str, ids: Sequence[UUID]) -> None:
        """Handle these now, without a notification, as far as there are free slots."""
        for id in ids[: max(0, self.free_slots)]:
            self._start(job, id)

    async def drain(self, seconds: float) -> None:
        """Wait for running jobs; after `seconds` cancel the rest, which returns their messages to the queue."""
        if self._running:
            log.info("draining", jobs=len(self._running))
            _, late = await asyncio.wait(self._running, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=5)

    def _task(self, job: str) -> Callable[[str], Awaitable[None]]:
        async def handle(identifier: str) -> None:  # Taskiq renames what it registers: no bound method
            # Taskiq does not know of those that run without a notification.
            while len(self._running) >= self._concurrency:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            if not self._stopped:  # else a sweep finds it, as after any lost notification
                await asyncio.wait([self._start(job, UUID(identifier))])

        return handle

    def _start(self, job: str, identifier: UUID) -> asyncio.Task[None]:
        """Our own task: Taskiq's receiver drops its tasks when it loses Redis, and they could be collected."""
        task = asyncio.create_task(self._handle(job, identifier))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _handle(self, job: str, identifier: UUID) -> None:
        try:
            await self._handlers[job](identifier)
        except Unavailable as error:
            log.warning("job_given_up", job=job, id=str(identifier), code=error.code)
        except Exception as error:  # noqa: BLE001 - Taskiq would swallow it; only the place is logged, since the text may quote a message
            where = traceback.format_tb(error.__traceback__)
            log.error("job_failed", job=job, id=str(identifier), error=type(error).__name__, where=where)
