"""Hostile bytes: each is refused as the documents say, costs little, and delays no other caller."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.security import raw
from tests.security.stage import Stage
from tests.support.scenarios import Row, Scale

SIGNUP = "/auth/signup"
_MEBIBYTE = 2**20


Cases = dict[str, tuple[list[bytes], set[int]]]

_POST = f"POST {SIGNUP} HTTP/1.1\r\nHost: a\r\n".encode()
_NOWHERE = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n"
_EVENT = b"POST /webhook/stripe HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_JSON = ("Content-Type", b"application/json")


def hostile(scale: Scale) -> Cases:
    """By name: the pieces to send, and the right answers. 0 is an end without an answer."""
    return _sizes() | _headers() | _lengths_and_chunks() | _content(scale.of(100_000, 1_000_000)) | _methods()


def _sizes() -> Cases:
    huge = [b" " * 65_536] * (100 * 16)  # 100 MB
    return {
        "100 MB": ([_POST + b"Content-Length: 104857600\r\n\r\n", *huge], {413}),
        "100 MB in chunks": ([_CHUNKED, *(b"10000\r\n" + piece + b"\r\n" for piece in huge)], {413}),
        "100 MB behind an answer": ([_NOWHERE + b"Content-Length: 104857600\r\n\r\n", *huge], {404, 413}),
        "100 MB to the webhook": (
            [_EVENT + b"Stripe-Signature: a\r\nContent-Length: 104857600\r\n\r\n", *huge],
            {413},
        ),
        "a body that is longer than it says": ([_POST + b"Content-Length: 2\r\n\r\n{}" + b"x" * 50_000], {422}),
        "10,000 headers": ([raw.request("GET", "/health", [("X-A", b"a")] * 10_000)], {431}),
        "a header of 1 MB": ([raw.request("GET", "/health", [("X-A", b"a" * _MEBIBYTE)])], {431}),
        "a path of 1 MB": ([raw.request("GET", "/" + "a" * _MEBIBYTE)], {431}),
        "a query of 1 MB": ([raw.request("GET", "/chatroom?" + "a=1&" * (_MEBIBYTE // 4))], {431}),
        "a query of 3,000 parts": ([raw.request("GET", "/chatroom?" + "limit=1&" * 1_900)], {401}),
        "no end of a request line": ([b"G" * 50_000], {431}),
    }


def _headers() -> Cases:
    return {
        "NUL in a header": ([raw.request("GET", "/health", [("X-A", b"a\0b")])], {400}),
        "NUL in a path": ([raw.request("GET", "/a\0b")], {400}),
        "NUL as %00": ([raw.request("GET", "/chatroom/%00")], {401}),
        "nothing but NUL": ([b"\0" * 10_000 + b"\r\n\r\n"], {400}),
        "a line feed in a header": ([raw.request("GET", "/health", [("X-A", b"a\nContent-Length: 5")])], {400}),
        "a carriage return in a header": ([raw.request("GET", "/health", [("X-A", b"a\rb")])], {400}),
        "a folded header": ([raw.request("GET", "/health", [("X-A", b"a\r\n b")])], {400}),
        "a blank before the colon": ([_POST + b"Content-Length : 2\r\n\r\n{}"], {400}),
        "a header without a name": ([b"GET /health HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n"], {400}),
        "a header with a strange name": ([b"GET /health HTTP/1.1\r\nHost: a\r\nX(A): a\r\n\r\n"], {400}),
    }


def _lengths_and_chunks() -> Cases:
    return {
        "two lengths": ([_POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"], {400}),
        "two lengths in one": ([_POST + b"Content-Length: 2, 2\r\n\r\n{}"], {400}),
        "a length with a plus": ([_POST + b"Content-Length: +2\r\n\r\n{}"], {400}),
        "a length in other digits": ([_POST + "Content-Length: ２\r\n\r\n{}".encode()], {400}),
        "a length in hexadecimal": ([_POST + b"Content-Length: 0x2\r\n\r\n{}"], {400}),
        "length and chunks": ([_POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], {400}),
        "another coding": ([_POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"], {400}),
        "chunks by another name": ([_POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"], {400}),
        "a chunk of 0x2": ([_CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n"], {400}),
        "a chunk of -2": ([_CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n"], {400}),
        "a chunk of +2": ([_CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n"], {400}),
        "a chunk of 1_0": ([_CHUNKED + b"1_0\r\n{}\r\n0\r\n\r\n"], {400}),
        "a huge chunk": ([_CHUNKED + b"ffffffffffffffffff\r\n{}"], {400, 413}),
        "a chunk's long extension": ([_CHUNKED + b"2;" + b"a" * 5_000 + b"\r\n{}\r\n0\r\n\r\n"], {400, 422}),
        "a request in the trailers": ([_CHUNKED + b"0\r\nGET /user/me HTTP/1.1\r\n\r\n"], {400}),
        "a chunk for each byte": ([_CHUNKED, *[b"1\r\n{\r\n"] * 5_000, b"0\r\n\r\n"], {400}),
    }


def _content(deep: int) -> Cases:
    return {
        "100,000-deep JSON": (
            [raw.request("POST", SIGNUP, [_JSON], b'{"mobile":' + b"[" * deep + b"]" * deep + b"}")],
            {413},
        ),
        "the deepest JSON that fits": ([raw.request("POST", SIGNUP, [_JSON], b'{"a":' * 13_000)], {400}),
        "bad UTF-8": ([raw.request("POST", SIGNUP, [_JSON], b'{"mobile": "\xff\xfe", "name": "\xc3\x28"}')], {400}),
        "bad UTF-8 in a header": ([raw.request("GET", "/user/me", [("Authorization", b"Bearer \xff\xfe\xc3")])], {401}),
        "bad UTF-8 in a path": ([raw.request("GET", "/chatroom/%ff%fe")], {401}),
        "bytes in a path": ([b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n"], {400}),
        "NUL in JSON": (
            [raw.request("POST", SIGNUP, [_JSON], b'{"mobile": "1\\u0000", "name": "a\\u0000"}')],
            {422},
        ),
    }


def _methods() -> Cases:
    return {
        "an unknown method": ([raw.request("BREW", "/health")], {405}),
        "a method of 10,000 letters": ([raw.request("A" * 10_000, "/health")], {405}),
        "a method that is none": ([raw.request("G(E)T", "/health")], {400, 405}),
        "CONNECT": ([raw.request("CONNECT", "example.com:443")], {400, 404, 405}),
        "TRACE": ([raw.request("TRACE", "/health")], {405}),
        "OPTIONS *": ([raw.request("OPTIONS", "*")], {400, 404, 405}),
        "a websocket": (
            [raw.request("GET", "/nowhere", [("Upgrade", b"websocket"), ("Connection", b"Upgrade")])],
            {404},
        ),
        "HTTP/9.9": ([b"GET /health HTTP/9.9\r\n\r\n"], {400}),
        "HTTP/2": ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], {400}),
        "TLS": ([bytes.fromhex("160301020001000001fc0303") + b"\r\n\r\n"], {400}),
        "rubbish": ([bytes(range(256)) * 200], {400, 431}),
        "a thousand blank lines": ([b"\r\n" * 1_000], {400}),
        "an unknown expectation": ([_POST + b"Expect: a miracle\r\nContent-Length: 2\r\n\r\n{}"], {417}),
    }


async def bytes_that_mean_harm(stage: Stage, scale: Scale, seed: int) -> Row:
    """Each in turn, and then all at once."""
    wrong: list[str] = []
    cases = hostile(scale)
    async with stage.api() as http:
        url, pid = str(http.base_url).rstrip("/"), int(http.headers["x-test-pid"])
        await http.get("/health")
        before, peak = _resident(pid), 0.0

        async def attack(name: str) -> None:
            nonlocal peak
            pieces, right = cases[name]
            began = time.monotonic()
            try:
                answer = await raw.send(url, *pieces, seconds=scale.bound(10))
            except TimeoutError:
                wrong.append(f"{name}: neither an answer nor an end")
                return
            if answer.status not in right:
                wrong.append(f"{name}: {answer.status} {answer.body[:100]!r}")
            elif answer.problem is None:
                wrong.append(f"{name}: no problem document but {answer.body[:100]!r}")
            elif time.monotonic() - began > scale.bound(10):
                wrong.append(f"{name}: {time.monotonic() - began:.1f} s")
            peak = max(peak, _resident(pid))

        async with _others_go_on(http) as others:
            for name in cases:
                await attack(name)
            for _ in range(scale.of(1, 10)):
                await asyncio.gather(*(attack(name) for name in cases))
    grown = (peak - before) / _MEBIBYTE
    measured = f"{len(cases)} cases, wrong: {wrong[:8] or 'none'}; {others}; memory {grown:+.0f} MiB"
    held = not wrong and not others.failed and grown <= 64
    return Row("hostile bytes", "4xx each, 0 5xx, memory +64 MiB at most, others go on", measured, held)


@dataclass
class _SlowClients:
    """Connections that send a byte at a time until they are cut after `limit` seconds."""

    url: str
    limit: float
    ends: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)

    async def drip(self, first: bytes, then: bytes) -> None:
        reader, writer = await raw.open_connection(self.url)
        began = time.monotonic()
        writer.write(first)

        async def go_on() -> None:
            while then:
                await asyncio.sleep(self.limit / 20)
                writer.write(then)

        dripping = asyncio.create_task(go_on())
        try:
            async with asyncio.timeout(self.limit * 4 + 20):
                self.answers[(await raw.read(reader)).status] += 1
                await reader.read()
        except ConnectionError:
            pass
        finally:
            self.ends.append(time.monotonic() - began)
            dripping.cancel()
            writer.transport.abort()


#: What they send first, and then again and again.
_SLOW: list[tuple[bytes, bytes]] = [
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: ", b"a"),
    (_POST + b"Content-Length: 60000\r\n\r\n{", b" "),
    (_CHUNKED, b"1\r\n \r\n"),
    (_NOWHERE + b"Content-Length: 60000\r\n\r\n", b" "),  # refused, then continued slowly
    (_EVENT + b"Content-Length: 60000\r\n\r\n", b" "),
    (b"", b""),
]


async def slow_clients(stage: Stage, scale: Scale, seed: int) -> Row:
    """Heads and bodies that come byte by byte, and connections on which nothing comes."""
    connections, limit = scale.of(200, 1_000), scale.of(2.0, 10.0)
    settings: dict[str, str] = scale.of({"HEADER_SECONDS": "1", "REQUEST_SECONDS": "2"}, {})
    async with stage.api(settings) as http:
        slow, pid = _SlowClients(str(http.base_url).rstrip("/"), limit), int(http.headers["x-test-pid"])
        await http.get("/health")
        before, peak = _resident(pid), 0.0
        async with _others_go_on(http) as others:
            dripping = [asyncio.create_task(slow.drip(*_SLOW[n % len(_SLOW)])) for n in range(connections)]
            while not all(task.done() for task in dripping):
                peak = max(peak, _resident(pid))
                await asyncio.sleep(0.1)
            await asyncio.gather(*dripping)
    grown = (peak - before) / _MEBIBYTE
    measured = (
        f"{connections} connections of {len(_SLOW)} kinds, the last one cut after {max(slow.ends):.1f} s, answers"
        f" {dict(slow.answers)}; {others}; memory {grown:+.0f} MiB"
    )
    held = max(slow.ends) <= limit + scale.of(5, 0.05) and not others.failed and grown <= 64
    return Row("slow heads and bodies", "cut in ≤ 10 s, others go on, memory +64 MiB at most", measured, held)


@dataclass
class Others:
    """Ordinary callers of the same process."""

    answered: int = 0
    failed: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]

    def __str__(self) -> str:
        return f"others: {self.answered} answered, {self.failed} not, p99 {self.p99 * 1000:.0f} ms"


@asynccontextmanager
async def _others_go_on(http: httpx.AsyncClient) -> AsyncIterator[Others]:
    others = Others()

    async def go_on() -> None:
        while True:
            began = time.monotonic()
            try:
                ready = (await http.get("/ready")).status_code == 200
            except httpx.HTTPError:
                ready = False
            others.seconds.append(time.monotonic() - began)
            others.answered += ready
            others.failed += not ready
            await asyncio.sleep(0.02)

    task = asyncio.create_task(go_on())
    try:
        yield others
    finally:
        task.cancel()


def _resident(pid: int) -> float:
    """Bytes."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) * 1024
