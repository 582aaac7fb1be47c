"""What people's devices do to text."""

from __future__ import annotations

import pytest

from domain.text import ascii_digits, is_blank, opaque_string, without_invisible


@pytest.mark.parametrize(
    "text",
    [
        "042137", " 042137\n", "042 137", "042-137", "0 4 2 1 3 7",
        "०४२१३७", "٠٤٢١٣٧", "۰۴۲۱۳۷", "０４２１３７", "০৪২১৩৭", "𝟎𝟒𝟐𝟏𝟑𝟕", "०42१37",
        "042\u00a0137", "042\u202f137", "042\u3000137", "042\u2011137", "042\u2013137", "042\u2212137",
        "０４２－１３７",
        "\u200e042137\u200f", "\u202a042137\u202c", "\u2068042137\u2069", "\ufeff042137", "042\u200b137",
        "042\u00ad137",
        "0\ufe0f42137", "042\t137", "0\ufe0f\u20e34\ufe0f\u20e32\ufe0f\u20e31\ufe0f\u20e33\ufe0f\u20e37\ufe0f\u20e3",
        "042\U000e0100137", "042\U000e0041137",
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
        " \u200b \u2063 ", "\U000e0041\U000e007f", "\U000e0100", "\u2065", "\ufff0", "\U000e0fff", "\u17b4",
        "\u180e", "\u202e\u202c", "\U0001d173", "\U0001d159", "\u061c",
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


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("correct horse", "correct horse"),
        ("cafe\u0301 noir", "café noir"),
        ("café noir", "café noir"),
        ("correct\u00a0horse", "correct horse"),
        ("correct\u3000horse", "correct horse"),
        ("\u1112\u1161\u11ab", "한"),
        ("\u212bngstro\u0308m", "Ångström"),
        ("ＡＢＣ", "ＡＢＣ"),
        ("Straße", "Straße"),
        ("a\tb", "a\tb"),
    ],
)  # of RFC 8265, section 4.2.2: width and case stay as they are
def test_a_password_is_prepared_as_an_opaque_string(typed: str, meant: str) -> None:
    assert opaque_string(typed) == opaque_string(meant) == meant
