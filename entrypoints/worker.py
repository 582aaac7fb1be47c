"""The worker process: takes jobs, keeps leases, sweeps, and drains when told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from adapters.taskiq import JobReceiver
from domain.errors import Unavailable
from domain.ids import MessageId
from entrypoints.container import Container, running
from entrypoints.settings import Settings
from entrypoints.telemetry import configure_logs

log = structlog.get_logger(__name__)


async def work(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Run until `stop` is set or SIGTERM or SIGINT arrives, then let running replies end.

    Leases are renewed while draining; what does not end in time goes back to the queue.
    """
    stop = stop or _stop_at_signal()
    container = Container(settings=settings)
    generate_reply = container.generate_reply()

    async def answer(message_id: MessageId) -> None:
        with structlog.contextvars.bound_contextvars(message_id=str(message_id)):
            status = await generate_reply(message_id=message_id)
            if status is not None:
                log.info("message_attempted", status=status)

    async with running([*container.resources(), container.language_model()]):
        receiver = JobReceiver(container.broker(), answer, concurrency=settings.worker_concurrency)
        log.info("worker_started")
        async with (
            _every(settings.heartbeat_seconds, container.leases().renew),
            _every(settings.sweep_seconds, container.recover_replies()),
        ):
            await receiver.listen(stop)
            # A reserve for handing back what does not end and for closing connections.
            await receiver.drain(settings.shutdown_seconds * 0.8)
    log.info("worker_stopped")


def run(settings: Settings, *, workers: int) -> int:
    """Work in this process, or look after several that do."""
    if workers == 1:
        _run_one(settings)
        return 0
    return _Supervisor(settings, workers).run()


def _run_one(settings: Settings) -> None:
    configure_logs(settings)
    if multiprocessing.parent_process():
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work(settings))


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


class _Supervisor:
    """Keeps so many worker processes alive until it is told to stop."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._settings = settings
        self._spawn = multiprocessing.get_context("spawn")
        self._stopping = False
        self._children = [self._start() for _ in range(workers)]

    def run(self) -> int:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        while not self._stopping:
            multiprocessing.connection.wait([child.sentinel for child in self._children], timeout=1)
            for index, child in enumerate(self._children):
                if not child.is_alive() and not self._stopping:
                    log.warning("worker_died", exit_code=child.exitcode)
                    time.sleep(1)  # a worker that cannot even start must not spin
                    self._children[index] = self._start()
        for child in self._children:
            child.join()
        return 0

    def _start(self) -> multiprocessing.process.BaseProcess:
        child = self._spawn.Process(target=_run_one, args=[self._settings])
        child.start()
        return child

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for child in self._children:
            child.terminate()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it does not exist for Windows
        return None
    return uvloop.new_event_loop


def _stop_at_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop


@contextlib.asynccontextmanager
async def _every(seconds: float, action: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Repeat an action beside the block. It may fail: the next time is soon enough."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await action()
            except Unavailable as error:
                log.warning("action_postponed", action=type(action).__name__, code=error.code)
            except Exception:
                log.exception("action_failed", action=type(action).__name__)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
