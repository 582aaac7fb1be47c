"""A worker's own /health and /ready, on its METRICS_PORT."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.postgres import EmbeddedPostgres
from tests.e2e.test_commands import until_children
from tests.support.patience import HANG
from tests.support.ports import free_port
from tests.support.processes import ProductProcess


@contextmanager
def watched_worker(environment: dict[str, str], *, workers: int = 1) -> Iterator[tuple[ProductProcess, int]]:
    port = free_port()
    worker = ProductProcess("worker", {**environment, "METRICS_PORT": str(port)}, "--workers", str(workers))
    try:
        yield worker, port
    finally:
        worker.kill()


async def probed(port: int, path: str) -> tuple[int, Any]:
    """The status and the body; 0 if there is no answer, as for a process that is frozen as a whole."""
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            response = await client.get(f"http://127.0.0.1:{port}{path}")
        except httpx.TransportError:
            return 0, None
        return response.status_code, response.json()


async def until_it_says(port: int, path: str, status: int) -> Any:
    give_up = time.monotonic() + HANG
    while (found := await probed(port, path))[0] != status:
        assert time.monotonic() < give_up, found
        await asyncio.sleep(0.1)
    return found[1]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_worker_that_works(product: dict[str, str], workers: int) -> None:
    with watched_worker(product, workers=workers) as (_, port):
        for path, parts in (("/health", {"loop", "sweep"}), ("/ready", {"loop", "sweep", "database"})):
            body = await until_it_says(port, path, 200)
            assert body["status"] == "ok"
            assert body["secondsSince"].keys() == parts
        async with httpx.AsyncClient(trust_env=False, timeout=HANG) as client:
            metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        assert 'worker_seen_timestamp_seconds{part="sweep"}' in metrics
        assert "event_loop_lag_seconds_bucket" in metrics


async def test_a_frozen_process_is_not_healthy(product: dict[str, str]) -> None:
    with watched_worker(product) as (worker, port):
        await until_it_says(port, "/health", 200)
        worker.signal(signal.SIGSTOP)
        try:
            assert await probed(port, "/health") == (0, None)
        finally:
            worker.signal(signal.SIGCONT)
        await until_it_says(port, "/health", 200)


async def test_one_frozen_process_of_two_is_not_healthy(product: dict[str, str]) -> None:
    with watched_worker(product, workers=2) as (worker, port):
        await until_it_says(port, "/ready", 200)
        frozen = min(until_children(worker.process.pid, 2))
        os.kill(frozen, signal.SIGSTOP)
        try:
            body = await until_it_says(port, "/health", 503)
            assert body["status"].startswith("no sign of loop")
            assert body["secondsSince"]["loop"] > 5
        finally:
            os.kill(frozen, signal.SIGCONT)
        assert (await until_it_says(port, "/health", 200))["status"] == "ok"


async def test_a_worker_without_its_database_is_healthy_but_not_ready(product: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            environment = {**product, "DATABASE_URL": postgres.start()}
            assert ProductProcess("migrate", environment).process.wait() == 0
            with watched_worker(environment) as (_, port):
                await until_it_says(port, "/ready", 200)
                postgres.stop()
                body = await until_it_says(port, "/ready", 503)
                assert body["status"] == "no sign of database"
                assert (await probed(port, "/health"))[0] == 200
                postgres.start()
                await until_it_says(port, "/ready", 200)
        finally:
            postgres.stop()
