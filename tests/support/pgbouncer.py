"""PgBouncer itself, where it can be had."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.debian import environment, program
from tests.support.patience import PROCESS_HANG
from tests.support.pooler import through
from tests.support.ports import free_port

CONFIGURATION = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
"""


def pgbouncer() -> Path | None:
    return program("pgbouncer", "pgbouncer", "libevent-2.1-7", "libcares2", "libc-ares2", version="--version")


@contextmanager
def pgbouncer_server(binary: Path, database_url: str) -> Iterator[str]:
    """In front of a server: the URL of the database through it."""
    parts, port = urlsplit(database_url), free_port()
    with tempfile.TemporaryDirectory(prefix="gemini-pgbouncer-") as name:
        folder = Path(name)
        password = unquote(parts.password or "")
        (folder / "users").write_text(f'"{unquote(parts.username or "")}" "{password}"\n')
        (folder / "pgbouncer.ini").write_text(
            CONFIGURATION.format(host=parts.hostname, server_port=parts.port or 5432, port=port, folder=folder)
        )
        # It refuses to run as root, which in a user namespace only looks like somebody else.
        ordinary = ["unshare", "--user", "--map-user=1000", "--"] if os.geteuid() == 0 else []
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*ordinary, binary, folder / "pgbouncer.ini"], env=environment("pgbouncer"), stdout=log, stderr=log
            )
        try:
            _wait_for(port, process, folder / "log")
            yield through(database_url, port)
        finally:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + PROCESS_HANG
    while time.monotonic() < give_up:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(log.read_text())
