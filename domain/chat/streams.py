"""Positions in a reply that is being written."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WRITTEN = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


@dataclass(frozen=True, slots=True, order=True)
class StreamPosition:
    """How far a reply was read: the attempt, and characters of it. Written `<attempt>-<characters>`.

    The position of a reply's end is one character after its last. Because characters are counted, not
    pieces, a reader can continue from the stored reply when the pieces are gone.
    """

    attempt: int = 0
    characters: int = 0

    @classmethod
    def parse(cls, text: str) -> StreamPosition | None:
        """None if the text is not a position."""
        found = _WRITTEN.fullmatch(text)
        return cls(int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.attempt}-{self.characters}"


START = StreamPosition()


@dataclass(frozen=True, slots=True)
class ReplyPiece:
    """A piece of a reply that is being written; `position` is where it ends.

    An attempt begins with a piece without text: at position 0, or at the end of the text that it
    continues. A piece with a `thought` has no text, so its position is that of the piece before it.
    """

    position: StreamPosition
    text: str = ""
    thought: str = ""

    @property
    def start(self) -> int:
        return self.position.characters - len(self.text)
