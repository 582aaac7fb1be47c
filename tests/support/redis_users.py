"""All that uses Redis, as an API process and a worker have it."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.redis.cache import RedisChatroomLists
from adapters.redis.connection import RedisConnection
from adapters.redis.rate_limiter import RedisRateLimiter
from adapters.redis.reply_stream import RedisReplyStream
from adapters.system import TimeOrderedIds
from adapters.taskiq.receiving import JobReceiver, StreamBroker
from adapters.taskiq.sending import GENERATE_REPLY, JobSender, TaskiqJobQueue
from application.ports.runtime import Bucket
from domain.errors import RedisUnavailable
from domain.ids import MessageId, UserId
from domain.rates import Rate
from tests.contracts.test_reply_stream import TEXT, Follower, following
from tests.support.patience import HANG
from tests.support.redis_lab import until_true

IDS = TimeOrderedIds()
SECONDS = 1.0  # that a command may take


class Product:
    def __init__(self, url: str, *, namespace: str = "") -> None:
        namespace = namespace or f"test-{secrets.token_hex(6)}"
        self.redis = RedisConnection(url, command_seconds=SECONDS, namespace=namespace)
        self.lists = RedisChatroomLists(self.redis, namespace=namespace)
        self.limiter = RedisRateLimiter(self.redis, namespace=namespace, key=b"key")
        self.writing, self.reading = (
            RedisReplyStream(url, namespace=namespace, command_seconds=SECONDS, safety_seconds=1) for _ in range(2)
        )
        self.sending = JobSender(url, namespace=namespace, command_seconds=SECONDS, repeat_seconds=0.1)
        self.receiving = StreamBroker(url, namespace=namespace, command_seconds=SECONDS)
        self.queue = TaskiqJobQueue(self.sending, GENERATE_REPLY)
        self.handled: Counter[MessageId] = Counter()
        self.receiver = JobReceiver(self.receiving, {GENERATE_REPLY: self._handle}, concurrency=5)
        self.stop = asyncio.Event()

    async def _handle(self, message_id: MessageId) -> None:
        self.handled[message_id] += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Product]:
        listening = asyncio.create_task(self.receiver.listen(self.stop))
        try:
            yield self
        finally:
            self.stop.set()
            async with asyncio.timeout(HANG):
                await listening
                for part in (self.reading, self.writing, self.receiving, self.sending, self.redis):
                    await part.close()

    async def works(self) -> None:
        """Each part does what it does, though its first tries may fail."""
        user_id, bucket = UserId(IDS.new()), Bucket("login", secrets.token_hex(4), Rate(5, 60))

        async def listed_and_limited() -> bool:
            try:
                await self.redis.check()
                await self.lists.put(user_id, 1, [])
                assert await self.lists.get(user_id, 1) == []
                return (await self.limiter.hit([bucket])).retry_after == 0
            except RedisUnavailable:
                return False

        await until_true(listed_and_limited)
        await self.answers(MessageId(IDS.new()))
        await self.streams()

    async def answers(self, *ids: MessageId) -> None:
        await self.queue.notify(ids)
        await until_true(lambda: done(all(self.handled[message_id] for message_id in ids)))

    async def streams(self) -> None:
        message_id = MessageId(IDS.new())
        async with following(self.reading, message_id) as follower:
            writer = self.writing.write(message_id, 1)
            writer.add(TEXT)
            await follower.has(TEXT)
            await writer.close()

    @asynccontextmanager
    async def replying(self) -> AsyncIterator[Reply]:
        """A reply that is written during the block, and read to its end after it."""
        message_id = MessageId(IDS.new())
        async with following(self.reading, message_id) as follower:
            reply = Reply(self, message_id, follower)
            task = asyncio.create_task(reply.write())
            yield reply
            reply.is_over = True
            async with asyncio.timeout(HANG):
                await task
                await follower.has(reply.text)  # each piece once, in order: the follower checks that


class Reply:
    def __init__(self, product: Product, message_id: MessageId, follower: Follower) -> None:
        self._writer = product.writing.write(message_id, 1)
        self.follower = follower
        self.text = ""
        self.is_over = False

    async def write(self) -> None:
        number = 0
        while not self.is_over:
            number += 1
            self.text += (word := f"word {number} ")
            self._writer.add(word)
            await asyncio.sleep(0.02)
        await self._writer.close()

    async def goes_on(self) -> None:
        """What is written from now on arrives."""
        wanted = len(self.text) + 1
        await until_true(lambda: done(len(self.follower.text) >= wanted))


async def done(condition: bool) -> bool:
    return condition
