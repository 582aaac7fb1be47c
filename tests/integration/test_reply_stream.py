"""The reply stream on a Redis that is killed, hangs, forgets and loses messages; and what it costs."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import structlog
from redis.asyncio import Redis
from structlog.testing import capture_logs

from adapters.redis.reply_reader import Reader, Topic
from adapters.redis.reply_stream import RedisReplyStream
from application.ports.chat import ReplyReader
from domain.chat.streams import ReplyPiece, StreamPosition
from domain.ids import MessageId
from local.valkey import EmbeddedValkey
from tests.contracts.test_reply_stream import (
    TEXT,
    Follower,
    following,
    new_id,
    tasks_left,
    until,
    write_many_pieces,
    written,
)
from tests.support.patience import HANG

SAFETY_SECONDS = 0.3


@pytest.fixture(scope="module")
def valkey(data_dir: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(data_dir / "valkey-of-streams")
    server.start()
    yield server
    server.stop()


class Scene:
    """A writing and a reading process, on a separate server."""

    def __init__(
        self,
        server: EmbeddedValkey,
        *,
        flush_seconds: float,
        safety_seconds: float,
        port: int | None,
    ) -> None:
        self.server = server
        self.namespace = f"test-{secrets.token_hex(6)}"
        self.writing, self.reading = (
            RedisReplyStream(
                server.url.replace(f":{server.port}/", f":{port or server.port}/"),
                namespace=self.namespace,
                command_seconds=1,
                flush_seconds=flush_seconds,
                safety_seconds=safety_seconds,
            )
            for _ in range(2)
        )
        self.redis = Redis.from_url(server.url)

    async def close(self) -> None:
        async with asyncio.timeout(HANG):
            await self.reading.close()
            await self.writing.close()
        await self.redis.aclose()

    def key(self, message_id: MessageId) -> str:
        return f"{self.namespace}:reply:{message_id}"

    async def put(self, message_id: MessageId, position: str, text: str) -> None:
        """Into the stream, unheard."""
        await self.redis.xadd(self.key(message_id), {"t": text}, id=position)

    async def publish(self, message_id: MessageId, position: str, text: str) -> None:
        """To those who listen, and not into the stream."""
        await self.redis.publish(self.key(message_id), f"{position} {text}".encode())

    def forget_all(self) -> None:
        """Kill it and start it without its data."""
        self.server.kill()
        for file in (self.server.data_dir / "appendonlydir").iterdir():
            file.unlink()
        self.server.start()

    async def connections(self) -> int:
        return len([client for client in await self.redis.client_list() if client["cmd"] != "client|list"])


@asynccontextmanager
async def scene_on(
    server: EmbeddedValkey,
    *,
    flush_seconds: float = 0.01,
    safety_seconds: float = SAFETY_SECONDS,
    port: int | None = None,
) -> AsyncIterator[Scene]:
    """`port` is another way to the server."""
    scene = Scene(server, flush_seconds=flush_seconds, safety_seconds=safety_seconds, port=port)
    try:
        yield scene
    finally:
        await scene.close()
    assert not tasks_left()


@pytest.fixture
def running_valkey(valkey: EmbeddedValkey) -> EmbeddedValkey:
    """Alive, whatever an earlier test did to it."""
    if valkey.exit_code is not None or valkey.pid is None:
        valkey.start()
    return valkey


@pytest.fixture
async def scene(running_valkey: EmbeddedValkey) -> AsyncIterator[Scene]:
    async with scene_on(running_valkey) as scene:
        yield scene


@pytest.fixture
async def scene_without_checks(running_valkey: EmbeddedValkey) -> AsyncIterator[Scene]:
    """Where nothing is read to be safe."""
    async with scene_on(running_valkey, safety_seconds=60) as scene:
        yield scene


@pytest.fixture
def message_id() -> MessageId:
    return new_id()


async def restart(scene: Scene) -> None:
    scene.server.kill()
    await asyncio.sleep(0.3)
    scene.server.start()


async def restart_empty(scene: Scene) -> None:
    scene.forget_all()


async def flush_all(scene: Scene) -> None:
    await scene.redis.flushall()


async def flush_all_and_scripts(scene: Scene) -> None:
    await scene.redis.flushall()
    await scene.redis.script_flush()


async def cut_all_connections(scene: Scene) -> None:
    await scene.redis.client_kill_filter(_type="pubsub", skipme=True)
    await scene.redis.client_kill_filter(_type="normal", skipme=True)


async def hang(scene: Scene) -> None:
    """Until all connections were given up."""
    assert scene.server.pid is not None
    os.kill(scene.server.pid, signal.SIGSTOP)
    await asyncio.sleep(3)
    os.kill(scene.server.pid, signal.SIGCONT)


Trouble: TypeAlias = Callable[[Scene], Coroutine[Any, Any, None]]
TROUBLES: list[Trouble] = [
    restart,
    restart_empty,
    flush_all,
    flush_all_and_scripts,
    cut_all_connections,
    hang,
]


class TestTrouble:
    @pytest.mark.parametrize("trouble", TROUBLES)
    async def test_in_the_middle_of_replies_is_mended(self, scene: Scene, trouble: Trouble) -> None:
        ids = [new_id() for _ in range(40)]
        async with AsyncExitStack() as stack:
            followers = [await stack.enter_async_context(following(scene.reading, id)) for id in ids for _ in range(3)]
            writers = [scene.writing.write(id, 1) for id in ids]
            for character in TEXT:
                for writer in writers:
                    writer.add(character)
                await asyncio.sleep(0.002)
            for follower in followers:
                await follower.has(TEXT)
            going_on = asyncio.create_task(trouble(scene))
            text = TEXT
            while not going_on.done():
                text += "on "
                for writer in writers:
                    writer.add("on ")
                await asyncio.sleep(0.02)
            await going_on
            for writer in writers:
                writer.add("and on")
            for follower in followers:
                await follower.has(text + "and on")
            for id in ids[:5]:
                late = await stack.enter_async_context(following(scene.reading, id))
                await late.has(text + "and on")
            await asyncio.gather(*(writer.close() for writer in writers))
            await asyncio.gather(*(scene.writing.wake(id) for id in ids))
            for follower in followers:
                await follower.looked(1)
        assert all(follower.attempts == [1] for follower in followers)

    @pytest.mark.parametrize("trouble", TROUBLES)
    async def test_between_attempts_is_mended(self, scene: Scene, trouble: Trouble, message_id: MessageId) -> None:
        async with following(scene.reading, message_id) as follower:
            scene.writing.write(message_id, 1).add("One")
            await follower.has("One")
            await trouble(scene)
            writer = scene.writing.write(message_id, 2)
            await follower.has("", attempt=2)
            writer.add("Two")
            await follower.has("Two", attempt=2)


async def test_thoughts_are_in_no_stream_and_an_outage_keeps_few(scene: Scene, message_id: MessageId) -> None:
    async with following(scene.reading, message_id) as follower:
        writer = scene.writing.write(message_id, 1)
        await follower.has("")
        writer.thought("Hm.")
        await follower.has_thought("Hm.")
        assert await scene.redis.xrange(scene.key(message_id)) == [(b"1-0", {b"t": b""})]
        scene.server.kill()
        for _ in range(1_000):
            writer.thought("x" * 1_000)
        assert sys.getsizeof(writer.thoughts) < 20_000  # type: ignore[attr-defined]
        scene.server.start()
        writer.add("Because")
        await follower.has("Because")
    assert len(follower.thought) < 20_000


async def test_what_is_published_by_nobody_of_ours_is_ignored(scene: Scene, message_id: MessageId) -> None:
    async with following(scene.reading, message_id) as follower:
        writer = scene.writing.write(message_id, 1)
        await follower.has("")
        for text in ("thought ", "thought 1-0", "thought x y", "thought 1-7 y", "x y"):
            await scene.redis.publish(scene.key(message_id), text)
        await scene.redis.publish(scene.key(message_id), b"thought 1-0 \xff\xfe")
        writer.add("Because")
        await follower.has("Because")
    assert follower.thoughts == []


async def test_a_lost_tail_is_mended(scene: Scene, message_id: MessageId) -> None:
    """As after a change to a replica that had not got all."""
    writer = scene.writing.write(message_id, 1)
    async with following(scene.reading, message_id) as follower:
        for text in ("One", "One two", "One two three"):
            writer.add(text[len(follower.text) :])
            await follower.has(text)
        await scene.redis.xdel(scene.key(message_id), "1-7", "1-13")
        writer.add(" four")
        await follower.has("One two three four")
    async with following(scene.reading, message_id) as late:
        await late.has("One two three four")


async def test_a_connection_that_died_silently_is_noticed(
    running_valkey: EmbeddedValkey, message_id: MessageId
) -> None:
    async with Wire(running_valkey) as wire, scene_on(running_valkey, safety_seconds=60, port=wire.port) as scene:
        writer = scene.writing.write(message_id, 1)
        async with following(scene.reading, message_id) as follower:
            writer.add("One")
            await follower.has("One")
            wire.die()
            writer.add(" more")
            await follower.has("One more")


async def test_readers_come_and_go_while_the_connection_is_closed_under_them(
    scene: Scene, message_id: MessageId
) -> None:
    """Subscribing and losing the connection at once is an outage of Redis, and no other error."""
    with capture_logs() as logs:
        async with following(scene.reading, message_id) as follower:
            for _ in range(50):
                async with AsyncExitStack() as stack:
                    killing = asyncio.ensure_future(scene.redis.client_kill_filter(_type="pubsub"))
                    for _ in range(5):
                        await stack.enter_async_context(scene.reading.follow(new_id()))
                        await asyncio.sleep(0)
                    await killing
            await written(scene.writing, message_id)
            await follower.has(TEXT)
    errors = {line["error"] for line in logs if line["event"] == "reply_stream_lost"}
    assert errors, "no connection was closed"
    assert errors <= {"ConnectionError", "ConnectionResetError", "BrokenPipeError", "TimeoutError"}


async def test_those_who_join_a_long_reply_at_once_need_not_be_at_the_same_place(
    scene_without_checks: Scene, message_id: MessageId
) -> None:
    scene, text = scene_without_checks, "ab" * 1_500
    await scene.put(message_id, "1-0", "")
    for end in range(2, len(text) + 1, 2):
        await scene.put(message_id, f"1-{end}", "ab")
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(
                following(scene.reading, message_id, after=StreamPosition(1, n), text=text[:n])
            )
            for n in range(0, len(text), 149)
        ]
        for follower in followers:
            await follower.has(text)


class TestSlowAnswers:
    """The stream is being read while something happens."""

    @pytest.fixture
    async def wire(self, running_valkey: EmbeddedValkey) -> AsyncIterator[Wire]:
        async with Wire(running_valkey) as wire:
            yield wire

    @pytest.fixture
    async def slow(self, running_valkey: EmbeddedValkey, wire: Wire) -> AsyncIterator[Scene]:
        async with scene_on(running_valkey, safety_seconds=60, port=wire.port) as scene:
            yield scene

    async def test_what_is_published_meanwhile_is_not_lost(
        self, wire: Wire, slow: Scene, message_id: MessageId
    ) -> None:
        writer = slow.writing.write(message_id, 1)
        writer.add("One")
        async with following(slow.reading, message_id) as first:
            await first.has("One")
            wire.answers.clear()
            async with following(slow.reading, message_id) as follower:
                await until(lambda: wire.held > 0)
                writer.add(" more")
                await first.has("One more")
                assert follower.pieces == [], "the answer is still on its way"
                wire.answers.set()
                await follower.has("One more")

    async def test_who_joins_meanwhile_is_read_for_too(self, wire: Wire, slow: Scene, message_id: MessageId) -> None:
        await written(slow.writing, message_id)
        end = StreamPosition(1, len(TEXT))
        async with following(slow.reading, message_id) as first:
            await first.has(TEXT)
            wire.answers.clear()
            async with following(slow.reading, message_id, after=end, text=TEXT):
                await until(lambda: wire.held > 0)
                async with following(slow.reading, message_id) as follower:
                    wire.answers.set()
                    await follower.has(TEXT)


class Wire:
    """To the server, until it dies: then nothing passes, and no side is notified. New connections work.

    Its answers, but not what it publishes, can be held back.
    """

    def __init__(self, server: EmbeddedValkey) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.held = 0
        self._target = server.port
        self._is_dead = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def die(self) -> None:
        self._is_dead.set()
        self._is_dead = asyncio.Event()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._relay(reader, back_writer, self._is_dead, is_answer=False)
        self._relay(back_reader, writer, self._is_dead, is_answer=True)

    def _relay(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, is_dead: asyncio.Event, *, is_answer: bool
    ) -> None:
        async def relay() -> None:
            try:
                while data := await source.read(65_536):
                    if is_answer and not data.startswith(b"*3\r\n$7\r\nmessage"):
                        self.held += not self.answers.is_set()
                        await self.answers.wait()
                    if not is_dead.is_set():
                        target.write(data)
            finally:
                target.close()

        self._tasks.add(asyncio.create_task(relay()))


class TestAway:
    async def test_nothing_raises_and_nothing_waits_long(self, scene: Scene, message_id: MessageId) -> None:
        scene.server.kill()
        async with following(scene.reading, message_id) as follower:
            async with asyncio.timeout(HANG):
                writer = scene.writing.write(message_id, 1)
                for character in TEXT:
                    writer.add(character)
                await scene.writing.wake(message_id)
                await writer.close()
            follower.reader.wake()
            await follower.looked(1)
            assert follower.pieces == []
            scene.server.start()
            await written(scene.writing, message_id, attempt=2)
            await follower.has(TEXT, attempt=2)

    async def test_what_waited_is_sent_when_it_comes_back(self, scene: Scene, message_id: MessageId) -> None:
        scene.server.kill()
        writer = scene.writing.write(message_id, 1)
        writer.add(TEXT)
        async with following(scene.reading, message_id) as follower:
            await asyncio.sleep(0.5)
            scene.server.start()
            await follower.has(TEXT)

    async def test_hung_it_holds_up_nobody(self, scene: Scene, message_id: MessageId) -> None:
        assert scene.server.pid is not None
        writer = scene.writing.write(message_id, 1)
        async with following(scene.reading, message_id) as follower:
            writer.add("One")
            await follower.has("One")
            os.kill(scene.server.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(HANG):
                    writer.add(" more")
                    await scene.writing.wake(message_id)
                    await writer.close()
                    await scene.reading.close()
            finally:
                os.kill(scene.server.pid, signal.SIGCONT)

    async def test_is_reported_once(self, scene: Scene, message_id: MessageId) -> None:
        with (
            capture_logs([structlog.contextvars.merge_contextvars]) as logs,
            structlog.contextvars.bound_contextvars(request_id="of the first reader"),
        ):
            async with following(scene.reading, message_id) as follower:
                writer = scene.writing.write(message_id, 1)
                writer.add("secret")
                await follower.has("secret")
                scene.server.kill()
                writer.add(" words")
                for _ in range(3):
                    await scene.writing.write(new_id(), 1).close()
                await asyncio.sleep(1)
                scene.server.start()
                await follower.has("secret words")
                await until(lambda: len(logs) >= 6)
        counted = Counter((line["event"], line["part"]) for line in logs)
        assert counted == Counter(
            (event, part)
            for event in ("reply_stream_lost", "reply_stream_back")
            for part in ("writing", "listening", "reading")
        )
        assert "secret" not in str(logs)
        assert "of the first reader" not in str(logs), "the log line belongs to no reader"

    async def test_closed_while_away(self, scene: Scene, message_id: MessageId) -> None:
        async with scene.reading.follow(message_id) as reader:
            read = asyncio.create_task(reader.read())
            scene.writing.write(message_id, 1).add("One")
            await asyncio.sleep(0.2)
            scene.server.kill()
            scene.writing.write(message_id, 1).add("One")
            await asyncio.sleep(0.2)
            async with asyncio.timeout(HANG):
                await scene.close()
                await read
            async with asyncio.timeout(HANG):
                late = scene.writing.write(message_id, 2)
                late.add("Two")
                await late.close()
                await scene.writing.wake(message_id)


class TestFlushing:
    async def test_only_the_first_piece_and_a_new_attempt_do_not_wait_for_others(
        self, running_valkey: EmbeddedValkey, message_id: MessageId
    ) -> None:
        async with (
            scene_on(running_valkey, flush_seconds=60) as scene,
            following(scene.reading, message_id) as follower,
        ):
            writer = scene.writing.write(message_id, 1)
            writer.add("One")
            await follower.has("One")
            writer.add(" more")
            await asyncio.sleep(0.2)
            assert follower.text == "One"
            await writer.close()
            await follower.has("One more")
            writer = scene.writing.write(message_id, 2)
            await follower.has("", attempt=2)
            writer.add("Two")
            await follower.has("Two", attempt=2)

    async def test_a_wake_takes_along_what_its_message_has(
        self, running_valkey: EmbeddedValkey, message_id: MessageId
    ) -> None:
        async with (
            scene_on(running_valkey, flush_seconds=60) as scene,
            following(scene.reading, message_id) as follower,
        ):
            writer = scene.writing.write(message_id, 1)
            writer.add("One")
            await follower.has("One")
            writer.add(" more")
            await scene.writing.wake(message_id)
            await follower.looked(1)
            assert follower.text == "One more"

    async def test_so_do_many_wakes_at_once(self, running_valkey: EmbeddedValkey) -> None:
        async def read_until_woken(reader: ReplyReader) -> str:
            text = ""
            while pieces := await reader.read():
                text += "".join(piece.text for piece in pieces)
            return text

        ids = [new_id() for _ in range(600)]
        async with scene_on(running_valkey, flush_seconds=60) as scene, AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(scene.reading.follow(id)) for id in ids]
            writers = [scene.writing.write(id, 1) for id in ids]
            for writer in writers:
                writer.add("One")
            for reader in readers:
                follower = Follower(reader)
                async with asyncio.timeout(HANG):
                    while not follower.text:
                        follower.take(await reader.read())
            for writer in writers:
                writer.add(" more")
            async with asyncio.timeout(HANG):
                await asyncio.gather(*(scene.writing.wake(id) for id in ids))
                assert await asyncio.gather(*map(read_until_woken, readers)) == [" more"] * len(ids)

    async def test_others_go_together(self, running_valkey: EmbeddedValkey, message_id: MessageId) -> None:
        async with (
            scene_on(running_valkey, flush_seconds=0.2) as scene,
            following(scene.reading, message_id) as follower,
        ):
            writer = scene.writing.write(message_id, 1)
            for character in TEXT:
                writer.add(character)
                await asyncio.sleep(0.001)
            await follower.has(TEXT)
            assert len(follower.pieces) < len(TEXT) / 2


class TestMissedMessages:
    async def test_a_gap_is_filled_from_the_stream(self, scene_without_checks: Scene, message_id: MessageId) -> None:
        scene = scene_without_checks
        async with following(scene.reading, message_id) as follower:
            await written(scene.writing, message_id, "One ")
            await follower.has("One ")
            await scene.put(message_id, "1-8", "two ")
            await scene.put(message_id, "1-14", "three ")
            assert follower.text == "One "
            await scene.publish(message_id, "1-14", "three ")
            await follower.has("One two three ")

    async def test_so_is_the_beginning_of_an_attempt(self, scene_without_checks: Scene, message_id: MessageId) -> None:
        scene = scene_without_checks
        async with following(scene.reading, message_id) as follower:
            await written(scene.writing, message_id, "One ")
            await follower.has("One ")
            await scene.put(message_id, "2-0", "")
            await scene.put(message_id, "2-3", "Two")
            await scene.publish(message_id, "2-3", "Two")
            await follower.has("Two", attempt=2)

    async def test_the_last_piece_is_found_by_looking_now_and_then(self, scene: Scene, message_id: MessageId) -> None:
        async with following(scene.reading, message_id) as follower:
            await written(scene.writing, message_id, "One ")
            await follower.has("One ")
            for _ in range(3):
                await scene.put(message_id, f"1-{len(follower.text) + 5}", "more ")
                await follower.has(follower.text + "more ")

    async def test_each_of_many_is_looked_at(self, scene: Scene) -> None:
        ids = [new_id() for _ in range(300)]
        async with AsyncExitStack() as stack:
            followers = [await stack.enter_async_context(following(scene.reading, id)) for id in ids]
            await asyncio.sleep(0.2)
            for id in ids:
                await scene.put(id, "1-0", "")
                await scene.put(id, "1-3", "One")
            for follower in followers:
                await follower.has("One")

    async def test_a_hole_that_cannot_be_filled_leaves_the_reader_waiting(
        self, scene: Scene, message_id: MessageId
    ) -> None:
        await scene.put(message_id, "1-8", "two ")
        async with following(scene.reading, message_id) as follower:
            for end in range(12, 40, 4):
                await scene.put(message_id, f"1-{end}", "more")
                await scene.publish(message_id, f"1-{end}", "more")
                await asyncio.sleep(0.02)
            await asyncio.sleep(2 * SAFETY_SECONDS)
            assert follower.pieces == []
            await scene.writing.wake(message_id)
            await follower.looked(1)
            writer = scene.writing.write(message_id, 2)
            writer.add("Whole")
            await follower.has("Whole", attempt=2)

    async def test_what_was_missed_comes_before_the_wake(
        self, scene_without_checks: Scene, message_id: MessageId
    ) -> None:
        scene = scene_without_checks
        async with (
            scene.reading.follow(message_id) as reader,
            following(scene.reading, message_id) as probe,
        ):
            await written(scene.writing, message_id, "One ")
            await probe.has("One ")
            follower = Follower(reader)
            follower.take(await reader.read())
            await scene.put(message_id, "1-8", "two ")
            await scene.publish(message_id, "1-14", "three ")  # shows the gap, and is in no stream
            await scene.writing.wake(message_id)
            async with asyncio.timeout(HANG):
                while pieces := await reader.read():
                    follower.take(pieces)
            assert follower.text == "One two "


class TestStrangeData:
    async def test_pieces_of_an_earlier_attempt_are_ignored(self, scene: Scene, message_id: MessageId) -> None:
        async with following(scene.reading, message_id) as follower:
            await written(scene.writing, message_id, "Two", attempt=2)
            await follower.has("Two", attempt=2)
            await scene.publish(message_id, "1-0", "")
            await scene.publish(message_id, "1-3", "One")
            await scene.writing.wake(message_id)
            await follower.looked(1)
            assert follower.text == "Two"

    async def test_garbage_is_ignored(self, scene: Scene, message_id: MessageId) -> None:
        async with following(scene.reading, message_id) as follower:
            await written(scene.writing, message_id, "One")
            await follower.has("One")
            for garbage in (b"", b"\xff\xff", b"1-4", b"1-x y", b"1-4 \xff", b"-1-4 x", b"99999999999-1 x"):
                await scene.redis.publish(scene.key(message_id), garbage)
            await scene.redis.xadd(scene.key(message_id), {"strange": "field"}, id="1-9")
            await scene.writing.write(message_id, 2).close()
            await follower.has("", attempt=2)

    async def test_a_key_of_another_kind_harms_only_its_own_message(self, scene: Scene) -> None:
        broken, sound = new_id(), new_id()
        await scene.redis.set(scene.key(broken), "no stream")
        async with (
            following(scene.reading, broken) as broken_follower,
            following(scene.reading, sound) as follower,
        ):
            scene.writing.write(broken, 1).add("One")
            for attempt in range(1, 10):
                await written(scene.writing, sound, attempt=attempt)
                await follower.has(TEXT, attempt=attempt)
            await asyncio.sleep(2 * SAFETY_SECONDS)
            await scene.redis.delete(scene.key(broken))
            await broken_follower.has("One")


class TestCost:
    async def test_three_connections_for_a_thousand_readers(self, scene: Scene) -> None:
        before = await scene.connections()
        ids = [new_id() for _ in range(200)]
        async with AsyncExitStack() as stack:
            followers = [await stack.enter_async_context(following(scene.reading, id)) for _ in range(5) for id in ids]
            await asyncio.gather(*(written(scene.reading, id) for id in ids))
            for follower in followers:
                await follower.has(TEXT)
            assert await scene.connections() - before == 3

    async def test_none_before_the_first_use(self, scene: Scene) -> None:
        before = await scene.connections()
        await scene.reading.start()
        assert await scene.connections() == before
        await scene.reading.write(new_id(), 1).close()
        assert await scene.connections() - before == 1

    async def test_one_task_a_reader_would_be_too_many(self, scene: Scene, message_id: MessageId) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(scene.reading.follow(message_id))
            writer = scene.writing.write(message_id, 1)
            writer.add("One")
            before = len(asyncio.all_tasks())
            for _ in range(200):
                await stack.enter_async_context(scene.reading.follow(new_id()))
                scene.writing.write(new_id(), 1).add("One")
            assert len(asyncio.all_tasks()) == before

    async def test_a_quiet_connection_is_kept(self, scene: Scene, message_id: MessageId) -> None:
        async def listening() -> list[str]:
            return [client["id"] for client in await scene.redis.client_list(_type="pubsub")]

        async with following(scene.reading, message_id) as follower:
            await written(scene.writing, message_id)
            await follower.has(TEXT)
            before = await listening()
            await asyncio.sleep(5 * SAFETY_SECONDS)
            assert await listening() == before != []

    async def test_a_reader_that_never_reads_keeps_little(
        self, running_valkey: EmbeddedValkey, message_id: MessageId
    ) -> None:
        of_other_tests = _in_memory(ReplyPiece)
        async with (
            scene_on(running_valkey, flush_seconds=0.001, safety_seconds=60) as scene,
            scene.reading.follow(message_id) as sleeper,
            following(scene.reading, message_id) as probe,
        ):
            text = await write_many_pieces(scene.writing, message_id, 400, probe)
            assert len(probe.pieces) > 300
            probe.pieces.clear()
            assert _in_memory(ReplyPiece) - of_other_tests < 300
            async with following(scene.reading, message_id, after=probe.position, text=text) as joined:
                await scene.writing.wake(message_id)
                await joined.looked(1)  # the stream was read for it
            follower = Follower(sleeper)
            async with asyncio.timeout(HANG):
                while follower.text != text:
                    follower.take(await sleeper.read())

    async def test_who_lost_its_message_goes_silent(self, scene: Scene, message_id: MessageId) -> None:
        async def calls() -> int:
            return int((await scene.redis.info("commandstats"))["cmdstat_evalsha"]["calls"])

        zombie = scene.writing.write(message_id, 1)
        await written(scene.writing, message_id, attempt=2)
        zombie.add("One")
        await zombie.close()
        before = await calls()
        zombie = scene.writing.write(message_id, 1)
        for _ in range(20):
            zombie.add("One")
            await asyncio.sleep(0.02)
        assert await calls() == before + 1

    async def test_streams_expire_and_are_bounded(self, scene: Scene, message_id: MessageId) -> None:
        writer = scene.writing.write(message_id, 1)
        async with following(scene.reading, message_id) as follower:
            await follower.has("")
            assert 590_000 < await scene.redis.pttl(scene.key(message_id)) <= 600_000
            await scene.redis.pexpire(scene.key(message_id), 30_000)
            writer.add("One")
            await follower.has("One")
        assert 590_000 < await scene.redis.pttl(scene.key(message_id)) <= 600_000

    async def test_a_new_attempt_drops_what_the_old_one_wrote(self, scene: Scene, message_id: MessageId) -> None:
        await written(scene.writing, message_id)
        await written(scene.writing, message_id, "Two", attempt=2)
        entries: Any = await scene.redis.xrange(scene.key(message_id))
        assert all(id.startswith(b"2-") for id, _ in entries)

    async def test_who_has_read_enough_is_forgotten(self, scene: Scene) -> None:
        of_other_tests = _in_memory(Topic, Reader)
        for _ in range(5):
            async with AsyncExitStack() as stack:
                for _ in range(50):
                    await stack.enter_async_context(following(scene.reading, new_id()))
                assert _in_memory(Topic, Reader) >= of_other_tests + 100
        give_up = asyncio.get_running_loop().time() + HANG
        while await scene.redis.pubsub_channels(f"{scene.namespace}:*"):
            assert asyncio.get_running_loop().time() < give_up, "still subscribed"
            await asyncio.sleep(0.01)
        assert _in_memory(Topic, Reader) <= of_other_tests


def _in_memory(*kinds: type) -> int:
    gc.collect()
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())
