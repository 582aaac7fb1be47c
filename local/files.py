"""Files, locks and ports of this machine."""

from __future__ import annotations

import errno
import importlib.util
import os
import secrets
import socket
import time
from pathlib import Path

LOCALHOST = "127.0.0.1"


class LocalServerError(Exception):
    """Something cannot be started on this machine. The message is one clear line for the person at the terminal."""


def free_port(host: str = LOCALHOST) -> int:
    with socket.create_server((host, 0), family=_family(host)) as listener:
        return int(listener.getsockname()[1])


def port_is_free(port: int, host: str = LOCALHOST) -> bool:
    """Raises OSError if host is not an address of this machine or the port may not be used."""
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
    """Write a file that only its owner can read. It appears complete or not at all."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)


def kept_secret(path: Path) -> str:
    """The secret in this file, generated the first time."""
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path.read_text()


def packaged(package: str, *parts: str) -> Path | None:
    """A path inside an installed package, found without running its code; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], *parts)


def log_tail(log: Path, lines: int = 15) -> str:
    if not log.exists():
        return ""
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])


def try_lock(path: Path, *, timeout: float = 0) -> int | None:
    """A descriptor that holds the lock on this file; None if another process still has it after `timeout` seconds."""
    import fcntl  # does not exist on Windows, where exit_with_parent() must still import

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + timeout
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
