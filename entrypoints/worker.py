"""The worker process: handles jobs, renews leases, sweeps, and drains on shutdown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog

from adapters.taskiq.receiving import JobReceiver, StreamBroker
from adapters.taskiq.sending import GENERATE_REPLY, SYNC_SUBSCRIPTIONS
from domain.errors import Unavailable
from domain.ids import MessageId, UserId
from entrypoints import health, metrics
from entrypoints.container import Container, running
from entrypoints.lag import LoopLag
from entrypoints.loop import loop_factory
from entrypoints.preflight import refuse_mistakes
from entrypoints.settings import Settings
from entrypoints.stopping import StopSignals, until
from entrypoints.supervisor import Supervisor
from entrypoints.telemetry import configure_logs

log = structlog.get_logger(__name__)

PURGE_SECONDS = 600
ERASE_SECONDS = 5
#: A cancelled reply ends within a second, on whichever server it was cancelled.
CANCEL_POLL_SECONDS = 0.25


async def work(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT arrives, then let running replies finish.

    The lease is renewed while draining; a reply that does not finish in time goes back to the queue.
    """
    signals = StopSignals()
    container = Container(settings=settings)
    lag = LoopLag(metrics.LOOP_LAG.observe)
    broker = StreamBroker(
        settings.redis.url.get_secret_value(),
        namespace=settings.redis.namespace,
        command_seconds=settings.redis.command_seconds,
    )
    async with running([*container.resources(), broker, container.language_model(), container.payment_gateway(), lag]):
        receiver = JobReceiver(broker, _handlers(container), concurrency=settings.worker.concurrency)
        leases = container.leases()
        health.seen(health.LOOP)
        health.seen(health.SWEEP)
        log.info("worker_started")
        async with (
            _every(health.BEAT_SECONDS, _beat),
            _every(settings.worker.heartbeat_seconds, leases.renew),
            _every(CANCEL_POLL_SECONDS, leases.stop_cancelled, after_failure=1.0),
            # After an outage the other workers get time to renew theirs, too.
            _every(
                settings.worker.sweep_seconds,
                _sweep(container, receiver),
                after_failure=settings.worker.heartbeat_seconds * 1.5,
            ),
            _every(settings.worker.sweep_seconds, _sweep_syncs(container, receiver)),
            _every(PURGE_SECONDS, container.purge_expired()),
            _every(ERASE_SECONDS, container.erase_deleted()),
            _beside(container.watch_setup().check),
        ):
            await receiver.listen(signals.stop)
            async with until(signals.at_once):
                # The rest is for returning unfinished replies to the queue and for closing connections.
                await receiver.drain(settings.http.shutdown_seconds * 0.8)
            await receiver.drain(0)
    log.info("worker_stopped")


async def _beat() -> None:
    health.seen(health.LOOP)


def _sweep(container: Container, receiver: JobReceiver) -> Callable[[], Awaitable[None]]:
    recover, leases = container.recover_replies(), container.leases()

    async def sweep() -> None:
        try:
            # Our own lease first: after an outage of the database it has expired although we are alive.
            await leases.renew()
            receiver.run_now(GENERATE_REPLY, await recover())
            health.seen(health.DATABASE)
        finally:
            health.seen(health.SWEEP)

    return sweep


def _sweep_syncs(container: Container, receiver: JobReceiver) -> Callable[[], Awaitable[None]]:
    resume = container.resume_syncs()

    async def sweep_syncs() -> None:
        receiver.run_now(SYNC_SUBSCRIPTIONS, await resume())

    return sweep_syncs


def _handlers(container: Container) -> dict[str, Callable[[Any], Awaitable[None]]]:
    """By the name of the job."""
    generate_reply, sync_subscriptions = container.generate_reply(), container.sync_subscriptions()

    async def answer(message_id: MessageId) -> None:
        with structlog.contextvars.bound_contextvars(message_id=str(message_id)):
            status = await generate_reply(message_id=message_id)
            if status is not None:
                metrics.MESSAGES_ATTEMPTED.labels(status).inc()
                log.info("message_attempted", status=status)

    async def sync(user_id: UserId) -> None:
        if await sync_subscriptions(user_id=user_id):
            log.info("subscriptions_read", user_id=str(user_id))

    return {GENERATE_REPLY: answer, SYNC_SUBSCRIPTIONS: sync}


def run(settings: Settings, *, workers: int) -> int:
    """Run one worker in this process, or supervise several. Raises RedisMisconfigured."""
    configure_logs(settings)
    refuse_mistakes(settings)
    with metrics.shared() if workers > 1 else contextlib.nullcontext():
        if settings.metrics_port:
            probes = health.WorkerHealth(settings).probes
            metrics.listen(settings.host, settings.metrics_port, probes=probes)
        if workers > 1:
            return Supervisor(_run_one, [settings], processes=workers).run()
        _run_one(settings)
        return 0


def _run_one(settings: Settings) -> None:
    configure_logs(settings)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work(settings))


@contextlib.asynccontextmanager
async def _beside(action: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run the action once, concurrently with the block, which does not wait for it."""
    task = asyncio.ensure_future(action())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@contextlib.asynccontextmanager
async def _every(
    seconds: float, action: Callable[[], Awaitable[object]], *, after_failure: float = 0
) -> AsyncIterator[None]:
    """Repeat the action concurrently with the block. After a failure it is simply tried again."""
    name = getattr(action, "__name__", type(action).__name__)

    async def repeat() -> None:
        pause = seconds
        while True:
            await asyncio.sleep(pause)
            pause = seconds
            try:
                await action()
            except Unavailable as error:
                pause = max(seconds, after_failure)
                log.warning("action_postponed", action=name, code=error.code)
            except Exception:
                log.exception("action_failed", action=name)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
