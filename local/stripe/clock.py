"""What falls due as the stand-in's clock moves, and doing it in its order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from local.stripe import billing as billing
from local.stripe import invoices as invoices
from local.stripe import subscriptions as subscriptions
from local.stripe.calendar import DAY, HOUR
from local.stripe.checkout import expire, settle_payment
from local.stripe.faults import Json
from local.stripe.world import World

Due = tuple[int, str, Callable[[], object]]  # when, whose, what


def advance(world: World, to: int) -> int:
    """Does all that is due until then; returns how much it was. What is past stays past: going back does nothing."""
    done = 0
    while ready := sorted((due for due in _due(world) if due[0] <= to), key=lambda due: due[0]):
        # One thing changes what is due of the same customer; nothing makes work for less than an hour later. So each
        # customer's first thing within an hour may be done before looking again.
        served: set[str] = set()
        for moment, whose, act in ready:
            if moment >= ready[0][0] + HOUR:
                break
            if whose not in served:
                served.add(whose)
                world.moment = moment
                try:
                    act()
                finally:
                    world.moment = None
                done += 1
    world.offset = max(world.offset, to - time.time())
    return done


def _due(world: World) -> Iterator[Due]:
    for session in world.where("checkout.session", status="open"):
        yield session["expires_at"], session["customer"] or session["id"], partial(expire, world, session)
    for intent in world.where("payment_intent", status="processing"):
        if intent["_settle_at"] is not None:
            whose = intent["customer"] or intent["id"]
            yield intent["_settle_at"], whose, partial(settle_payment, world, intent, succeed=not intent["_bounces"])
    for invoice in world.where("invoice"):
        if invoice["status"] == "draft" and invoice.get("_finalize_at"):
            yield invoice["_finalize_at"], invoice["customer"], partial(invoices.pay, world, invoice)
        elif invoice["status"] == "open" and invoice["next_payment_attempt"] and not _processing(world, invoice):
            yield invoice["next_payment_attempt"], invoice["customer"], partial(invoices.pay, world, invoice)
    for sub in world.where("subscription"):
        yield from _due_of(world, sub)


def _due_of(world: World, sub: Json) -> Iterator[Due]:
    end = min(item["current_period_end"] for item in sub["items"]["data"])
    status, whose = sub["status"], sub["customer"]
    if status == "incomplete":
        yield sub["created"] + billing.INCOMPLETE_SECONDS, whose, partial(billing.expire_incomplete, world, sub)
    if status not in ("active", "trialing", "past_due", "unpaid"):
        return
    if sub["cancel_at"] is not None and sub["cancel_at"] <= end:
        yield sub["cancel_at"], whose, partial(subscriptions.cancel, world, sub, "cancellation_requested")
    elif status == "trialing":
        if not sub.get("_warned"):
            yield (
                max(sub["created"], sub["trial_end"] - 3 * DAY),
                whose,
                partial(subscriptions.warn_of_trial_end, world, sub),
            )
        yield end, whose, partial(billing.end_trial, world, sub)
    else:
        yield end, whose, partial(billing.renew, world, sub)


def _processing(world: World, invoice: Json) -> bool:
    return bool(invoice.get("_intent")) and world.get("payment_intent", invoice["_intent"])["status"] == "processing"
