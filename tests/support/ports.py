"""Ports for servers that cannot let the kernel choose one."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from pathlib import Path

from local.files import port_is_free

#: Below those that the kernel assigns to other connections and servers.
_CANDIDATES = range(12_000, 32_000)
_locks: list[int] = []


def free_port() -> int:
    """A port of 127.0.0.1 that no other test, in any process, gets while this process lives."""
    folder = Path(tempfile.gettempdir(), f"gemini-test-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    while True:
        port = random.choice(_CANDIDATES)
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _locks.append(lock)
        if port_is_free(port):
            return port
