"""Requests as bytes, against RFC 9112: each has one right answer, and nothing of it is read as a second request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
import pytest

from entrypoints.http.server.framing import BadFraming, parse
from tests.support.patience import HANG

#: Comes after each case. A connection that goes on answers it last, and then ends.
_LAST = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-ID: last\r\nConnection: close\r\n\r\n"
_GET = b"GET /health HTTP/1.1\r\n"
_HOST = b"Host: a\r\n"
_POST = b"POST /auth/logout HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
#: Of a body of two bytes.
_TWO = b"Content-Length: 2\r\n\r\n{}"


def _get(*fields: bytes) -> bytes:
    return _GET + _HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def _target(target: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def _host(*hosts: bytes) -> bytes:
    return _GET + b"".join(b"Host: " + host + b"\r\n" for host in hosts) + b"\r\n"


#: Read as a request, with its status. The connection goes on.
ACCEPTED: dict[str, tuple[bytes, int]] = {
    "a plain request": (_get(), 200),
    "an empty line before the request": (b"\r\n" + _get(), 200),
    "a later minor version": (b"GET /health HTTP/1.2\r\nHost: a\r\n\r\n", 200),
    "the latest minor version": (b"GET /health HTTP/1.9\r\nHost: a\r\n\r\n", 200),
    "HTTP/1.0 that is to be kept alive": (b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
    "HTTP/1.0 with Keep-Alive in capitals": (b"GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 200),
    "HTTP/1.0 with a Host": (b"GET /health HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 200),
    "an empty Host": (_host(b""), 200),
    "a Host with a port": (_host(b"example.com:8000"), 200),
    "a Host with an empty port": (_host(b"example.com:"), 200),
    "an IPv4 Host": (_host(b"127.0.0.1:80"), 200),
    "an IPv6 Host": (_host(b"[::1]:80"), 200),
    "a Host with a quoted octet": (_host(b"a%2Db"), 200),
    "a Host with an underscore": (_host(b"my_service"), 200),
    "a Host behind blanks": (_GET + b"Host:  \t a \t\r\n\r\n", 200),
    "a Host without a blank": (_GET + b"Host:a\r\n\r\n", 200),
    "field names in capitals": (_GET + b"HOST: a\r\nCONNECTION: KEEP-ALIVE\r\n\r\n", 200),
    "an empty field": (_get(b"X-A:"), 200),
    "a field with a tab": (_get(b"X-A: a\tb"), 200),
    "a field with bytes above ASCII": (_get(b"X-A: \xff\xfe"), 200),
    "a field with a colon": (_get(b"X-A: a:b"), 200),
    "a field name of all token characters": (_get(b"!#$%&'*+-.^_`|~09Az: a"), 200),
    "the same field twice": (_get(b"X-A: a", b"X-A: b"), 200),
    "a hundred fields": (_get(*[b"X-A: a"] * 99), 200),
    "another option of the connection": (_get(b"Connection: foo"), 200),
    "an upgrade to h2c": (_get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"), 200),
    "an upgrade to a websocket": (_get(b"Connection: Upgrade", b"Upgrade: websocket"), 200),
    "TE": (_get(b"TE: trailers, deflate;q=0.5"), 200),
    "an expectation without a body": (_get(b"Expect: 100-continue"), 200),
    "an absolute target": (_target(b"http://elsewhere/health"), 200),
    "an absolute target in capitals": (_target(b"HTTPS://elsewhere:443/health"), 200),
    "an absolute target without a path": (_target(b"http://elsewhere?a"), 200),
    "an absolute target with an IPv6 address": (_target(b"http://[::1]:80/health?a"), 200),
    "a target with a query": (_target(b"/health?a=b&c=%00"), 200),
    "a target with what browsers leave": (_target(b"/<script>|{}[]^`\\"), 404),
    "OPTIONS *": (_target(b"*", b"OPTIONS"), 405),
    "HEAD": (_target(b"/health", b"HEAD"), 200),
    "a method in small letters": (_target(b"/health", b"get"), 405),
    "HEAD in small letters": (_target(b"/health", b"head"), 405),
    "an unknown method": (_target(b"/health", b"BREW"), 405),
    "TRACE": (_target(b"/health", b"TRACE"), 405),
    "a body on GET": (_GET + _HOST + _TWO, 200),
    "a body": (_POST + _TWO, 401),
    "a body of nothing": (_POST + b"Content-Length: 0\r\n\r\n", 401),
    "no body": (_POST + b"\r\n", 401),
    "a length with zeros before it": (_POST + b"Content-Length: 0002\r\n\r\n{}", 401),
    "a length behind a tab": (_POST + b"Content-Length:\t2 \r\n\r\n{}", 401),
    "chunks": (_CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", 401),
    "chunks with sizes in hexadecimal": (_CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", 401),
    "chunks with zeros before the size": (_CHUNKED + b"0002\r\n{}\r\n0000\r\n\r\n", 401),
    "chunks that hold a request": (_CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(_SMUGGLED), _SMUGGLED), 401),
    "chunks in another case": (_POST + b"Transfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 401),
    "chunks on GET": (_GET + _HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
    "no chunk but the last": (_CHUNKED + b"0\r\n\r\n", 401),
    "a body that holds a request": (_POST + b"Content-Length: %d\r\n\r\n" % len(_SMUGGLED) + _SMUGGLED, 401),
    "a body and an empty line behind it": (_POST + _TWO + b"\r\n", 401),
}

#: Read as a request that ends its connection, with its status.
CLOSING: dict[str, tuple[bytes, int]] = {
    "Connection: close": (_get(b"Connection: close"), 200),
    "Connection: Close": (_get(b"Connection: Close"), 200),
    "close among others": (_get(b"Connection: foo, close"), 200),
    "close in a second line": (_get(b"Connection: keep-alive", b"Connection: close"), 200),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", 200),
    "HTTP/1.0 with another option": (b"GET /health HTTP/1.0\r\nConnection: foo\r\n\r\n", 200),
    "HTTP/1.0 with an expectation": (b"POST /auth/logout HTTP/1.0\r\nExpect: a miracle\r\n" + _TWO, 401),
    "an expectation that nobody knows": (_POST + b"Expect: a miracle\r\n" + _TWO, 417),
    "too many fields": (_get(*[b"X-A: a"] * 100), 431),
    "a head that is too long": (_get(b"X-A: " + b"a" * 17_000), 431),
    "a request line that is too long": (_target(b"/" + b"a" * 17_000), 431),
    "a length that is too large": (_POST + b"Content-Length: 99999999999999999999\r\n\r\n{}", 413),
}

#: Refused with 400, and the connection ends.
REFUSED: dict[str, bytes] = {
    # the ends of lines
    "a line feed behind the request line": b"GET /health HTTP/1.1\nHost: a\r\n\r\n",
    "line feeds alone": b"GET /health HTTP/1.1\nHost: a\n\n",
    "a line feed behind a field": _GET + b"Host: a\nX-A: a\r\n\r\n",
    "a line feed before the empty line": _GET + b"Host: a\n\r\n",
    "a line feed as the empty line": _GET + b"Host: a\r\n\n",
    "a line feed in a value": _get(b"X-A: a\nContent-Length: 5"),
    "a line feed in a name": _get(b"X-\nA: a"),
    "a line feed in the target": b"GET /he\nalth HTTP/1.1\r\nHost: a\r\n\r\n",
    "a line feed before the request": b"\n" + _get(),
    "a carriage return in a value": _get(b"X-A: a\rb"),
    "a carriage return before the request": b"\r" + _get(),
    "two carriage returns": _GET + b"Host: a\r\r\n\r\n",
    "NUL in a value": _get(b"X-A: a\0b"),
    "NUL in a name": _get(b"X-\0A: a"),
    "NUL in the target": _target(b"/health\0"),
    "NUL in the method": _target(b"/health", b"G\0ET"),
    "two empty lines before the request": b"\r\n\r\n" + _get(),
    # the request line
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "no version": b"GET /health \r\nHost: a\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version without its minor": b"GET /health HTTP/1\r\nHost: a\r\n\r\n",
    "a version of two digits": b"GET /health HTTP/1.10\r\nHost: a\r\n\r\n",
    "a version with a zero before it": b"GET /health HTTP/01.1\r\nHost: a\r\n\r\n",
    "a version in small letters": b"GET /health http/1.1\r\nHost: a\r\n\r\n",
    "another protocol": b"GET /health HTTPS/1.1\r\nHost: a\r\n\r\n",
    "HTTP/9.9": b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n",
    "HTTP/3": b"GET /health HTTP/3\r\nHost: a\r\n\r\n",
    "two blanks before the target": b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "two blanks before the version": b"GET /health  HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank before the method": b" GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank behind the version": b"GET /health HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a tab instead of a blank": b"GET\t/health\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank in the target": _target(b"/health health"),
    "a method that is not a token": _target(b"/health", b"G(E)T"),
    "no method": b" /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    # the target
    "a relative target": _target(b"health"),
    "a fragment": _target(b"/health#a"),
    "bytes above ASCII": _target(b"/\xff"),
    "a control character": _target(b"/\x01"),
    "DEL": _target(b"/\x7f"),
    "* for GET": _target(b"*"),
    "an authority for GET": _target(b"example.com:443"),
    "CONNECT": _target(b"example.com:443", b"CONNECT"),
    "an absolute target of another scheme": _target(b"ftp://elsewhere/health"),
    "an absolute target without a host": _target(b"http:///health"),
    "an absolute target with a user": _target(b"http://me@elsewhere/health"),
    "an absolute target with a fragment": _target(b"http://elsewhere/health#a"),
    "an absolute target without slashes": _target(b"http:health"),
    # the Host
    "no Host": _GET + b"\r\n",
    "no Host with an absolute target": b"GET http://a/health HTTP/1.1\r\n\r\n",
    "two Hosts": _host(b"a", b"b"),
    "the same Host twice": _host(b"a", b"a"),
    "two Hosts with HTTP/1.0": b"GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "two Hosts in one": _host(b"a, b"),
    "a Host with a path": _host(b"a/b"),
    "a Host with a user": _host(b"me@a"),
    "a Host with a blank": _host(b"a b"),
    "a Host with a scheme": _host(b"http://a"),
    "a Host with a port in words": _host(b"a:http"),
    "a Host with two ports": _host(b"a:80:90"),
    "a Host with a fragment": _host(b"a#b"),
    "a Host with a broken quote": _host(b"a%2"),
    "a Host with half an IPv6 address": _host(b"[::1"),
    "a Host above ASCII": _host(b"\xc3\xbc"),
    # fields
    "a folded field": _get(b"X-A: a", b" b"),
    "a folded field with a tab": _get(b"X-A: a", b"\tb"),
    "a field folded into nothing": _get(b"X-A: a", b" "),
    "a blank before the first field": _GET + b" Host: a\r\n\r\n",
    "a blank before the colon": _GET + _HOST + b"Content-Length : 2\r\n\r\n{}",
    "a tab before the colon": _GET + _HOST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a field without a colon": _get(b"X-A"),
    "a field without a name": _get(b": a"),
    "a name that is not a token": _get(b"X(A): a"),
    "a name with a blank": _get(b"X A: a"),
    "a name above ASCII": _get(b"X-\xc3\xbc: a"),
    "a name in quotes": _get(b'"X-A": a'),
    # the length of the body
    "two lengths": _POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "the same length twice": _POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths in one": _POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a length with a plus": _POST + b"Content-Length: +2\r\n\r\n{}",
    "a negative length": _POST + b"Content-Length: -2\r\n\r\n{}",
    "a length with a blank in it": _POST + b"Content-Length: 2 2\r\n\r\n{}",
    "a length in hexadecimal": _POST + b"Content-Length: 0x2\r\n\r\n{}",
    "a length with an underscore": _POST + b"Content-Length: 1_0\r\n\r\n{}",
    "a length with a point": _POST + b"Content-Length: 2.0\r\n\r\n{}",
    "a length in words": _POST + b"Content-Length: two\r\n\r\n{}",
    "a length in other digits": _POST + "Content-Length: ２\r\n\r\n{}".encode(),
    "a length of 21 digits": _POST + b"Content-Length: 000000000000000000002\r\n\r\n{}",
    "a length behind a vertical tab": _POST + b"Content-Length: \x0b2\r\n\r\n{}",
    "an empty length": _POST + b"Content-Length:\r\n\r\n{}",
    "a length and chunks": _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    # the coding of the body
    "chunks twice": _POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks twice in one": _POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "identity": _POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunks and identity": _POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip and chunks": _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks by another name": _POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks behind a vertical tab": _POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks with a parameter": _POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "chunks in quotes": _POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "an empty coding": _POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "chunks with HTTP/1.0": (
        b"POST /auth/logout HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
}  # fmt: skip

#: Their heads are right, and their chunks are not. The call reads its body, so it is refused with 400.
BAD_CHUNKS: dict[str, bytes] = {
    "an extension": b"2;a=b\r\n{}\r\n0\r\n\r\n",
    "an extension without a name": b"2;\r\n{}\r\n0\r\n\r\n",
    "an extension with a line feed": b"2;\n{}\r\n0\r\n\r\n" + _SMUGGLED,
    "an extension with a request in it": b"0;\n\r\n\r\n" + _SMUGGLED,
    "an extension in quotes": b'2;a="\r\n"\r\n{}\r\n0\r\n\r\n',
    "an extension of the last chunk": b"2\r\n{}\r\n0;a\r\n\r\n",
    "a blank behind the size": b"2 \r\n{}\r\n0\r\n\r\n",
    "a blank before the size": b" 2\r\n{}\r\n0\r\n\r\n",
    "a tab behind the size": b"2\t\r\n{}\r\n0\r\n\r\n",
    "a size in words": b"zz\r\n{}\r\n0\r\n\r\n",
    "a size of 0x2": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a size with a plus": b"+2\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "a size with an underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "a size that never ends": b"0" * 40 + b"2\r\n{}\r\n0\r\n\r\n",
    "a line feed behind the size": b"2\n{}\r\n0\r\n\r\n",
    "a line feed behind the data": b"2\r\n{}\n0\r\n\r\n",
    "a line feed behind the last size": b"2\r\n{}\r\n0\n\n" + _SMUGGLED,
    "more data than the size says": b"2\r\n{}}\r\n0\r\n\r\n",
    "less data than the size says": b"4\r\n{}\r\n0\r\n\r\n" + _SMUGGLED,
    "no line end behind the data": b"2\r\n{}0\r\n\r\n",
    "a trailer": b"2\r\n{}\r\n0\r\nX-A: a\r\n\r\n",
    "a request as the trailer": b"0\r\n" + _SMUGGLED,
    "a length as the trailer": b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a NUL in the size": b"2\0\r\n{}\r\n0\r\n\r\n",
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def answers(http: httpx.AsyncClient, *pieces: bytes) -> list[Answer]:
    """All answers on one connection, up to its end."""
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    try:
        async with asyncio.timeout(HANG):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            received = await reader.read()
            while more := await reader.read():
                received += more
    finally:
        writer.transport.abort()
    return list(_split(received, is_head=pieces[0].startswith(b"HEAD")))


def _split(received: bytes, *, is_head: bool) -> list[Answer]:
    found: list[Answer] = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        length = 0 if is_head and not found else int(headers.get("content-length", "0"))
        found.append(Answer(int(line.split()[1]), headers, received[:length]))
        received = received[length:]
    return found


def _is_last(answer: Answer) -> bool:
    return answer.headers["x-request-id"] == "last"


@pytest.mark.parametrize(("sent", "status"), ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_is_read(http: httpx.AsyncClient, sent: bytes, status: int) -> None:
    first, last = await answers(http, sent + _LAST)
    assert (first.status, _is_last(first)) == (status, False)
    assert (last.status, _is_last(last)) == (200, True)


@pytest.mark.parametrize(("sent", "status"), CLOSING.values(), ids=CLOSING.keys())
async def test_is_the_last_of_its_connection(http: httpx.AsyncClient, sent: bytes, status: int) -> None:
    (only,) = await answers(http, sent + _LAST)
    assert (only.status, only.headers["connection"], _is_last(only)) == (status, "close", False)


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
async def test_is_refused(http: httpx.AsyncClient, sent: bytes) -> None:
    (only,) = await answers(http, sent + _LAST)
    assert (only.status, only.headers["connection"]) == (400, "close")
    assert b'"code":"malformed_request"' in only.body


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
async def test_a_bad_chunk_is_refused(http: httpx.AsyncClient, chunks: bytes) -> None:
    (only,) = await answers(http, _CHUNKED.replace(b"/auth/logout", b"/auth/signup") + chunks + _LAST)
    assert (only.status, only.headers["connection"]) == (400, "close")
    assert b'"code":"malformed_request"' in only.body


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
async def test_a_bad_chunk_behind_an_answer_is_never_a_request(http: httpx.AsyncClient, chunks: bytes) -> None:
    """The body of what is refused by its head alone is discarded after the answer."""
    nowhere = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert [answer.status for answer in await answers(http, nowhere + chunks + _LAST)] == [404]


@pytest.mark.parametrize("name", ["a plain request", "chunks", "a body", "an empty line before the request"])
async def test_bytes_may_come_one_by_one(http: httpx.AsyncClient, name: str) -> None:
    sent, status = ACCEPTED[name]
    whole = sent + _LAST
    first, last = await answers(http, *(whole[at : at + 1] for at in range(len(whole))))
    assert (first.status, last.status, _is_last(last)) == (status, 200, True)


async def test_pipelined_requests_are_answered_in_order(http: httpx.AsyncClient) -> None:
    sent = b"".join(_get(b"X-Request-ID: n%d" % number) for number in range(20))
    found = await answers(http, sent + _LAST)
    assert [answer.headers["x-request-id"] for answer in found] == [*(f"n{number}" for number in range(20)), "last"]


async def test_a_body_is_asked_for_before_it_is_sent(http: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    async with asyncio.timeout(HANG):
        writer.write(b"POST /auth/login HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readline()).startswith(b"HTTP/1.1 422 ")
    writer.transport.abort()


def test_there_are_enough() -> None:
    assert len(ACCEPTED) + len(CLOSING) + len(REFUSED) + len(BAD_CHUNKS) >= 150


def test_a_target_is_refused_in_linear_time() -> None:
    """In quadratic time this would take hours."""
    target = "http://" + "a" * 500_000 + "/" + "b" * 500_000 + "#"
    with pytest.raises(BadFraming):
        parse(f"GET {target} HTTP/1.1\r\nHost: a".encode())
