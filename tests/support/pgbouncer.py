"""PgBouncer itself, where it can be had: installed, or unpacked from Debian's packages, which takes no root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.patience import PROCESS_HANG
from tests.support.pooler import through
from tests.support.ports import free_port
from tests.support.processes import ROOT

_CACHE = ROOT / ".venv" / "pgbouncer"
_PACKAGES = ("pgbouncer", "libevent-2.1-7", "libcares2", "libc-ares2")

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


@cache
def pgbouncer() -> Path | None:
    """Its binary, or None if this machine has none and cannot get one."""
    if found := shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"):
        return Path(found)
    unpacked = _CACHE / "usr" / "sbin" / "pgbouncer"
    if not unpacked.exists() and shutil.which("apt-get") and shutil.which("dpkg"):
        with tempfile.TemporaryDirectory() as folder:
            for package in _PACKAGES:  # of the two names of a library one exists
                subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, timeout=60)
            for file in Path(folder).glob("*.deb"):
                subprocess.run(["dpkg", "-x", file, _CACHE], check=True, capture_output=True)
    works = unpacked.exists() and subprocess.run([unpacked, "--version"], env=_environment(), capture_output=True)
    return unpacked if works and works.returncode == 0 else None


def _environment() -> dict[str, str]:
    libraries = ":".join(str(folder) for folder in _CACHE.glob("usr/lib/*-linux-gnu"))
    return {"PATH": os.defpath, "LD_LIBRARY_PATH": libraries}


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
                [*ordinary, binary, folder / "pgbouncer.ini"], env=_environment(), stdout=log, stderr=log
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
