"""Processes of this machine: in sessions of their own, ended for sure, never alive for longer than who started them.

Two facts of the kernel carry all of it. A file lock belongs to every process that inherited its descriptor, so a free
lock proves that a server and all its children are gone, whatever a stale pid file says. And a pipe reads as ended once
its last writer is gone, `kill -9` included, so whoever waits on it learns of its parent's end.
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import os
import runpy
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol

PARENT_VARIABLE = "GEMINI_BACKEND_PARENT_FD"
LOCALHOST = "127.0.0.1"
LARGEST_LOG_BYTES = 10_000_000


class LocalServerError(Exception):
    """Something of this machine cannot be started: one clear line for the person at the terminal."""


# --- ports and files ---------------------------------------------------------------------------------------------


def free_port(host: str = LOCALHOST) -> int:
    with socket.create_server((host, 0), family=_family(host)) as listener:
        return int(listener.getsockname()[1])


def port_is_free(port: int, host: str = LOCALHOST) -> bool:
    """Raises OSError when host is no address of this machine or the port may not be used."""
    try:
        with socket.create_server((host, port), family=_family(host)):
            return True
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise


def _family(host: str) -> socket.AddressFamily:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]


def write_private(path: Path, text: str) -> None:
    """Readable by its owner alone, and either wholly there or not at all."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)


def kept_secret(path: Path) -> str:
    """The secret in this file, made at random the first time."""
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path.read_text()


def packaged(package: str, *parts: str) -> Path | None:
    """A path inside an installed package, found without running its code; None where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], *parts)


def log_tail(log: Path, lines: int = 15) -> str:
    if not log.exists():
        return ""
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])


# --- locks -------------------------------------------------------------------------------------------------------


def try_lock(path: Path, *, patience: float = 0) -> int | None:
    """A descriptor that holds the lock on this file; None if somebody else still has it after `patience` seconds."""
    import fcntl  # does not exist on Windows, where exit_with_parent() must still import

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        else:
            return descriptor


# --- children ----------------------------------------------------------------------------------------------------


@functools.cache
def lifeline() -> int:
    """The read end of a pipe that ends with this process.

    The write end is left open on purpose and never inherited: it must exist in this process alone.
    """
    read_end, _ = os.pipe()
    return read_end


def exit_with_parent(grace: float = 5) -> None:
    """To be called first thing by a child: once its parent is gone, it stops as by SIGTERM.

    After `grace` seconds it ends by force. Does nothing in a process that was started by hand. For a program that does
    not call this: `python -m local.processes its.module …`.
    """
    # Taken out of the environment: in a grandchild the same number would be another file.
    value = os.environ.pop(PARENT_VARIABLE, "")
    if not value:
        return
    descriptor = int(value)
    os.set_inheritable(descriptor, False)

    def watch() -> None:
        os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        # The group holds Sanic's worker processes too; without a group of its own only this process is ours to end.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


@dataclass(frozen=True)
class RunAs:
    """How to become somebody else than root: a command put in front, or a user to change to."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


MYSELF = RunAs()


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str],
    inherit: Sequence[int] = (),
    cwd: Path | None = None,
    run_as: RunAs = MYSELF,
) -> subprocess.Popen[bytes]:
    """In a session of its own: the terminal's Ctrl-C does not reach it, and its group can be ended as a whole."""
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
    """Asks, waits `grace` seconds, then ends it and all that is left of its group by force."""
    if process.poll() is None:
        process.send_signal(first)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    kill_group(process.pid)
    process.wait()


def kill_group(leader: int) -> None:
    # macOS answers "not permitted" for a group of which only the unreaped leader is left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


class Service(Protocol):
    """What `up` starts, watches and stops."""

    name: str
    log: Path

    @abstractmethod
    def start(self) -> object: ...

    @abstractmethod
    def stop(self) -> None: ...

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Also the number of its process group; None while it is not started."""

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """None while it runs and before it was started."""


class Program(Service):
    """A Python program, which calls exit_with_parent() or has it called."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        grace: float,
        inherit: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = environment
        self._grace = grace
        self._inherit = inherit
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.stop()  # what a leader that died by itself left of its group
        self._process = spawn(
            self._command,
            log=self.log,
            environment={**self._environment, PARENT_VARIABLE: str(lifeline()), "PYTHONUNBUFFERED": "1"},
            inherit=[lifeline(), *self._inherit],
        )

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, grace=self._grace)
        self._process = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()


# --- servers -----------------------------------------------------------------------------------------------------


class EmbeddedServer(Service, ABC):
    """A server from a wheel, on 127.0.0.1, with its data, password and log in one folder.

    Data outlives stop() and `kill -9`. It keeps its port over stop() and start(), so that clients find it again. A
    server that was left running on the same data is stopped first. Use start() and stop(), or `with`.
    """

    name: str
    binary: ClassVar[str]

    def __init__(self, data_dir: Path, *, log: Path | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.log = (log or data_dir / f"{self.name.lower()}.log").absolute()
        self.port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def start(self, port: int | None = None) -> str:
        """Returns the URL once the server answers. Raises LocalServerError."""
        self.stop()
        wanted = port or self.port
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = self._sole_use()
        try:
            self._prepare(lock)
            patience = time.monotonic() + 10
            while not self._launch(wanted or free_port(), lock):
                if time.monotonic() > patience:
                    raise LocalServerError(f"port {self.port} is taken; {self.name} cannot start on it")
                time.sleep(0.2)
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(lock)  # the server's own copy is the one that counts
        return self.url

    def stop(self) -> None:
        """Lets it finish what it is writing; does nothing if it does not run."""
        self._end(functools.partial(stop, first=signal.SIGINT, grace=20))

    def kill(self) -> None:
        """As a power cut would: `kill -9`."""
        self._end(kill)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    @abstractmethod
    def url(self) -> str: ...

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """The server writes its process id into its first line."""

    @abstractmethod
    def _prepare(self, lock: int) -> None:
        """Makes the data folder fit to be started on; `lock` is for helpers to inherit."""

    @abstractmethod
    def _spawn(self, port: int, lock: int) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _is_ready(self, process: subprocess.Popen[bytes], port: int) -> bool: ...

    def _launch(self, port: int, lock: int) -> bool:
        """False if somebody else has the port."""
        self.port = port
        self._process = process = self._spawn(port, lock)
        self._watcher = _interrupt_when_we_are_gone(process.pid)
        deadline = time.monotonic() + 60  # recovery after a crash may take a while
        while not self._is_ready(process, port):
            if (code := process.poll()) is not None:
                if not port_is_free(port):
                    self.kill()
                    return False
                raise LocalServerError(f"{self.name} ended while starting, exit code {code}; its log is {self.log}")
            if time.monotonic() > deadline:
                raise LocalServerError(f"{self.name} did not become ready in time; its log is {self.log}")
            time.sleep(0.01)
        return True

    def _sole_use(self) -> int:
        """The lock that the server and its children hold while one of them lives."""
        path = self.data_dir / "lock"
        lock = try_lock(path)
        # Whoever started the old one was killed: no use in adopting a server that is nobody's child any more.
        for name in (signal.SIGINT, signal.SIGKILL):
            if lock is None:
                self._signal_old_server(name)
                lock = try_lock(path, patience=15)
        if lock is None:
            raise LocalServerError(f"an older {self.name} still runs on {self.data_dir} and cannot be stopped; end it")
        # Nobody lives who could have written it; its number may since be a stranger's, and Postgres would heed that.
        self._pid_file.unlink(missing_ok=True)
        return lock

    def _signal_old_server(self, name: signal.Signals) -> None:
        with suppress(OSError, ValueError, IndexError):
            pid = int(self._pid_file.read_text().splitlines()[0])
            if self.binary in _command_line(pid):
                os.kill(pid, name)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        if self._process is not None:
            how(self._process)
        if self._watcher is not None:
            kill(self._watcher)
        self._process = self._watcher = None


def _interrupt_when_we_are_gone(pid: int) -> subprocess.Popen[bytes]:
    """The servers know nothing of our pipe, so a shell waits on it in their place."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read _; kill -INT "$0"', str(pid)],
        stdin=lifeline(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _command_line(pid: int) -> str:
    if Path("/proc/self").exists():
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout


if __name__ == "__main__":
    exit_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
