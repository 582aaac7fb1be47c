"""The whole product as real processes that a scenario may kill, stop and start again."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from adapters.postgres.migrate import migrate
from entrypoints.local.postgres import EmbeddedPostgres
from entrypoints.local.processes import free_port
from entrypoints.local.valkey import EmbeddedValkey
from tests.gemini_standin import GeminiStandIn, start_gemini_standin
from tests.processes import ProductProcess, wait_for_api


class World:
    """Two servers, the stand-in for Gemini, and as many API and worker processes as a scenario asks for."""

    def __init__(
        self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, gemini: GeminiStandIn, **settings: str
    ) -> None:
        self.folder = folder
        self.postgres = postgres
        self.valkey = valkey
        self.gemini = gemini
        self.apis: dict[str, ProductProcess] = {}
        self.workers: list[ProductProcess] = []
        self.environment = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "ACCESS_TOKEN_SECRET": secrets.token_hex(32),
            "GEMINI_API_KEY": "stand-in",
            "GEMINI_BASE_URL": gemini.url,
            "RATE_LIMITS": "off",
            "LOG_LEVEL": "warning",
            **settings,
        }

    def start_api(self, url: str | None = None) -> str:
        """Another API process, on its own or on a given URL; returns where it serves, once it does."""
        url = url or f"http://127.0.0.1:{free_port()}"
        port = url.rsplit(":", 1)[1]
        process = ProductProcess("serve", self.environment, "--port", port, log=self.folder / f"api-{port}.log")
        self.apis[url] = process
        wait_for_api(url, process.process)
        return url

    def start_worker(self) -> ProductProcess:
        worker = ProductProcess("worker", self.environment, log=self.folder / "workers.log")
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for process in [*self.apis.values(), *self.workers]:
            process.kill()

    async def execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def fetch(self, sql: str, *values: object) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return [dict(row) for row in await connection.fetch(sql, *values)]
        finally:
            with suppress(OSError, asyncpg.PostgresError):
                await connection.close()


@asynccontextmanager
async def world(*, apis: int = 1, workers: int = 1, **settings: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gemini-chaos-")))
        postgres, valkey = EmbeddedPostgres(folder / "postgres"), EmbeddedValkey(folder / "valkey")
        stack.enter_context(postgres)
        stack.enter_context(valkey)
        standin = start_gemini_standin("--first-chunk-seconds", "0", "--chunk-seconds", "0")
        stack.callback(standin.close)
        gemini = next(standin)
        await migrate(postgres.url)
        made = World(folder, postgres, valkey, gemini, **settings)
        stack.callback(made.close)
        for _ in range(apis):
            made.start_api()
        for _ in range(workers):
            made.start_worker()
        yield made
