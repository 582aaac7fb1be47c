"""The committed files are what the sources build."""

from __future__ import annotations

import subprocess

from tests.browser.conftest import WEB


def test_dist_is_what_src_builds_and_the_types_hold(npm: str) -> None:
    done = subprocess.run([npm, "run", "--silent", "check"], cwd=WEB, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (WEB / "package-lock.json").read_text()
