"""Several processes of one kind, kept alive until told to stop.

Sanic's own manager does neither: a killed process stays away, and after that SIGTERM no longer ends the rest.
"""

from __future__ import annotations

import multiprocessing.connection
import multiprocessing.process
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Supervisor:
    """Runs `target` in so many spawned processes; whatever it is given must be picklable."""

    def __init__(
        self,
        target: Callable[..., None],
        arguments: Sequence[Any],
        *,
        processes: int,
        let_go: Callable[[], object] = lambda: None,
    ) -> None:
        """`let_go` gives up what this process holds for its children, once it is told to stop."""
        self._spawn = multiprocessing.get_context("spawn")
        self._target = target
        self._arguments = arguments
        self._processes = processes
        self._let_go = let_go
        self._children: list[multiprocessing.process.BaseProcess] = []
        self._told: list[multiprocessing.process.BaseProcess] = []
        self._stopping = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT, which the processes then get too. Returns the exit code."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        self._children = [self._start() for _ in range(self._processes)]
        while not self._stopping:
            multiprocessing.connection.wait([child.sentinel for child in self._children], timeout=1)
            self._replace_the_dead()
        # Once more: the signal may have come while a process was being started.
        self._terminate()
        for child in self._children:
            child.join()
        return 0

    def _replace_the_dead(self) -> None:
        for index, child in enumerate(self._children):
            if child.is_alive() or self._stopping:
                continue
            log.warning("process_died", exit_code=child.exitcode)
            time.sleep(1)  # one that cannot even start must not spin
            if not self._stopping:
                self._children[index] = self._start()

    def _start(self) -> multiprocessing.process.BaseProcess:
        child = self._spawn.Process(target=_run, args=[self._target, *self._arguments])
        child.start()
        return child

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._let_go()
        self._terminate()

    def _terminate(self) -> None:
        for child in self._children:
            if child not in self._told:  # twice would mean at once, and cut what is being finished
                self._told.append(child)
                child.terminate()


def _run(target: Callable[..., None], *arguments: Any) -> None:
    if hasattr(os, "setpgrp"):  # a terminal's Ctrl-C is for the supervisor alone
        os.setpgrp()
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    target(*arguments)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
