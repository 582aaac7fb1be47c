"""Whether the model accepts the deployment's key, in one row of Postgres."""

from __future__ import annotations

from adapters.postgres.statements import Statements
from application.ports.chat import ModelSetup

SQL = Statements("setup")


class PostgresModelSetup(ModelSetup):
    async def report(self, refused_for: str | None) -> None:
        await SQL.report(refused_for=refused_for)

    async def refused_for(self) -> str | None:
        found = await SQL.refused_for()
        return found[0]["refused_for"] if found else None
