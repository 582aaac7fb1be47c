"""Mobile numbers, by Google's libphonenumber."""

from __future__ import annotations

import phonenumbers

from application.ports.accounts import MobileNumbers
from domain.accounts import MobileNumber
from domain.errors import InvalidMobile
from domain.text import without_invisible

_MOBILE = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE)


class LibPhoneNumbers(MobileNumbers):
    def __init__(self, default_region: str) -> None:
        self._default_region = default_region

    def parse(self, text: str) -> MobileNumber:
        try:
            # Contact apps copy numbers with invisible direction marks around them.
            number = phonenumbers.parse(without_invisible(text), self._default_region)
        except phonenumbers.NumberParseException:
            raise InvalidMobile from None
        if not phonenumbers.is_valid_number(number) or phonenumbers.number_type(number) not in _MOBILE:
            raise InvalidMobile
        return MobileNumber(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))

    def country(self, number: MobileNumber) -> str:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number)) or ""
