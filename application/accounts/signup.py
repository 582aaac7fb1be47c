"""Signing up."""

from __future__ import annotations

from dataclasses import dataclass

from application.ports.accounts import MobileNumbers, Users
from application.ports.runtime import Clock, Ids
from domain.accounts import User
from domain.ids import UserId


@dataclass(frozen=True, slots=True)
class SignUp:
    """Create an account for a mobile number.

    One number has one account, however it is spelled. The number is proved later, with a
    one-time code.
    """

    users: Users
    mobile_numbers: MobileNumbers
    clock: Clock
    ids: Ids

    async def __call__(self, *, mobile: str, name: str) -> User:
        user = User(
            id=UserId(self.ids.new()),
            mobile=self.mobile_numbers.parse(mobile),
            name=name,
            created_at=self.clock.now(),
        )
        await self.users.add(user)
        return user
