"""The syntax of a request's head, by the letter of RFC 9112.

A server and the proxy in front of it must agree where a request ends: otherwise a caller hides a second request in the
first. So whatever a proxy may read differently is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: Field names are tokens directly followed by the colon, lines are not folded, and no line contains CR, LF or NUL.
_LINES = re.compile(rb"[^\r\n\0]*(?:\r\n" + _NAME.encode() + rb":[^\r\n\0]*)*")
#: In a head that is not complete yet. A CR at its end may be the first half of a line's end.
_NEVER_RIGHT = re.compile(rb"(?<!\r)\n|\r[^\n]|\0")
_METHOD = re.compile(_NAME)
_VERSION = re.compile(r"HTTP/1\.([0-9])")
#: Browsers leave more unquoted than RFC 3986 allows.
_PATH = re.compile(r"/[!\"$-~]*")
#: As a client sends it to its proxy; every server must accept it (RFC 9112, section 3.2.2). Its parts overlap, so they
#: give nothing back: otherwise a target that does not match takes quadratic time.
_ABSOLUTE = re.compile(r"https?://([^/?]++)(/?)([!\"$-~]*+)", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?")
_LENGTH = re.compile(r"[0-9]{1,20}")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
MAX_CHUNK_LINE = 16
_OF_FRAMING = {"host", "content-length", "transfer-encoding", "connection"}

MAX_FIELDS = 100

Body = Literal[False, True, "chunked"]


class BadFraming(Exception):
    """It is not HTTP/1.1 or HTTP/1.0."""


class TooManyFields(Exception):
    """It has more than MAX_FIELDS lines."""


@dataclass(slots=True)
class Head:
    method: str
    #: A path, perhaps with a query, or "*".
    target: str
    #: "1.0", or "1.1" also for a later minor version (RFC 9110, section 2.5).
    version: str
    fields: list[tuple[str, str]]
    keep_alive: bool
    body: Body
    length: int


def is_hopeless(beginning: bytes | bytearray) -> bool:
    """Whether no continuation can make this a head."""
    return _NEVER_RIGHT.search(beginning) is not None


def request_line(head: bytes) -> tuple[str, str, str]:
    """Method, target and version, not checked yet. Raises BadFraming."""
    line = head.split(b"\r\n", 1)[0].decode(errors="surrogateescape")
    try:
        method, target, version = line.split(" ")
    except ValueError:
        raise BadFraming from None
    return method, target, version


def parse(head: bytes) -> Head:
    """A head without the empty line that ends it. Raises BadFraming or TooManyFields."""
    method, target, version = request_line(head)
    minor = _VERSION.fullmatch(version)
    if minor is None or not _METHOD.fullmatch(method) or not _LINES.fullmatch(head):
        raise BadFraming
    if not _PATH.fullmatch(target) and (method, target) != ("OPTIONS", "*"):
        target = _path_of(target)
    lines = head.decode(errors="surrogateescape").split("\r\n")
    if len(lines) > MAX_FIELDS + 1:
        raise TooManyFields
    fields: list[tuple[str, str]] = []
    found: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        field = name.lower(), value.strip(" \t")
        fields.append(field)
        if field[0] in _OF_FRAMING:
            found.setdefault(field[0], []).append(field[1])
    is_old = minor[1] == "0"
    hosts = found.get("host", [])
    if len(hosts) > 1 or not (hosts or is_old) or not all(map(_HOST.fullmatch, hosts)):
        raise BadFraming
    options = [option.strip(" \t") for option in ",".join(found.get("connection", [])).lower().split(",")]
    body, length = _body(found.get("content-length", []), found.get("transfer-encoding", []), is_old=is_old)
    return Head(
        method=method,
        target=target,
        version="1.0" if is_old else "1.1",
        fields=fields,
        keep_alive="close" not in options and (not is_old or "keep-alive" in options),
        body=body,
        length=length,
    )


def _path_of(target: str) -> str:
    found = _ABSOLUTE.fullmatch(target)
    if found is None or not _HOST.fullmatch(found[1]):
        raise BadFraming
    return f"/{found[3]}"


def _body(lengths: list[str], codings: list[str], *, is_old: bool) -> tuple[Body, int]:
    """How the body ends. HTTP/1.0 has no chunks (RFC 9112, section 6.1)."""
    if len(lengths) + len(codings) > 1:
        raise BadFraming
    if codings:
        if is_old or codings[0].lower() != "chunked":
            raise BadFraming
        return "chunked", 0
    if lengths:
        if not _LENGTH.fullmatch(lengths[0]):
            raise BadFraming
        return True, int(lengths[0])
    return False, 0


def chunk_size(line: bytes | bytearray) -> int:
    """Nobody needs extensions, and proxies disagree where one ends. Raises BadFraming."""
    if not _CHUNK_SIZE.fullmatch(line):
        raise BadFraming
    return int(line, 16)
