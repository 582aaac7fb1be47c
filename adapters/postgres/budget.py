"""The model's budget of calls per minute, in Postgres."""

from __future__ import annotations

from datetime import timedelta

from adapters.postgres.statements import Statements
from application.ports.chat import ModelBudget

SQL = Statements("budget")


class PostgresModelBudget(ModelBudget):
    """The generic cell rate algorithm in one row, which all workers share and the loss of Redis does not reset.

    A tenth of the minute's calls may come at once. Together with the pace of the rest that is never
    more than `per_minute` within any sixty seconds.
    """

    def __init__(self, per_minute: int) -> None:
        """0 is unlimited, and costs nothing."""
        self._per_minute = per_minute
        at_once = max(1, per_minute // 10)
        self._interval = timedelta(seconds=60 / max(per_minute - at_once, 0.99))
        self._ahead = self._interval * (at_once - 1)

    async def reserve(self, *, within: float) -> float | None:
        if not self._per_minute:
            return 0.0
        booked = await SQL.reserve(interval=self._interval, ahead=self._ahead, within=timedelta(seconds=within))
        return max(0.0, booked[0]["wait"]) if booked else None
