"""How far a server's clock is from this machine's."""

from __future__ import annotations

from datetime import datetime, timedelta

from application.ports.runtime import Fact

#: As much as access tokens allow.
_TOLERATED_SECONDS = 5.0


def clock_fact(theirs: datetime, *, asked: datetime, answered: datetime) -> Fact:
    """The difference that is certain: their time lies between our question and their answer."""
    ahead = (max(theirs - answered, timedelta()) or min(theirs - asked, timedelta())).total_seconds()
    if not ahead:
        return Fact("clock", "the same as here")
    warning = "Synchronise both clocks, for instance by NTP." if abs(ahead) > _TOLERATED_SECONDS else ""
    return Fact("clock", f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's", warning)
