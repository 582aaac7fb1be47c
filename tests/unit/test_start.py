"""What the processes load at their start."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"aiohttp", "google.genai", "google.generativeai", "stripe", "taskiq", "taskiq_redis"}


def loaded_with(module: str) -> set[str]:
    """Of the heavy modules, in a new process."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("module", ["entrypoints.http.server.server", "entrypoints.http.server.app", "entrypoints.cli"])
def test_serve_loads_neither_a_vendors_sdk_nor_what_receives_jobs(module: str) -> None:
    assert loaded_with(module) == set()


def test_a_worker_receives_jobs_by_taskiq() -> None:
    assert {"taskiq", "taskiq_redis"} <= loaded_with("entrypoints.worker")
