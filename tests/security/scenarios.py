"""All scenarios by name, in order. The last one searches what the others have left behind."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from tests.security import scenarios_access as access
from tests.security import scenarios_accounts as accounts
from tests.security import scenarios_addresses as addresses
from tests.security import scenarios_contract as contract
from tests.security import scenarios_hostile as hostile
from tests.security import scenarios_secrets as secrets
from tests.security.stage import Stage, stage
from tests.support.scenarios import Row, Scale, Scenario

SCENARIOS: dict[str, Callable[[Stage, Scale, int], Awaitable[Row]]] = {
    scenario.__name__: scenario
    for scenario in (
        access.authorisation,
        access.tampering,
        access.revocation,
        accounts.locking_out,
        accounts.returning,
        accounts.lost_refreshes,
        accounts.crowd,
        addresses.forged_addresses,
        addresses.known_numbers,
        hostile.bytes_that_mean_harm,
        hostile.slow_clients,
        contract.schemathesis,
        secrets.bad_settings,
        secrets.canaries,
    )
}

#: They stop Redis, or inspect state that nothing else may change meanwhile.
ALONE = ("revocation",)
#: They search through what the others have left behind.
LAST = ("canaries",)


@asynccontextmanager
async def staged() -> AsyncIterator[Mapping[str, Scenario]]:
    """The scenarios on one running product."""
    async with stage() as shared:
        yield {name: functools.partial(scenario, shared) for name, scenario in SCENARIOS.items()}
