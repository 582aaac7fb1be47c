"""Redis as others run it: behind a forwarder or TLS, with replicas, watched by Sentinels."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from local.files import write_private
from local.valkey import CONFIGURATION, EmbeddedValkey
from tests.support.patience import HANG

SERVICE = "replies"
PASSWORD = "100%-of:the/servers?p@ss#word"
SENTINEL_PASSWORD = "of-the-sentinels"
#: After which the Sentinels hold a server for dead.
DOWN_MILLISECONDS = 500


async def until_true(condition: Callable[[], Awaitable[bool]], *, seconds: float = HANG) -> None:
    """Errors of Redis count as not yet."""
    give_up = time.monotonic() + seconds
    while True:
        with suppress(RedisError, OSError, TimeoutError):
            if await condition():
                return
        assert time.monotonic() < give_up, f"did not come true within {seconds} s"
        await asyncio.sleep(0.02)


class LabValkey(EmbeddedValkey):
    """A server with a known password, so that replicas and Sentinels can log in to it."""

    def __init__(self, folder: Path, *, more: str = "", password: str = PASSWORD) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "password", password)
        # Valkey's quoting; braces are the template's.
        self.configuration = (
            CONFIGURATION.replace("requirepass {password}", 'requirepass "{password}"\nmasterauth "{password}"') + more
        )
        self._raw_password = password

    @property
    def url(self) -> str:
        return self.url_at(self.port or 0)

    def url_at(self, port: int, *, scheme: str = "redis") -> str:
        """Through a forwarder, for instance."""
        return f"{scheme}://:{quote(self._raw_password, safe='')}@127.0.0.1:{port}/0"

    @property
    def admin(self) -> Redis:
        """A client of this server, and not of what stands before it."""
        assert self.port is not None
        return Redis(host="127.0.0.1", port=self.port, password=self._raw_password, protocol=2)

    async def set(self, **options: object) -> None:
        async with self.admin as redis:
            for name, value in options.items():
                await redis.config_set(name.replace("_", "-"), str(value))

    async def follow(self, other: LabValkey | None) -> None:
        """Become the replica of another server, or a primary."""
        async with self.admin as redis:
            await (redis.replicaof("127.0.0.1", str(other.port)) if other else redis.replicaof("NO", "ONE"))

    async def has_caught_up(self) -> bool:
        async with self.admin as redis:
            info: Any = await redis.info("replication")
        return bool(info["role"] == "slave" and info["master_link_status"] == "up")

    async def connections(self) -> int:
        """Of others."""
        async with self.admin as redis:
            return len(await redis.client_list()) - 1


class LabSentinel(EmbeddedValkey):
    """A Sentinel with its own password, which watches SERVICE."""

    name = "Sentinel"
    arguments = ("--sentinel",)

    def __init__(self, folder: Path, watched: LabValkey, *, quorum: int) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "password", SENTINEL_PASSWORD)
        self.configuration = (
            "bind {host}\nport {port}\nrequirepass {password}\ndir ./\npidfile ./valkey.pid\n"
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {watched.port} {quorum}\n"
            f'sentinel auth-pass {SERVICE} "{PASSWORD}"\n'
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_MILLISECONDS}\n"
            f"sentinel failover-timeout {SERVICE} 1000\n"
        )

    def _is_ready(self, process: subprocess.Popen[bytes], port: int) -> bool:
        """A Sentinel does not know QUIT."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"AUTH {SENTINEL_PASSWORD}\r\nPING\r\n".encode())
            with connection.makefile("rb") as replies:
                return replies.read(12) == b"+OK\r\n+PONG\r\n"
        return False

    async def ask(self, *command: str) -> Any:
        async with Redis(host="127.0.0.1", port=self.port or 0, password=SENTINEL_PASSWORD, protocol=2) as redis:
            return await redis.execute_command("SENTINEL", *command)  # type: ignore[no-untyped-call]


class SentinelSet:
    """Two servers and three Sentinels that know each other."""

    def __init__(self, servers: list[LabValkey], sentinels: list[LabSentinel]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return (
            f"redis+sentinel://:{quote(PASSWORD, safe='')}@{hosts}/{SERVICE}?db=0&sentinel_password={SENTINEL_PASSWORD}"
        )

    async def primary(self) -> LabValkey:
        """As most of those Sentinels that answer see it."""
        seen = []
        for sentinel in self.sentinels:
            with suppress(RedisError, OSError):
                seen.append(int((await sentinel.ask("GET-MASTER-ADDR-BY-NAME", SERVICE))[1]))
        port = max(seen, key=seen.count)
        return next(server for server in self.servers if server.port == port)

    async def is_whole(self) -> bool:
        """Each Sentinel knows the other two and the replica, which has caught up: only now can one take over."""
        for sentinel in self.sentinels:
            (fields,) = await sentinel.ask("MASTERS")
            state = (
                {key.decode(): value for key, value in fields.items()} if isinstance(fields, dict) else _pairs(fields)
            )
            if int(state["num-other-sentinels"]) != 2 or int(state["num-slaves"]) != 1:
                return False
        primary = await self.primary()
        return all([await server.has_caught_up() for server in self.servers if server is not primary])

    async def fail_over(self) -> None:
        """As an operator orders it; again while the Sentinels are not ready for it, or gave up."""
        old = await self.primary()

        async def ordered() -> bool:
            if await self.primary() is not old:
                return True
            with suppress(ResponseError):  # NOGOODSLAVE, INPROG
                await self.sentinels[0].ask("FAILOVER", SERVICE)
            await asyncio.sleep(2)
            return False

        await until_true(ordered)

    async def moved_from(self, old: LabValkey) -> None:
        """Wait until the Sentinels name another server, which takes writes."""

        async def moved() -> bool:
            new = await self.primary()
            if new is old:
                return False
            async with new.admin as redis:
                return bool((await redis.info("replication"))["role"] == "master")

        await until_true(moved)


def _pairs(fields: Any) -> dict[str, Any]:
    flat = iter(fields)
    return {key.decode(): value for key, value in zip(flat, flat, strict=True)}


@contextmanager
def sentinel_set(folder: Path) -> Iterator[SentinelSet]:
    with ExitStack() as stack:
        servers: list[LabValkey] = []
        for number in range(2):
            # A replica from its start, so that the Sentinels find it with their first look, and not with the next.
            more = f"replicaof 127.0.0.1 {servers[0].port}\n" if servers else ""
            servers.append(LabValkey(folder / f"server-{number}", more=more))
            servers[-1].start()
            stack.callback(servers[-1].stop)
        sentinels = [LabSentinel(folder / f"sentinel-{number}", servers[0], quorum=2) for number in range(3)]
        for sentinel in sentinels:
            sentinel.start()
            stack.callback(sentinel.stop)
        yield SentinelSet(servers, sentinels)


class Forwarder:
    """A port that leads to a server. When it is moved, connections that exist stay with the old server, as behind many
    a load balancer; or with `tls`, it speaks TLS to its clients."""

    def __init__(self, target: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.port = 0
        self.says = b""
        """What clients hear instead of the server's answers, if it is set."""
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Forwarder:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        for relay in (self._relay_to_server(reader, back_writer, writer), _relay(back_reader, writer)):
            task = asyncio.create_task(relay)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay_to_server(
        self, source: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            try:
                while data := await source.read(65_536):
                    (client if self.says else server).write(self.says or data)
            finally:
                server.close()


async def _relay(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        try:
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        finally:
            target.close()


@asynccontextmanager
async def replicated(folder: Path) -> AsyncIterator[tuple[LabValkey, LabValkey]]:
    """A primary and its replica."""
    first, second = LabValkey(folder / "first"), LabValkey(folder / "second")
    with ExitStack() as stack:
        for server in (first, second):
            await asyncio.to_thread(server.start)
            stack.callback(server.stop)
        await second.follow(first)
        await until_true(second.has_caught_up)
        yield first, second
