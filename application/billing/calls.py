"""How often the payment service is called for one user."""

from __future__ import annotations

from dataclasses import dataclass

from application.ports.runtime import Bucket, RateLimiter
from domain.errors import RateLimited
from domain.ids import UserId
from domain.rates import Rate


@dataclass(frozen=True, slots=True)
class PaymentCalls:
    """Counts the calls that a user's requests cause, before they are made.

    Stripe limits those of all users together, so nobody may use them up.
    """

    limiter: RateLimiter
    rate: Rate | None
    """None is unlimited."""

    async def count(self, user_id: UserId) -> None:
        """Raises RateLimited."""
        if self.rate is None:
            return
        decision = await self.limiter.hit([Bucket("payments", str(user_id), self.rate)])
        if decision.retry_after > 0:
            raise RateLimited(retry_after=decision.retry_after)
