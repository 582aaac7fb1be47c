"""Unlocking a number after too many wrong guesses."""

from __future__ import annotations

from dataclasses import dataclass

from application.ports.accounts import GuessLimits, MobileNumbers


@dataclass(frozen=True, slots=True)
class UnlockNumber:
    """For operators: delete all wrong guesses made for a number. False if there were none."""

    guess_limits: GuessLimits
    mobile_numbers: MobileNumbers

    async def __call__(self, *, mobile: str) -> bool:
        return await self.guess_limits.reset(self.mobile_numbers.parse(mobile))
