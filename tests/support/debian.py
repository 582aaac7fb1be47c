"""Programs of Debian: installed ones, or unpacked from its packages, which takes no root."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.support.processes import ROOT

_UNPACKED = ROOT / ".venv" / "debian"


@cache
def program(name: str, *packages: str, version: str) -> Path | None:
    """Its binary, or None if this machine has none and cannot get one: the same for all processes of a run.

    `packages` are its own and its libraries', of which not every release has each; `version` is the option that shows
    its version.
    """
    if found := shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"):
        return Path(found)
    folder = _UNPACKED / name
    _UNPACKED.mkdir(exist_ok=True)
    with (_UNPACKED / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait for the one that downloads
        if not folder.exists():
            _unpack(packages, folder)
    binary = folder / "usr" / "sbin" / name
    works = binary.exists() and subprocess.run([binary, version], env=environment(name), capture_output=True)
    return binary if works and works.returncode == 0 else None


def environment(name: str) -> dict[str, str]:
    """What the program runs with: its libraries, if it is unpacked."""
    libraries = ":".join(str(folder) for folder in (_UNPACKED / name).glob("usr/lib/*-linux-gnu"))
    return {"PATH": os.defpath, "LD_LIBRARY_PATH": libraries}


def _unpack(packages: Sequence[str], folder: Path) -> None:
    """Leaves the folder, empty if nothing could be had: the next try is after `make clean`."""
    with tempfile.TemporaryDirectory(dir=_UNPACKED) as name:
        downloads, unpacked = Path(name, "downloads"), Path(name, "unpacked")
        downloads.mkdir()
        unpacked.mkdir()
        with suppress(OSError, subprocess.SubprocessError):  # no apt-get, no dpkg, no network
            for package in packages:
                subprocess.run(["apt-get", "download", package], cwd=downloads, capture_output=True, timeout=60)
            for file in downloads.glob("*.deb"):
                subprocess.run(["dpkg", "-x", file, unpacked], check=True, capture_output=True)
        unpacked.rename(folder)
