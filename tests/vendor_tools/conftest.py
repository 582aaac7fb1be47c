"""Tools that come from npm, each installed once at its version, in pytest's cache."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

#: The folder of the tools whose name and version, as npm writes them, are given.
Installed = Callable[..., Path]


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Installed:
    def install(*packages: str) -> Path:
        npm = shutil.which("npm")
        assert npm, "npm is needed to install " + " and ".join(packages)
        assert request.config.cache
        folder = request.config.cache.mkdir("-".join(packages).replace("@", "-").replace("/", "-").strip("-"))
        if not (folder / "installed").exists():
            options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--loglevel", "error"]
            subprocess.run([npm, "install", *options, "--prefix", folder, *packages], check=True)
            (folder / "installed").touch()
        return folder / "node_modules" / ".bin"

    return install
