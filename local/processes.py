"""Child processes: each in its own session, and none that outlives the process that started it.

This relies on two facts of the kernel. A file lock belongs to every process that inherited its descriptor, so a free
lock proves that a server and all its children are gone, whatever a stale pid file says. And a pipe reports its end when
its last writer is gone, even by `kill -9`, so a child that waits on it learns that its parent has ended.
"""

from __future__ import annotations

import functools
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PARENT_VARIABLE = "GEMINI_BACKEND_PARENT_FD"
LARGEST_LOG_BYTES = 10_000_000


@functools.cache
def lifeline() -> int:
    """The read end of a pipe that ends with this process.

    The write end is never inherited and never closed: only the end of this process closes it.
    """
    read_end, _ = os.pipe()
    return read_end


def exit_with_parent(grace: float = 5) -> None:
    """Called first by a child: once its parent is gone, it stops as on SIGTERM, and after `grace` seconds by force.

    Does nothing in a process that was started by hand. `python -m local.processes its.module …` runs a program that
    does not call this.
    """
    # Removed from the environment: in a grandchild the same number would be another file.
    value = os.environ.pop(PARENT_VARIABLE, "")
    if not value:
        return
    descriptor = int(value)
    os.set_inheritable(descriptor, False)

    def watch() -> None:
        os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        # The group includes Sanic's worker processes. Without our own group we may end only this process.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


@dataclass(frozen=True)
class RunAs:
    """How to run as a user other than root: with a command in front, or as another user."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


CURRENT_USER = RunAs()


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str],
    inherit: Sequence[int] = (),
    cwd: Path | None = None,
    run_as: RunAs = CURRENT_USER,
) -> subprocess.Popen[bytes]:
    """Start a process in its own session: Ctrl-C does not reach it, and its whole group can be ended."""
    log.parent.mkdir(parents=True, exist_ok=True)
    too_large = log.exists() and log.stat().st_size > LARGEST_LOG_BYTES
    with log.open("wb" if too_large else "ab") as output:
        return subprocess.Popen(
            [*run_as.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=cwd,
            pass_fds=inherit,
            start_new_session=True,
            user=run_as.user,
            group=run_as.group,
            extra_groups=None if run_as.user is None else [],
        )


def stop(process: subprocess.Popen[bytes], *, first: signal.Signals = signal.SIGTERM, grace: float) -> None:
    """Send a signal, wait up to `grace` seconds, then kill the process and what is left of its group."""
    if process.poll() is None:
        process.send_signal(first)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    kill_group(process.pid)
    process.wait()


def kill_group(leader: int) -> None:
    # macOS answers "not permitted" for a group with only an unreaped leader.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    exit_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
