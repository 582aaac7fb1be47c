"""Clients of Redis or Valkey: the one place that makes them.

All have the same timeouts, the same retry and the same way through a failover: whatever breaks a connection, or shows
that it leads to a server that takes no writes any more, ends it. The next one asks again where to go: the Sentinels,
the name's addresses, or the proxy.
"""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context
from pathlib import Path
from typing import Any

from redis._parsers import _AsyncHiredisParser
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from adapters.redis_url import Address, Credentials, RedisUrl, Tls, parse_redis_url


class Demoted(RedisConnectionError):
    """The server has become a replica. The connection is dropped, and the command repeated once on a new one."""


class SentinelFailure(RedisConnectionError):
    """No Sentinel named a server. Its cause is what one of them said, or else why one did not answer."""


class _Parser(_AsyncHiredisParser):
    EXCEPTION_CLASSES = _AsyncHiredisParser.EXCEPTION_CLASSES | {
        "READONLY": Demoted,
        "MASTERDOWN": Demoted,
        "UNBLOCKED": Demoted,  # it became a replica while a command waited in it
    }

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """Redis before version 7 wraps what a script ran into."""
        wrapped = re.fullmatch(r"ERR Error running script.*?: -?([A-Z]+ .*)", response, re.DOTALL)
        error: Exception = super().parse_error(wrapped[1] if wrapped else response)  # type: ignore[no-untyped-call]
        return error


class _TcpConnection(Connection):
    def __init__(self, *, tls: Tls | None = None, sentinels: Sentinels | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls
        self._sentinels = sentinels

    async def _connect(self) -> None:
        if self._sentinels:
            self.host, self.port = await self._sentinels.primary()
        await super()._connect()  # type: ignore[no-untyped-call]

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {"host": self.host, "port": self.port, **({"ssl": _context_of(self._tls)} if self._tls else {})}


class _SocketConnection(UnixDomainSocketConnection):
    async def _connect(self) -> None:
        """The library's also logs in here, a second time, and hides what went wrong."""
        async with asyncio.timeout(self.socket_connect_timeout):
            self._reader, self._writer = await asyncio.open_unix_connection(path=self.path)


class Sentinels:
    """Knows which server takes the writes of a service, from all Sentinels at once: any of them may be unavailable,
    or on the wrong side of a network that is split."""

    def __init__(self, url: RedisUrl, *, seconds: float) -> None:
        self._service = url.service
        self._seconds = seconds
        self._nodes = [
            {"host": host, "port": port, "tls": url.tls} | _options(url.sentinel_credentials, seconds, seconds)
            for host, port in url.addresses
        ]

    async def primary(self) -> Address:
        """What the newest configuration among the answers of a majority says; of fewer, if more do not come in time.

        Raises SentinelFailure.
        """
        asked = {asyncio.create_task(self._ask(node), context=Context()) for node in self._nodes}
        waiting, answers, errors = asked, list[tuple[int, Address]](), list[Exception]()
        try:
            async with asyncio.timeout(self._seconds):
                while waiting and len(answers) <= len(asked) // 2:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        if isinstance(error := task.exception(), Exception):
                            errors.append(error)
                        else:
                            answers.append(task.result())
        except TimeoutError as error:
            errors.append(error)
        finally:
            for task in waiting:
                task.cancel()
        if answers:
            return max(answers)[1]
        said = [error for error in errors if isinstance(error, ResponseError | AuthenticationError)]
        raise SentinelFailure("no Sentinel named a server") from (said or errors)[0]

    async def _ask(self, node: Mapping[str, Any]) -> tuple[int, Address]:
        """The number of the configuration, which each failover raises, and the server's address."""
        connection = _TcpConnection(**node)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "MASTER", self._service)
            fields = iter(await connection.read_response())
            state = {name.decode(): text.decode() for name, text in zip(fields, fields, strict=False)}
            return int(state["config-epoch"]), (state["ip"], int(state["port"]))
        except (KeyError, ValueError, AttributeError) as error:
            raise ResponseError("this is not a Sentinel") from error
        finally:
            with suppress(Exception):
                await connection.disconnect(nowait=True)


def redis_pool(
    url: str, *, command_seconds: float, max_connections: int, block_seconds: float = 0
) -> BlockingConnectionPool:
    """`block_seconds` is how long a command may wait in the server by itself."""
    target = parse_redis_url(url)
    return BlockingConnectionPool(
        max_connections=max_connections,
        timeout=command_seconds,  # for a connection out of the pool
        db=target.database,
        **_destination(target, command_seconds),
        **_options(target.credentials, command_seconds, block_seconds + command_seconds),
    )


def redis_client(url: str, *, command_seconds: float, max_connections: int) -> Redis:
    """A client with its own pool; it connects at the first command."""
    return Redis(connection_pool=redis_pool(url, command_seconds=command_seconds, max_connections=max_connections))


def _destination(target: RedisUrl, command_seconds: float) -> dict[str, Any]:
    if target.socket:
        return {"connection_class": _SocketConnection, "path": target.socket}
    if target.service:
        # Less than a command's time, of which the server needs some, too.
        sentinels = Sentinels(target, seconds=command_seconds / 2)
        return {"connection_class": _TcpConnection, "sentinels": sentinels, "tls": target.tls}
    host, port = target.addresses[0]
    return {"connection_class": _TcpConnection, "host": host, "port": port, "tls": target.tls}


def _options(credentials: Credentials, connect_seconds: float, answer_seconds: float) -> dict[str, Any]:
    return {
        "username": credentials.username or None,
        "password": credentials.password or None,
        "socket_connect_timeout": connect_seconds,
        "socket_timeout": answer_seconds,
        # Managed services drop idle connections, and servers restart: a pooled connection may be dead, so a command
        # is repeated once, at once, on a new one. A pool made by hand does not retry by default (redis-py#4252).
        # What a firewall would drop silently is kept alive by TCP, every 30 s, by the library's default.
        "retry": Retry(NoBackoff(), 1),
        "protocol": 2,  # with 3 the client formats each published message for its debug log
        "parser_class": _Parser,
        "driver_info": None,  # two round trips at each connect, and a permission more
    }


def _context_of(tls: Tls) -> ssl.SSLContext:
    files = [name for name in (tls.ca_file, tls.certificate_file, tls.key_file) if name]
    return _context(tls, tuple(Path(name).stat().st_mtime_ns for name in files))


@functools.lru_cache(maxsize=4)
def _context(tls: Tls, changed: tuple[int, ...]) -> ssl.SSLContext:
    """Read again when a file has changed: certificates are renewed while we run. Loading takes 20 ms."""
    return tls.context()
