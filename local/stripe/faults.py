"""Faults: what goes wrong with the next calls, set by POST /control/faults."""

from __future__ import annotations

from dataclasses import dataclass, field

from local.standin import Json, Limited, take
from local.stripe.errors import ERRORS

KINDS = ("latency", "hang", "cut", "broken_json", "html")


@dataclass
class Fault(Limited):
    """`kind` is one of KINDS or an HTTP status of ERRORS.

    latency      the reply comes after `seconds`
    hang         no reply, until the client leaves
    cut          the connection is closed without a reply
    broken_json  a 200 that cannot be parsed
    html         a proxy's 502, in HTML

    With `when="after"` the call is carried out first, and a retry with the same key replays its reply.
    """

    kind: str | int = ""
    path: str = ""
    method: str | None = None
    when: str = "before"
    seconds: float = 1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Faults:
    """In the order added: the first fault that fits a call is used."""

    rules: list[Fault] = field(default_factory=list)

    def add(self, parameters: Json) -> None:
        """Raises ValueError or TypeError for an unknown kind or parameter."""
        defaults: Json = {"times": 1}
        fault = Fault(**defaults | parameters)
        if str(fault.kind).isdigit():
            fault.kind = int(fault.kind)
        if fault.kind not in KINDS and fault.kind not in ERRORS:
            raise ValueError(f"No such fault. There are: {', '.join(map(str, [*KINDS, *ERRORS]))}.")
        if fault.when not in ("before", "after"):
            raise ValueError("`when` is before or after.")
        self.rules = [rule for rule in self.rules if rule.times != 0] + [fault]

    def take(self, method: str, path: str) -> Fault | None:
        return take(self.rules, lambda fault: fault.path in path and fault.method in (None, method))
