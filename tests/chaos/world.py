"""The whole product as real processes, which a scenario may kill, freeze, stop and restart."""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from adapters.postgres.accounts import PostgresSessions, PostgresUsers
from adapters.postgres.chatrooms import PostgresChatrooms
from adapters.postgres.migrate import migrate
from adapters.security import HmacNumberDigests, HmacRefreshTokens, JwtAccessTokens
from adapters.system import SystemClock, TimeOrderedIds
from application.accounts.sessions import OpenSession
from application.chat.chatrooms import CreateChatroom
from domain.accounts import Device, MobileNumber, User
from domain.billing import FOREVER, Tier
from domain.ids import UserId
from local.postgres import EmbeddedPostgres
from local.valkey import EmbeddedValkey
from tests.chaos.client import Client, Person
from tests.support.database import connected, run_apart
from tests.support.gemini_standin import GeminiStandIn, start_gemini_standin
from tests.support.ports import free_port
from tests.support.processes import ProductProcess, wait_for_api

_numbers = itertools.count()


class World:
    """Postgres, Valkey, the stand-in for Gemini, and the API and worker processes that a scenario starts."""

    def __init__(
        self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, gemini: GeminiStandIn, **settings: str
    ) -> None:
        self.folder = folder
        self.postgres = postgres
        self.valkey = valkey
        self.gemini = gemini
        self.apis: dict[str, ProductProcess] = {}
        self.workers: list[ProductProcess] = []
        self._clients: list[Client] = []
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

    @property
    def urls(self) -> list[str]:
        return list(self.apis)

    def client(self) -> Client:
        """A client of all API processes that run now; closed with the world."""
        self._clients.append(Client(self.urls))
        return self._clients[-1]

    async def start_api(self, url: str | None = None, *, workers: int = 1, **settings: str) -> str:
        """Start another API, by default in one process on a free port. Returns its URL once it answers."""
        url = url or f"http://127.0.0.1:{free_port()}"
        port = url.rsplit(":", 1)[1]
        arguments = ("--port", port, "--workers", str(workers))
        log = self.folder / f"api-{port}.log"
        process = ProductProcess("serve", {**self.environment, **settings}, *arguments, log=log)
        self.apis[url] = process
        await asyncio.to_thread(wait_for_api, url, process.process, seconds=60)
        return url

    def start_worker(self, **settings: str) -> ProductProcess:
        worker = ProductProcess("worker", {**self.environment, **settings}, log=self.folder / "workers.log")
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: ProductProcess) -> tuple[str, float]:
        """Returns its name in the database and the time of its death."""
        worker.kill()
        self.workers.remove(worker)
        return name_of(worker), time.time()

    async def workers_ready(self, *, seconds: float = 60) -> None:
        """Wait until each worker has connected to the database, and so accepts jobs."""
        give_up = time.monotonic() + seconds
        wanted = {name_of(worker) for worker in self.workers}
        while wanted - {
            row["name"] for row in await self.fetch("SELECT DISTINCT application_name AS name FROM pg_stat_activity")
        }:
            alive = all(worker.process.poll() is None for worker in self.workers)
            assert alive and time.monotonic() < give_up, f"workers did not start: {self.log_of_workers()}"  # noqa: PT018
            await asyncio.sleep(0.1)

    def log_of_workers(self) -> str:
        return (self.folder / "workers.log").read_text(errors="replace")[-2000:]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for process in [*self.apis.values(), *self.workers]:
            process.signal(signal.SIGKILL)
            process.process.wait()

    async def people(self, count: int, *, tier: Tier = Tier.BASIC) -> list[Person]:
        """Users with a session and a room each, created by the product's code without one-time codes."""
        clock, ids = SystemClock(), TimeOrderedIds()
        tokens = JwtAccessTokens(secrets=[self.environment["ACCESS_TOKEN_SECRET"]], lifetime_seconds=7200, clock=clock)
        sign_in = OpenSession(
            sessions=PostgresSessions(),
            access_tokens=tokens,
            refresh_tokens=HmacRefreshTokens(key=b""),
            clock=clock,
            ids=ids,
        )
        create_room = CreateChatroom(chatrooms=PostgresChatrooms(), clock=clock, ids=ids)
        pro_until = FOREVER if tier is Tier.PRO else None
        made = []
        async with connected(self.postgres.url):
            for _ in range(count):
                mobile = MobileNumber(f"+9198{next(_numbers):08d}")
                user = User(
                    id=UserId(ids.new()), mobile=mobile, name="Asha", pro_until=pro_until, created_at=clock.now()
                )
                await PostgresUsers(HmacNumberDigests(key=b"key")).add(user)
                token = (await sign_in(user=user, device=Device(), is_known=False)).access.token
                made.append(Person(str(user.id), token, str((await create_room(user=user, name="A room")).id)))
        return made

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

    async def model_log(self) -> dict[str, Any]:
        """The log of the stand-in, read without blocking the load."""
        return await asyncio.to_thread(self.gemini.log)


def name_of(process: ProductProcess) -> str:
    """The name by which the database knows a process."""
    return f"gemini-backend {process.process.pid}"


@functools.cache
def _migrated_cluster() -> Path:
    """A migrated cluster that each world copies: making one takes a second of CPU, a copy next to nothing."""
    folder = Path(tempfile.mkdtemp(prefix="gemini-chaos-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with EmbeddedPostgres(folder) as url:
        run_apart(migrate(url))
    return folder / "cluster"


@asynccontextmanager
async def world(*, apis: int = 1, workers: int = 1, **settings: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gemini-chaos-")))
        postgres, valkey = EmbeddedPostgres(folder / "postgres"), EmbeddedValkey(folder / "valkey")
        standin = start_gemini_standin("--first-chunk-seconds", "0", "--chunk-seconds", "0")
        stack.push_async_callback(asyncio.to_thread, postgres.stop)
        stack.push_async_callback(asyncio.to_thread, valkey.stop)
        stack.callback(standin.close)
        cluster = await asyncio.to_thread(_migrated_cluster)
        await asyncio.to_thread(shutil.copytree, cluster, folder / "postgres" / "cluster")
        _, _, gemini = await asyncio.gather(
            asyncio.to_thread(postgres.start), asyncio.to_thread(valkey.start), asyncio.to_thread(next, standin)
        )
        made = World(folder, postgres, valkey, gemini, **settings)
        stack.callback(made.close)
        for _ in range(workers):
            made.start_worker()
        await asyncio.gather(*(made.start_api() for _ in range(apis)))
        await made.workers_ready()
        yield made
