"""Signing up."""

from __future__ import annotations

from dataclasses import dataclass

from application.ports.accounts import MobileNumbers, Users
from application.ports.runtime import Clock, Ids
from domain.accounts import User
from domain.errors import MobileTaken
from domain.ids import UserId


@dataclass(frozen=True, slots=True)
class SignUp:
    """Create an account for a mobile number.

    A number has one account, in whatever form it is written. A one-time code proves the number later. With a
    `user_id` given, signing up again has no further effect.
    """

    users: Users
    mobile_numbers: MobileNumbers
    clock: Clock
    ids: Ids

    async def __call__(self, *, mobile: str, name: str, user_id: UserId | None = None) -> User:
        user = User(
            id=user_id or UserId(self.ids.new()),
            mobile=self.mobile_numbers.parse(mobile),
            name=name,
            created_at=self.clock.now(),
        )
        try:
            await self.users.add(user)
        except MobileTaken:
            taken_by = await self.users.find_by_mobile(user.mobile)
            if taken_by is None or taken_by.id != user.id:
                raise
            return taken_by
        return user
