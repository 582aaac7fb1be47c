"""The model's budget of calls per minute, in Postgres."""

from __future__ import annotations

from datetime import timedelta

from adapters.postgres.statements import Statements
from application.ports.chat import ModelBudget
from domain.rates import within_any_minute

SQL = Statements("budget")


class PostgresModelBudget(ModelBudget):
    """The rule of domain.rates.CallRate in one row, which all workers share and the loss of Redis does not reset."""

    def __init__(self, per_minute: int) -> None:
        """0 is unlimited, and costs nothing."""
        self._is_limited = per_minute > 0
        rate = within_any_minute(per_minute)
        self._interval = timedelta(microseconds=rate.interval)
        self._ahead = timedelta(microseconds=rate.window - rate.interval)

    async def reserve(self, *, within: float) -> float | None:
        if not self._is_limited:
            return 0.0
        booked = await SQL.reserve(interval=self._interval, ahead=self._ahead, within=timedelta(seconds=within))
        return max(0.0, booked[0]["wait"]) if booked else None
