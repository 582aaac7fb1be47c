"""The product's processes: started, observed and killed as an operator would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.support.patience import PROCESS_HANG
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]


class ProductProcess:
    """`gemini-backend serve` or `worker`, in its own process group."""

    def __init__(self, command: str, environment: Mapping[str, str], *arguments: str, log: Path | None = None) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        with (log or Path(os.devnull)).open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "entrypoints.cli", command, *arguments],
                cwd=ROOT,
                env={**inherited, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        """Signal the process and its group. A supervisor's children have their own groups and stop when it does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, *, within: float = PROCESS_HANG) -> int:
        """Send SIGTERM to the process alone, as a supervisor does; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=within)


@contextmanager
def api_process(
    environment: Mapping[str, str], *, workers: int = 1, log: Path | None = None
) -> Iterator[tuple[str, ProductProcess]]:
    """The API on a free port: its base URL and its process."""
    port = free_port()
    process = ProductProcess("serve", environment, "--port", str(port), "--workers", str(workers), log=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_api(url, process.process)
        yield url, process
    finally:
        process.kill()


@contextmanager
def worker_process(environment: Mapping[str, str], *, log: Path | None = None) -> Iterator[ProductProcess]:
    process = ProductProcess("worker", environment, log=log)
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def whole_product(**environment: str) -> Iterator[str]:
    """What `make run` starts, on a free port and with new data; yields its URL. Rate limits are off by default."""
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder:
        port, log = free_port(), Path(folder, "output")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "entrypoints.cli", "up"],
                cwd=ROOT,
                env={
                    "PATH": os.environ["PATH"],
                    "DATA_DIR": f"{folder}/data",
                    "PORT": str(port),
                    "RATE_LIMITS": "off",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            deadline = time.monotonic() + PROCESS_HANG
            while "Ctrl-C stops everything" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PROCESS_HANG)


def wait_for_api(url: str, process: subprocess.Popen[bytes], *, seconds: float = PROCESS_HANG) -> None:
    give_up = time.monotonic() + seconds
    while True:
        assert process.poll() is None, f"the API ended with {process.returncode}"
        try:
            with urlopen(f"{url}/health", timeout=10):  # noqa: S310 - our own process on loopback
                return
        except (URLError, OSError):
            assert time.monotonic() < give_up, f"the API did not answer within {seconds} s"
            time.sleep(0.05)
