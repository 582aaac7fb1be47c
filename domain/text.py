"""What devices do to text: digits of other scripts, unusual spaces, invisible characters."""

from __future__ import annotations

import unicodedata

_SPACES = ("Zs", "Zl", "Zp")
_INVISIBLE = ("Cf",)  # zero-width characters, direction marks, soft hyphens
_MARKS = ("Mn", "Me")  # including variation selectors; they need a base character
#: Letters and symbols that are blank: Hangul fillers, the Braille cell without dots, and a note without a head.
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")
#: Unassigned, and never to be seen whatever they will mean: Unicode's Default_Ignorable_Code_Point.
_RESERVED_INVISIBLE = ((0x2065, 0x2065), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF))


def is_blank(text: str) -> bool:
    """Whether nothing of it is visible. Unassigned characters count as visible: there are new emoji each year."""
    return all(
        character in _BLANK_LETTERS
        or unicodedata.category(character) in (*_SPACES, *_INVISIBLE, *_MARKS, "Cc")
        or any(first <= ord(character) <= last for first, last in _RESERVED_INVISIBLE)
        for character in text
    )


def without_invisible(text: str) -> str:
    """Without zero-width characters, direction marks and variation selectors, which may have been copied along."""
    return "".join(
        character
        for character in text
        if unicodedata.category(character) not in _INVISIBLE and not "\ufe00" <= character <= "\ufe0f"
    )


def ascii_digits(text: str) -> str:
    """With the digits of any script as ASCII digits, and without spaces, dashes, marks and invisible characters."""
    kept = (
        character
        for character in without_invisible(text)
        if not character.isspace()
        and unicodedata.category(character) not in (*_SPACES, *_MARKS, "Pd")
        and character != "\u2212"
    )
    return "".join(str(unicodedata.decimal(character, character)) for character in kept)


def opaque_string(text: str) -> str:
    """A password as RFC 8265 compares it: spaces of any kind are spaces, and the rest is in form NFC.

    The same password comes in different forms from different keyboards. What the RFC forbids is left as it is.
    """
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in text)
    return unicodedata.normalize("NFC", spaced)
