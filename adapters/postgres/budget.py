"""The calls of the model a minute, counted in Postgres."""

from __future__ import annotations

from datetime import timedelta

from adapters.postgres.connection import rows
from application.ports.chat import ModelBudget


class PostgresModelBudget(ModelBudget):
    """The generic cell rate algorithm in one row, so that all workers share it and a lost Redis does not reset it.

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
        booked = await rows(
            "INSERT INTO model_budget AS budget VALUES (1, clock_timestamp() + $1::interval)"
            " ON CONFLICT (id) DO UPDATE"
            " SET booked_until = greatest(budget.booked_until, clock_timestamp()) + $1::interval"
            " WHERE budget.booked_until - $2::interval <= clock_timestamp() + $3::interval"
            " RETURNING extract(epoch FROM booked_until - ($1::interval + $2::interval) - clock_timestamp())::float8"
            " AS wait",
            self._interval,
            self._ahead,
            timedelta(seconds=within),
        )
        return max(0.0, booked[0]["wait"]) if booked else None
