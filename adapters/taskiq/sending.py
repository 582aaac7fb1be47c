"""Sends jobs, without loading Taskiq, which brings its receiver and an HTTP client along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextvars import Context
from uuid import UUID, uuid4

import structlog
from redis.exceptions import RedisError

from adapters.batching import Batched
from adapters.redis_causes import cause_of
from adapters.redis_clients import redis_client
from application.ports.runtime import JobQueue, Resource

log = structlog.get_logger(__name__)

GENERATE_REPLY = "generate_reply"  # with the id of a message
SYNC_SUBSCRIPTIONS = "read_subscriptions"  # with the id of a user
_REPEAT_SECONDS = 0.5
_REPEATS = 10  # afterwards a worker's sweep comes about as soon
_MAX_UNSENT = 1_000


_Job = tuple[str, str]  # its name and its argument, a UUID


def stream_of(namespace: str) -> str:
    return f"{namespace}:jobs"


class JobSender(Resource):
    def __init__(
        self, url: str, *, namespace: str, command_seconds: float, repeat_seconds: float = _REPEAT_SECONDS
    ) -> None:
        self.stream = stream_of(namespace)
        self._command_seconds = command_seconds
        # Apart from the pools of other commands: sending a job is a single command on a warm connection.
        self._client = redis_client(url, command_seconds=command_seconds, max_connections=1)
        self._send: Batched[Sequence[_Job], None] = Batched(self._add)
        self._repeat_seconds = repeat_seconds
        self._unsent: dict[_Job, int] = {}
        """Jobs that could not be sent, and how many tries are left."""
        self._repeating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects at the first job, so an unavailable Redis does not stop the start."""

    async def close(self) -> None:
        if self._repeating:
            self._repeating.cancel()
            await asyncio.wait([self._repeating])
        await self._client.aclose(close_connection_pool=True)

    async def send(self, task_name: str, arguments: Sequence[str]) -> None:
        """Add a job for each argument, in one round trip for all calls that come while the last one is under way."""
        await self._send([(task_name, argument) for argument in arguments])

    @property
    def unsent(self) -> int:
        """How many jobs wait to be sent again."""
        return len(self._unsent)

    def repeat(self, task_name: str, arguments: Sequence[str]) -> None:
        """Retry jobs that could not be sent, in the background, twice a second for a while.

        Jobs that are dropped, because there are too many or the outage lasts, are left to the sweeps.
        """
        for argument in arguments[: max(0, _MAX_UNSENT - len(self._unsent))]:
            self._unsent[task_name, argument] = _REPEATS
        if self._repeating is None or self._repeating.done():
            # A new context, since the caller's may hold a transaction.
            self._repeating = asyncio.get_running_loop().create_task(self._repeat(), context=Context())

    async def _repeat(self) -> None:
        while self._unsent:
            await asyncio.sleep(self._repeat_seconds)
            jobs = list(self._unsent)
            try:
                await self._send(jobs)
            except (RedisError, OSError):
                self._unsent = {job: left - 1 for job, left in self._unsent.items() if left > 1}
            else:
                log.info("jobs_sent_late", jobs=len(jobs))
                for job in jobs:
                    self._unsent.pop(job, None)

    async def _add(self, calls: Sequence[Sequence[_Job]]) -> Sequence[None]:
        entries = [{b"data": _encoded(job)} for jobs in calls for job in jobs]
        async with asyncio.timeout(self._command_seconds):
            if len(entries) == 1:  # the usual case, at a fifth of a pipeline's cost
                await self._client.xadd(self.stream, entries[0])  # type: ignore[arg-type]  # dict is invariant
            else:
                pipeline = self._client.pipeline(transaction=False)
                for entry in entries:
                    pipeline.xadd(self.stream, entry)  # type: ignore[arg-type]  # likewise
                await pipeline.execute()
        return [None] * len(calls)


def _encoded(job: _Job) -> bytes:
    """A message of Taskiq's."""
    name, argument = job
    message = {"task_id": uuid4().hex, "task_name": name, "labels": {}, "args": [argument], "kwargs": {}}
    return json.dumps(message).encode()


class TaskiqJobQueue(JobQueue):
    def __init__(self, sender: JobSender, job: str) -> None:
        self._sender = sender
        self._job = job

    async def notify(self, ids: Sequence[UUID]) -> bool:
        try:
            await self._sender.send(self._job, [str(id) for id in ids])
        except (RedisError, OSError) as error:
            cause = cause_of(error).words
            log.warning("notify_failed", job=self._job, error=type(error).__name__, cause=cause, ids=len(ids))
            self._sender.repeat(self._job, [str(id) for id in ids])
            return False
        return True
