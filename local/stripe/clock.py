"""The stand-in's clock: what falls due as it goes on, by itself or because it is moved forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from local.standin import Json
from local.stripe import invoices, subscriptions
from local.stripe.account import Account
from local.stripe.calendar import HOUR
from local.stripe.checkout import expire, settle_payment

Due = tuple[int, str, Callable[[], object]]  # time, customer, action


def advance(account: Account, to: int) -> int:
    """Carry out all that is due by then; returns how many actions that was. Time never goes back."""
    done = 0
    while ready := sorted((due for due in _due(account) if due[0] <= to), key=lambda due: due[0]):
        # An action changes only what is due for its own customer, and adds nothing that is due within the next hour.
        # So the first action of each customer within an hour can be carried out before looking again.
        served: set[str] = set()
        for moment, customer, act in ready:
            if moment >= ready[0][0] + HOUR:
                break
            if customer not in served:
                served.add(customer)
                account.moment = moment
                try:
                    act()
                finally:
                    account.moment = None
                done += 1
    account.offset = max(account.offset, to - time.time())
    return done


def _due(account: Account) -> Iterator[Due]:
    for session in account.where("checkout.session", status="open"):
        yield session["expires_at"], session["customer"] or session["id"], partial(expire, account, session)
    for intent in account.where("payment_intent", status="processing"):
        if intent["_settle_at"] is not None:
            customer = intent["customer"] or intent["id"]
            settle = partial(settle_payment, account, intent, succeed=not intent["_bounces"])
            yield intent["_settle_at"], customer, settle
    for invoice in account.where("invoice"):
        at = invoice.get("_finalize_at") if invoice["status"] == "draft" else invoice["next_payment_attempt"]
        if at and invoice["status"] in ("draft", "open") and not _is_processing(account, invoice):
            yield at, invoice["customer"], partial(invoices.pay, account, invoice)
    for sub in account.where("subscription"):
        if sub["status"] in ("active", "trialing", "past_due", "unpaid"):
            yield _next_step(account, sub)


def _next_step(account: Account, sub: Json) -> Due:
    end = min(item["current_period_end"] for item in sub["items"]["data"])
    if sub["cancel_at"] is not None and sub["cancel_at"] <= end:
        return sub["cancel_at"], sub["customer"], partial(invoices.cancel, account, sub, "cancellation_requested")
    return end, sub["customer"], partial(subscriptions.renew, account, sub)


def _is_processing(account: Account, invoice: Json) -> bool:
    intent = account.table("payment_intent").get(invoice.get("_intent") or "")
    return intent is not None and intent["status"] == "processing"
