"""Parses server-sent events incrementally, in linear time, wherever the bytes are split."""

from __future__ import annotations


class EventStream:
    """Lines end with CRLF, LF or CR. The data lines of an event are joined; comments and other fields are skipped."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # the pieces of an incomplete line
        self._data: list[bytes] = []
        self._after_cr = False

    def feed(self, block: bytes) -> list[bytes]:
        """The data of the events that end in this block."""
        if self._after_cr and block:
            self._after_cr = False
            block = block.removeprefix(b"\n")  # the second half of a CRLF
        if b"\n" not in block and b"\r" not in block:
            self._line.append(block)
            return []
        self._after_cr = block.endswith(b"\r")
        whole = block if not self._line else b"".join((*self._line, block))
        lines = whole.splitlines()
        self._line = [] if whole.endswith((b"\n", b"\r")) else [lines.pop()]
        return self._events(lines)

    def end(self) -> list[bytes]:
        """The data of an event that lacks only the empty line after it."""
        line, self._line = b"".join(self._line), []
        return self._events([line, b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        return events
