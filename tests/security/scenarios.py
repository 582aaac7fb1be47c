"""All scenarios by name, in the order in which they play. The last one searches what the others have left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.chaos.scale import Row, Scale
from tests.security import scenarios_access as access
from tests.security import scenarios_addresses as addresses
from tests.security import scenarios_contract as contract
from tests.security import scenarios_hostile as hostile
from tests.security import scenarios_secrets as secrets
from tests.security.stage import Stage

SCENARIOS: dict[str, Callable[[Stage, Scale, int], Awaitable[Row]]] = {
    scenario.__name__: scenario
    for scenario in (
        access.authorisation,
        access.tampering,
        access.revocation,
        addresses.forged_addresses,
        addresses.known_numbers,
        hostile.bytes_that_mean_harm,
        hostile.slow_clients,
        contract.schemathesis,
        secrets.bad_settings,
        secrets.canaries,
    )
}

#: They take Redis away, or look at a picture that nobody else may change.
ALONE = ("revocation",)
#: They search what the others have left behind.
LAST = ("canaries",)
