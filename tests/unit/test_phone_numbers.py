"""One number, one spelling."""

from __future__ import annotations

import pytest

from adapters.phone_numbers import LibPhoneNumbers
from domain.errors import InvalidMobile


@pytest.mark.parametrize(
    ("region", "text", "number"),
    [
        ("IN", text, "+919876543210")
        for text in (
            "+919876543210", "9876543210", "09876543210", "98765 43210", "98765-43210", "(98765) 43210",
            "+91 98765 43210", "0091 98765 43210", "+91-98765-43210", "  +91 98765 43210\n", "tel:+91-98765-43210",
            "+९१ ९८७६५ ४३२१०", "＋９１９８７６５４３２１０",
            "+٩١ ٩٨٧٦٥ ٤٣٢١٠", "\u202a+91\u00a098765\u00a043210\u202c", "\u200e+91 98765 43210", "\ufeff9876543210",
            "\u2068+919876543210\u2069", "+91\u200e98765\u200f43210", "98765\u200b43210", "98765\u200d43210",
            "98765\u201143210",
        )
    ]
    + [
        ("IN", "+49 151 23456789", "+4915123456789"),
        ("DE", "0151 23456789", "+4915123456789"),
        ("DE", "+91 98765 43210", "+919876543210"),
        ("US", "(201) 555-0123", "+12015550123"),
        ("IN", "+1 201 555 0123", "+12015550123"),
    ],
)  # fmt: skip
def test_is_read_however_it_is_spelled(region: str, text: str, number: str) -> None:
    assert LibPhoneNumbers(region).parse(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "+", "abc", "12", "123456", "98765432", "98765432101234567", "+91", "+999 98765 43210", "9" * 10_000,
        "+91 11 2345 6789", "1800 123 4567", "100", "\0", "🌻", "None", "+91 00000 00000",
    ],
)  # fmt: skip
def test_what_is_no_mobile_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidMobile) as caught:
        LibPhoneNumbers("IN").parse(text)
    assert caught.value.pointer == "/mobile"
    assert caught.value.__cause__ is None


def test_its_own_spelling_is_kept() -> None:
    numbers = LibPhoneNumbers("IN")
    assert numbers.parse(numbers.parse("098765 43210")) == "+919876543210"
