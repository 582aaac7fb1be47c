"""What people's devices do to text."""

from __future__ import annotations

import pytest

from domain.text import ascii_digits, is_blank, without_invisible


@pytest.mark.parametrize(
    "text",
    [
        "042137", " 042137\n", "042 137", "042-137", "0 4 2 1 3 7",
        "०४२१३७", "٠٤٢١٣٧", "۰۴۲۱۳۷", "０４２１３７", "০৪২১৩৭", "𝟎𝟒𝟐𝟏𝟑𝟕", "०42१37",
        "042\u00a0137", "042\u202f137", "042\u3000137", "042\u2011137", "042\u2013137", "042\u2212137",
        "０４２－１３７",
        "\u200e042137\u200f", "\u202a042137\u202c", "\u2068042137\u2069", "\ufeff042137", "042\u200b137",
        "042\u00ad137",
        "0\ufe0f42137", "042\t137",
    ],
)  # fmt: skip
def test_a_code_is_its_digits(text: str) -> None:
    assert ascii_digits(text) == "042137"


@pytest.mark.parametrize(
    "text", ["", "12345", "1234567", "abcdef", "12345a", "²³⁴⁵⁶⁷", "①②③④⑤⑥", "ⅥⅥⅥⅥⅥⅥ", "12345\0", "123.456"]
)
def test_what_has_not_six_digits_does_not_get_them(text: str) -> None:
    read = ascii_digits(text)
    assert not (len(read) == 6 and read.isascii() and read.isdecimal())


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "\n\t", "\u00a0", "\u3000", "\u200b", "\u200b\u200c\u200d", "\u2060", "\ufeff", "\u200e\u200f",
        "\u00ad",
        "\u2028", "\u3164", "\uffa0", "\u115f\u1160", "\u2800", "\u034f", "\ufe0f", "\u0301", "\U000e0020", "\x00",
        " \u200b \u2063 ",
    ],
)  # fmt: skip
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        ".",
        "0",
        "आशा",
        "日本",
        "é",
        "e\u0301",
        "🌻",
        "👩\u200d🔬",
        "\u200bAnn",
        "\U0001fae9",
        "\uf8ff",
        "ी",
        "𝒜",
        "-",
    ],
)
def test_what_shows_something_is_not(text: str) -> None:
    assert not is_blank(text)


def test_what_was_copied_along_goes_and_nothing_else() -> None:
    assert without_invisible("\u202a+91\u00a098765 43210\u202c") == "+91\u00a098765 43210"
