"""The Stripe account: its objects by id, its clock, its events, and how its objects are shown."""

from __future__ import annotations

import copy
import secrets
import string
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from local.standin import Json
from local.stripe.errors import invalid, missing
from local.stripe.forms import number, text, texts

API_VERSION = "2026-10-28.endive"
KEPT_EVENTS = 2_000

_PREFIXES = {
    "billing_portal.session": "bps_", "charge": "ch_", "checkout.session": "cs_test_", "customer": "cus_",
    "dispute": "dp_", "event": "evt_", "invoice": "in_", "item": "li_", "line_item": "il_", "payment_intent": "pi_",
    "payment_method": "pm_", "price": "price_", "product": "prod_", "refund": "re_", "request": "req_",
    "subscription": "sub_", "subscription_item": "si_",
}  # fmt: skip
_EXPANDABLE = {"customer", "invoice", "latest_charge", "latest_invoice", "payment_intent", "subscription"}


@dataclass
class BillingOptions:
    """How the account bills; PUT /control/billing changes it."""

    trial_days: int = 0  # trial of the next subscription bought in a Checkout
    dunning_end: str = "canceled"  # status after the last failed attempt: canceled, unpaid or past_due
    settle_seconds: float | None = 30  # when bank debits settle by themselves; null leaves it to /control
    livemode: bool = False


@dataclass
class RequestRef:
    """The API call that caused an event; empty for events without one."""

    id: str | None = None
    idempotency_key: str | None = None


@dataclass
class Account:
    price: str
    url: str
    billing: BillingOptions = field(default_factory=BillingOptions)
    offset: float = 0.0  # seconds that its clock is ahead of real time
    moment: int | None = None  # the simulated time while the clock is being moved
    objects: dict[str, dict[str, Json]] = field(default_factory=dict)
    request: RequestRef = field(default_factory=RequestRef)
    on_event: Callable[[Json], None] = lambda _: None
    changes: int = 0

    @property
    def now(self) -> int:
        return self.moment if self.moment is not None else int(time.time() + self.offset)

    # --- objects

    def new_id(self, kind: str) -> str:
        prefix, length = _PREFIXES[kind], 58 if kind == "checkout.session" else 24
        if self.billing.livemode:
            prefix = prefix.replace("_test_", "_live_")
        return prefix + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))

    def create(self, kind: str, **fields: Any) -> Json:
        """A stored object. Names that begin with `_` are private to the stand-in."""
        always = {"id": self.new_id(kind), "object": kind, "created": self.now, "livemode": self.billing.livemode}
        return self.add(always | {"metadata": {}} | fields)

    def add(self, item: Json) -> Json:
        self.changes += 1
        self.table(item["object"])[item["id"]] = item
        return item

    def table(self, kind: str) -> dict[str, Json]:
        """All objects of a kind in the order of creation, deleted ones included."""
        return self.objects.setdefault(kind, {})

    def get(self, kind: str, object_id: str, param: str = "id") -> Json:
        """Raises StripeError if there is none; `param` names the parameter that holds the id."""
        found = self.table(kind).get(object_id)
        if found is None or found.get("deleted"):
            raise missing(kind, object_id, param)
        return found

    def where(self, kind: str, **fields: Any) -> Iterator[Json]:
        for item in list(self.table(kind).values()):
            if not item.get("deleted") and all(item.get(name) == value for name, value in fields.items()):
                yield item

    def find(self, object_id: str) -> Json | None:
        """An object of any kind."""
        return next((items[object_id] for items in self.objects.values() if object_id in items), None)

    # --- events

    def emit(self, type_: str, item: Json, previous: Json | None = None) -> Json:
        data = {"object": self.shown(item)} | ({"previous_attributes": previous} if previous is not None else {})
        event = self.create(
            "event",
            api_version=API_VERSION,
            data=data,
            livemode=item.get("livemode", self.billing.livemode),
            pending_webhooks=1,
            request=asdict(self.request),
            type=type_,
        )
        del event["metadata"]  # events have none
        events = self.table("event")
        while len(events) > KEPT_EVENTS:
            del events[next(iter(events))]
        self.on_event(event)
        return event

    def emit_thin(self, type_: str, item: Json) -> Json:
        """An event that only names its object, as destinations get it that are set to thin events."""
        related = {"id": item["id"], "type": item["object"], "url": f"/v1/{item['object']}s/{item['id']}"}
        event: Json = {
            "id": self.new_id("event"),
            "object": "v2.core.event",
            "created": datetime.fromtimestamp(self.now, UTC).isoformat().replace("+00:00", "Z"),
            "livemode": self.billing.livemode,
            "related_object": related,
            "type": type_,
        }
        self.table("event")[event["id"]] = event
        self.on_event(event)
        return event

    @contextmanager
    def change(self, item: Json, *types: str) -> Iterator[Json]:
        """Emit events of these types if the block changes the object."""
        before = self.shown(item)
        yield item
        self.changes += 1
        if previous := _previous(before, self.shown(item)):
            for type_ in types:
                self.emit(type_, item, previous)

    # --- replies

    def shown(self, item: Json, expand: list[str] | None = None) -> Json:
        """A copy as the API returns it: sorted, without private fields."""
        reply: Json = {name: item[name] for name in ("id", "object") if name in item}
        reply |= {name: copy.deepcopy(item[name]) for name in sorted(item) if name[0] != "_" and name not in reply}
        if item.get("_path"):
            reply["url"] = self.url + item["_path"]  # after a restart the port may be another one
        for path in expand or []:
            self._expand(reply, path.split("."), path)
        return reply

    def _expand(self, node: Any, parts: list[str], path: str) -> None:
        if isinstance(node, list):
            for item in node:
                self._expand(item, parts, path)
            return
        name = parts[0]
        if not isinstance(node, dict):
            raise invalid(f"This property cannot be expanded ({path}).", "expand")
        if name == "line_items" and node.get("object") == "checkout.session":
            node[name] = listed(self.get("checkout.session", node["id"])["_line_items"])
        elif name not in node or (isinstance(node[name], str) and name not in _EXPANDABLE):
            raise invalid(f"This property cannot be expanded ({path}).", "expand")
        if isinstance(node[name], str):
            found = self.find(node[name])
            node[name] = self.shown(found) if found else node[name]
        if parts[1:] and node[name] is not None:
            self._expand(node[name], parts[1:], path)

    def page(self, items: list[Json], params: Json) -> Json:
        """The first `limit` items as a list of Stripe's. Raises StripeError for a limit that Stripe refuses."""
        limit = number(params, "limit") if "limit" in params else 10
        if limit is None or not 1 <= limit <= 100:
            raise invalid("Invalid integer: limit must be between 1 and 100.", "limit", "parameter_invalid_integer")
        page = listed([self.shown(item) for item in items[:limit]], has_more=len(items) > limit)
        return self.shown(page, texts(params, "expand"))

    def newest(self, kind: str, params: Json, *names: str) -> list[Json]:
        """Newest first, those whose fields equal the parameters of these names."""
        wanted = {name: value for name in names if (value := text(params, name)) is not None}
        return list(reversed(list(self.where(kind, **wanted))))

    # --- saved state

    def dump(self) -> Json:
        return {"offset": self.offset, "billing": asdict(self.billing), "kinds": self.objects}

    def load(self, saved: Json) -> None:
        known = vars(self.billing)  # an earlier version saved more options
        self.billing = BillingOptions(**{name: value for name, value in saved["billing"].items() if name in known})
        self.offset, self.objects = saved["offset"], saved["kinds"]


def listed(items: list[Json], *, has_more: bool = False) -> Json:
    return {"object": "list", "data": items, "has_more": has_more}


def _previous(before: Json, after: Json) -> Json:
    """`previous_attributes`: the earlier values of all that has changed."""
    found: Json = {}
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        whole = not isinstance(old, dict) or not isinstance(new, dict) or old.get("object") == "list"
        found[name] = old if whole else _previous(old, new)  # type: ignore[arg-type]
    return found
