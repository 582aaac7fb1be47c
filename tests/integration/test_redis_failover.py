"""A failover by whatever means heals by itself: jobs, replies, limits and lists go on with the same clients."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adapters.redis.reply_stream import RedisReplyStream
from adapters.redis_clients import Sentinels
from adapters.redis_url import parse_redis_url
from adapters.system import TimeOrderedIds
from application.ports.runtime import Bucket
from domain.errors import RedisUnavailable
from domain.ids import MessageId
from domain.rates import Rate
from tests.contracts.test_reply_stream import TEXT, following
from tests.support.ports import free_port
from tests.support.redis_lab import (
    SERVICE,
    Forwarder,
    LabValkey,
    SentinelSet,
    replicated,
    sentinel_set,
    until_true,
)
from tests.support.redis_users import Product, done

IDS = TimeOrderedIds()


class TestSentinel:
    @pytest.fixture
    async def whole(self, data_dir: Path) -> AsyncIterator[SentinelSet]:
        with sentinel_set(data_dir / f"sentinels-{secrets.token_hex(4)}") as made:
            await until_true(made.is_whole)
            yield made

    async def test_the_primary_is_killed(self, whole: SentinelSet) -> None:
        async with Product(whole.url).running() as product:
            await product.works()
            async with product.replying() as reply:
                await reply.goes_on()
                old = await whole.primary()
                await asyncio.to_thread(old.kill)
                await whole.moved_from(old)
                await reply.goes_on()
            await product.works()

    async def test_the_primary_hangs(self, whole: SentinelSet) -> None:
        async with Product(whole.url).running() as product:
            await product.works()
            old = await whole.primary()
            assert old.pid is not None
            async with product.replying() as reply:
                await reply.goes_on()
                os.kill(old.pid, signal.SIGSTOP)
                try:
                    await whole.moved_from(old)
                    await reply.goes_on()
                    await product.works()
                finally:
                    os.kill(old.pid, signal.SIGCONT)
                await reply.goes_on()

    async def test_an_operator_orders_it(self, whole: SentinelSet) -> None:
        async with Product(whole.url).running() as product:
            await product.works()
            old = await whole.primary()
            async with product.replying() as reply:
                await reply.goes_on()
                await whole.fail_over()
                await whole.moved_from(old)
                await reply.goes_on()
            await product.works()

    async def test_two_of_three_sentinels_are_gone(self, whole: SentinelSet) -> None:
        for sentinel in whole.sentinels[:2]:
            await asyncio.to_thread(sentinel.kill)
        async with Product(whole.url).running() as product:
            await product.works()


async def _sentinel(answer: bytes) -> asyncio.Server:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            if answer:
                writer.write(answer)
        writer.close()

    return await asyncio.start_server(say, "127.0.0.1", 0)


def _configuration(number: int, port: int) -> bytes:
    fields = ("ip", "192.0.2.1", "port", str(port), "config-epoch", str(number))
    return b"*6\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(field), field.encode()) for field in fields)


HANGING = b""
OLD, NEW = _configuration(3, 1_111), _configuration(4, 2_222)
UNKNOWN = b"-ERR No such master with that name\r\n"


@pytest.mark.parametrize(
    ("answers", "port"),
    [
        ([OLD, NEW], 2_222),
        ([NEW, OLD], 2_222),
        ([OLD, HANGING], 1_111),
        ([HANGING, HANGING, NEW], 2_222),
        ([UNKNOWN, NEW], 2_222),
    ],
)
async def test_the_newest_configuration_of_the_sentinels_counts(answers: list[bytes], port: int) -> None:
    """One may have been cut off from the others while they chose another server, and one may hang."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(await _sentinel(answer)) for answer in answers]
        hosts = ",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
        url = parse_redis_url(f"redis+sentinel://{hosts}/{SERVICE}")
        for _ in range(3):
            assert await Sentinels(url, seconds=2).primary() == ("192.0.2.1", port)


class TestForwarder:
    """A name or a proxy whose existing connections stay with the server that was demoted."""

    async def test_replies_and_jobs_move_to_the_new_primary(self, data_dir: Path) -> None:
        folder = data_dir / f"forwarded-{secrets.token_hex(4)}"
        async with replicated(folder) as (first, second), Forwarder(first.port or 0) as forwarder:
            url = first.url_at(forwarder.port)
            async with Product(url).running() as product:
                await product.works()
                with capture_logs() as logs:
                    async with product.replying() as reply:
                        await reply.goes_on()
                        await second.follow(None)
                        forwarder.target = second.port or 0
                        await first.follow(second)
                        await reply.goes_on()
                        await product.works()
                lost = [line for line in logs if line["event"] == "job_queue_lost"]
                assert len(lost) <= 2, "its back-off was reset by starts that did nothing"

    async def test_a_process_that_only_reads_moves_too(self, data_dir: Path) -> None:
        """Nothing that it does is refused by a replica; and this one hears nothing of its new primary."""
        folder, namespace = data_dir / f"read-{secrets.token_hex(4)}", f"test-{secrets.token_hex(6)}"
        message_id = MessageId(IDS.new())
        async with replicated(folder) as (first, second), Forwarder(first.port or 0) as forwarder:
            reading, old, new = (
                RedisReplyStream(url, namespace=namespace, command_seconds=1, safety_seconds=0.3)
                for url in (first.url_at(forwarder.port), first.url, second.url)
            )
            async with following(reading, message_id) as follower:
                old.write(message_id, 1).add(TEXT[:5])
                await follower.has(TEXT[:5])
                await second.follow(None)
                forwarder.target = second.port or 0
                async with first.admin as redis:
                    await redis.replicaof("127.0.0.1", str(free_port()))
                new.write(message_id, 1).add(TEXT)
                await follower.has(TEXT)
            for stream in (reading, old, new):
                await stream.close()

    async def test_a_demoted_server_that_nobody_replaces_is_retried_with_pauses(self, data_dir: Path) -> None:
        server = LabValkey(data_dir / f"read-only-{secrets.token_hex(4)}")
        await asyncio.to_thread(server.start)
        try:
            async with Product(server.url).running() as product:
                await product.works()
                with capture_logs() as logs:
                    await server.set(replica_read_only="yes")
                    async with server.admin as redis:
                        await redis.replicaof("127.0.0.1", str(free_port()))
                    await asyncio.sleep(1.5)
                    lost = [line["again_in"] for line in logs if line["event"] == "job_queue_lost"]
                    assert len(lost) <= 5
                    assert lost == sorted(lost)
                    assert lost[-1] > lost[0]
                await server.follow(None)
                await product.works()
        finally:
            server.stop()


class TestStates:
    """What a server says while it cannot do its work, and that it is used again once it can."""

    @pytest.fixture
    async def server(self, data_dir: Path) -> AsyncIterator[LabValkey]:
        server = LabValkey(data_dir / f"state-{secrets.token_hex(4)}")
        await asyncio.to_thread(server.start)
        yield server
        server.stop()

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            ({"maxmemory": 1}, {"maxmemory": 0}),
            ({"min_replicas_to_write": 1}, {"min_replicas_to_write": 0}),
        ],
        ids=["full", "too few replicas"],
    )
    async def test_a_setting(self, server: LabValkey, wrong: dict[str, int], right: dict[str, int]) -> None:
        async with Product(server.url).running() as product:
            await product.works()
            await server.set(**wrong)
            with pytest.raises(RedisUnavailable):
                await product.limiter.hit([Bucket("login", "somebody", Rate(5, 60))])
            late = MessageId(IDS.new())
            assert not await product.queue.notify([late])
            await server.set(**right)
            await product.works()
            await until_true(lambda: done(product.handled[late] == 1))

    async def test_flushed(self, server: LabValkey) -> None:
        async with Product(server.url).running() as product:
            await product.works()
            async with product.replying() as reply:
                await reply.goes_on()
                async with server.admin as redis:
                    await redis.flushall()
                    await redis.script_flush()
                await reply.goes_on()
            await product.works()

    async def test_loading(self, server: LabValkey) -> None:
        """As a server does for seconds or minutes that was started again with much data."""
        async with Forwarder(server.port or 0) as forwarder, AsyncExitStack() as stack:
            product = await stack.enter_async_context(Product(server.url_at(forwarder.port)).running())
            await product.works()
            forwarder.says = b"-LOADING Valkey is loading the dataset in memory\r\n"
            for _ in range(3):
                with pytest.raises(RedisUnavailable) as caught:
                    await product.redis.check()
                assert caught.value.state == "loading"
            late = MessageId(IDS.new())
            assert not await product.queue.notify([late])
            forwarder.says = b""
            await product.works()
            await until_true(lambda: done(product.handled[late] == 1))
