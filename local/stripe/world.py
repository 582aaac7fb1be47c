"""The account that Stripe's stand-in keeps: its objects by id, its clock, its lists, its expansions and its events."""

from __future__ import annotations

import copy
import random
import secrets
import string
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from local.stripe.faults import Json, StripeError, invalid
from local.stripe.forms import inner, number, text, texts

API_VERSION = "2026-10-28.endive"
DEEPEST_EXPANSION = 4
KEPT_EVENTS = 2_000

PREFIXES = {
    "billing_portal.session": "bps_", "charge": "ch_", "checkout.session": "cs_test_", "customer": "cus_",
    "dispute": "dp_", "event": "evt_", "invoice": "in_", "invoice_payment": "inpay_", "invoiceitem": "ii_",
    "item": "li_", "line_item": "il_", "payment_intent": "pi_", "payment_method": "pm_", "price": "price_",
    "product": "prod_", "refund": "re_", "request": "req_", "subscription": "sub_", "subscription_item": "si_",
}  # fmt: skip
_EXPANDABLE = {"default_source", "source"} | {
    "charge", "customer", "default_payment_method", "default_price", "invoice", "latest_charge", "latest_invoice",
    "payment_intent", "payment_method", "price", "product", "subscription",
}  # fmt: skip


@dataclass
class Billing:
    """How the account bills, changed by PUT /control/billing."""

    decline_next: int = 0  # so many of the next payments are declined, whatever the card
    trial_days: int = 0  # of the next subscription that is bought in a Checkout
    dunning_end: str = "canceled"  # what follows the last failed attempt: canceled, unpaid or past_due
    # Bank debits settle by themselves after so many seconds of the stand-in's clock; null leaves it to /control.
    settle_seconds: float | None = 30
    # A portal's cancellation sets only `cancel_at` in the flexible billing mode, today's default at Stripe.
    portal_cancels_by: str = "cancel_at"
    livemode: bool = False


@dataclass
class Cause:
    """The API call that events are put down to; none for what happens by itself."""

    id: str | None = None
    idempotency_key: str | None = None


@dataclass
class World:
    price: str
    url: str
    billing: Billing = field(default_factory=Billing)
    offset: float = 0.0  # seconds by which its clock is ahead
    moment: int | None = None  # the time in the story while the clock is being moved
    kinds: dict[str, dict[str, Json]] = field(default_factory=dict)
    cause: Cause = field(default_factory=Cause)
    on_event: Callable[[Json], None] = lambda _: None
    #: Lists that a reply holds only when they are asked for, by kind and name.
    includable: dict[tuple[str, str], Callable[[Json], Any]] = field(default_factory=dict)
    changes: int = 0

    @property
    def now(self) -> int:
        return self.moment if self.moment is not None else int(time.time() + self.offset)

    def new_id(self, kind: str) -> str:
        prefix, length = PREFIXES[kind], 58 if kind == "checkout.session" else 24 if kind != "customer" else 14
        if self.billing.livemode:
            prefix = prefix.replace("_test_", "_live_")
        return prefix + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))

    def of(self, kind: str) -> dict[str, Json]:
        """In the order of creation, deleted ones too."""
        return self.kinds.setdefault(kind, {})

    def add(self, item: Json) -> Json:
        self.changes += 1
        self.of(item["object"])[item["id"]] = item
        return item

    def get(self, kind: str, given: str, param: str = "id") -> Json:
        """Raises StripeError: 404 for the object of the call itself, 400 for one that a parameter names."""
        found = self.of(kind).get(given)
        if found is None or found.get("deleted"):
            name = kind.replace("checkout.session", "checkout session")
            status = 404 if param == "id" else 400
            raise StripeError(
                status, "invalid_request_error", f"No such {name}: '{given}'", code="resource_missing", param=param
            )
        return found

    def where(self, kind: str, **fields: Any) -> Iterator[Json]:
        for item in list(self.of(kind).values()):
            if not item.get("deleted") and all(item.get(name) == value for name, value in fields.items()):
                yield item

    # --- events

    def emit(self, type_: str, item: Json, previous: Json | None = None) -> Json:
        data = {"object": self.shown(item)} | ({"previous_attributes": previous} if previous is not None else {})
        event = {
            "id": self.new_id("event"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now,
            "data": data,
            "livemode": item.get("livemode", self.billing.livemode),
            "pending_webhooks": 1,
            "request": asdict(self.cause),
            "type": type_,
        }
        self.add(event)
        events = self.of("event")
        while len(events) > KEPT_EVENTS:
            del events[next(iter(events))]
        self.on_event(event)
        return event

    @contextmanager
    def change(self, item: Json, *types: str) -> Iterator[Json]:
        """What is changed inside is told by events of these types, if anything was."""
        before = self.shown(item)
        yield item
        self.changes += 1
        if previous := _difference(before, self.shown(item)):
            for type_ in types:
                self.emit(type_, item, previous)

    # --- replies

    def shown(self, item: Json, expand: list[str] | None = None) -> Json:
        """A copy as the API gives it: sorted, without what is private to the stand-in."""
        reply: Json = {name: item[name] for name in ("id", "object") if name in item}
        reply |= {name: copy.deepcopy(item[name]) for name in sorted(item) if name[0] != "_" and name not in reply}
        for name in ("url", "hosted_invoice_url"):
            if item.get("_path") and name in reply:
                reply[name] = self.url + item["_path"]  # the port may be another one after a restart
        for path in expand or []:
            parts = path.split(".")
            if len(parts) > DEEPEST_EXPANSION:
                raise invalid(
                    f"You cannot expand more than {DEEPEST_EXPANSION} levels of a property ({path}).", "expand"
                )
            self._expand(reply, parts, path)
        return reply

    def _expand(self, node: Any, parts: list[str], path: str) -> None:
        if isinstance(node, list):
            for one in node:
                self._expand(one, parts, path)
            return
        name = parts[0]
        if (include := self.includable.get((node.get("object", ""), name))) is not None:
            node.setdefault(name, include(node))
        elif name not in node or (isinstance(node[name], str) and name not in _EXPANDABLE):
            raise invalid(f"This property cannot be expanded ({path}).", "expand")
        if isinstance(node[name], str):
            found = self.find(node[name])
            node[name] = self.shown(found) if found else node[name]
        if parts[1:] and node[name] is not None:
            self._expand(node[name], parts[1:], path)

    def find(self, given: str) -> Json | None:
        """An object of any kind."""
        return next((items[given] for items in self.kinds.values() if given in items), None)

    def page(self, kind: str, url: str, params: Json, *filters: str, items: list[Json] | None = None) -> Json:
        """A list as Stripe pages it, newest first; `filters` are the parameters that a field must be equal to."""
        wanted = {name: value for name in filters if (value := text(params, name)) is not None}
        limit = number(params, "limit") if "limit" in params else 10
        if limit is None or not 1 <= limit <= 100:
            raise invalid("Invalid integer: limit must be between 1 and 100.", "limit", "parameter_invalid_integer")
        found = list(reversed(list(self.where(kind, **wanted)))) if items is None else items
        found = [item for item in found if _created_within(item, params)]
        ids = [item["id"] for item in found]
        for name in ("starting_after", "ending_before"):
            if (mark := text(params, name)) is None:
                continue
            if mark not in ids:
                raise invalid(f"No such {kind}: '{mark}'", name, "resource_missing")
            at = ids.index(mark)
            found = found[at + 1 :] if name == "starting_after" else found[max(0, at - limit) : at]
        expand = texts(params, "expand")
        page = {
            "object": "list",
            "url": url,
            "has_more": len(found) > limit,
            "data": [self.shown(item) for item in found[:limit]],
        }
        for path in expand:
            if not path.startswith("data."):
                raise invalid(f"This property cannot be expanded ({path}).", "expand")
        return self.shown(page, expand)

    # --- what is kept

    def dump(self) -> Json:
        return {"offset": self.offset, "billing": asdict(self.billing), "kinds": self.kinds}

    def load(self, kept: Json) -> None:
        self.offset, self.kinds = kept["offset"], kept["kinds"]
        self.billing = Billing(**kept["billing"])


def listed(data: list[Json], url: str) -> Json:
    """A list inside another object."""
    return {"object": "list", "data": data, "has_more": False, "total_count": len(data), "url": url}


def shuffled(items: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(items, len(items))


def _created_within(item: Json, params: Json) -> bool:
    given = params.get("created")
    if not isinstance(given, dict):
        return given is None or item["created"] == int(given)
    bounds = inner(params, "created")
    tests: dict[str, Callable[[int, int], bool]] = {
        "gt": int.__gt__, "gte": int.__ge__, "lt": int.__lt__, "lte": int.__le__,
    }  # fmt: skip
    return all(tests[name](item["created"], int(value)) for name, value in bounds.items() if name in tests)


def _difference(before: Json, after: Json) -> Json:
    """What was there before, of all that is different now: previous_attributes."""
    found: Json = {}
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        whole = not isinstance(old, dict) or not isinstance(new, dict) or old.get("object") == "list"
        found[name] = old if whole else _difference(old, new)  # type: ignore[arg-type]
    return dict(sorted(found.items()))
