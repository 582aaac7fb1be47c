"""Runs several processes of one kind and restarts those that die.

Sanic's own manager does not: a killed process is not restarted, and SIGTERM then no longer ends the others.
"""

from __future__ import annotations

import multiprocessing.connection
import multiprocessing.process
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Supervisor:
    """Runs `target` in spawned processes; its arguments must be picklable."""

    def __init__(
        self,
        target: Callable[..., None],
        arguments: Sequence[Any],
        *,
        processes: int,
        on_stop: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_stop` releases what this process holds for its children, once it has to stop."""
        self._spawn = multiprocessing.get_context("spawn")
        self._target = target
        self._arguments = arguments
        self._processes = processes
        self._on_stop = on_stop
        self._children: list[multiprocessing.process.BaseProcess] = []
        self._terminated: list[multiprocessing.process.BaseProcess] = []
        self._stopping = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, then terminate the processes. A second SIGINT goes to them. Returns 0."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        self._children = [self._start() for _ in range(self._processes)]
        while not self._stopping:
            multiprocessing.connection.wait([child.sentinel for child in self._children], timeout=1)
            self._replace_the_dead()
        # Again: the signal may have arrived while a process was being started.
        self._terminate()
        for child in self._children:
            child.join()
        return 0

    def _replace_the_dead(self) -> None:
        for index, child in enumerate(self._children):
            if child.is_alive() or self._stopping:
                continue
            log.warning("process_died", exit_code=child.exitcode)
            time.sleep(1)  # a process that cannot start must not loop without a pause
            if not self._stopping:
                self._children[index] = self._start()

    def _start(self) -> multiprocessing.process.BaseProcess:
        child = self._spawn.Process(target=_run, args=[self._target, *self._arguments])
        child.start()
        return child

    def _stop(self, number: int, _: object) -> None:
        if self._stopping and number == signal.SIGINT:  # a person at a terminal does not want to wait
            self._interrupt()
            return
        self._stopping = True
        self._on_stop()
        self._terminate()

    def _interrupt(self) -> None:
        for child in self._terminated:
            if child.pid is not None and child.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGINT)

    def _terminate(self) -> None:
        for child in self._children:
            if child not in self._terminated:
                self._terminated.append(child)
                child.terminate()


def _run(target: Callable[..., None], *arguments: Any) -> None:
    if hasattr(os, "setpgrp"):  # a terminal's Ctrl-C is only for the supervisor
        os.setpgrp()
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    target(*arguments)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
