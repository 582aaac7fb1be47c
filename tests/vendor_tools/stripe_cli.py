"""Stripe's own command line drives the stand-in: `stripe trigger` runs Stripe's request sequences, not ours.

It is installed from npm, so this is no part of the default run; its name keeps it out: `make test-stripe-cli`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import PROCESS_HANG
from tests.support.stripe_standin import Receiver, StripeStandIn, receiving
from tests.vendor_tools.conftest import Installed

VERSION = "1.52.0"


@pytest.fixture(scope="session")
def stripe_cli(installed: Installed) -> Path:
    return installed(f"@stripe/cli@{VERSION}") / "stripe"


@pytest.fixture
def receiver(stripe_standin: StripeStandIn) -> Iterator[Receiver]:
    with receiving() as receiver:
        stripe_standin.delivery(url=receiver.url)
        stripe_standin.billing(settle_seconds=0)
        yield receiver
        stripe_standin.reset(webhook_url="")


@pytest.mark.parametrize(
    "event",
    [
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.trial_will_end",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_action_required",
        "charge.refunded",
        "charge.dispute.created",
        "charge.dispute.closed",
        "customer.deleted",
    ],
)
async def test_what_it_triggers_arrives_signed(
    stripe_cli: Path, stripe_standin: StripeStandIn, receiver: Receiver, tmp_path: Path, event: str
) -> None:
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs here
        [stripe_cli, "trigger", event, "--api-base", stripe_standin.url],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "STRIPE_API_KEY": "sk_test_stand_in_1234567890",
            "STRIPE_CLI_TELEMETRY_OPTOUT": "1",
        },
        capture_output=True,
        text=True,
        timeout=PROCESS_HANG,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Trigger succeeded" in done.stdout + done.stderr
    await stripe_standin.until(lambda events: any(one["type"] == event for one in events))
    await stripe_standin.idle()
    assert receiver.event(event).type == event
    assert {one["state"] for one in stripe_standin.events()} == {"delivered"}
