"""Starts Stripe's stand-in. The package's docstring describes it."""

from __future__ import annotations

import os
from pathlib import Path

import local.stripe
from local.standin import command_line, serve
from local.stripe.app import stripe_app
from local.stripe.deliveries import DeliveryOptions
from local.stripe.service import StandIn


def main() -> None:
    parser = command_line("local.stripe", local.stripe.__doc__ or "")
    parser.add_argument("--price", default="price_standin_pro", help="the id of the price that is on sale")
    parser.add_argument("--webhook-url", default="", help="where events are sent")
    secret = os.environ.get("STRIPE_WEBHOOK_SECRET") or "whsec_standin"
    parser.add_argument("--webhook-secret", default=secret, help="what signs them (STRIPE_WEBHOOK_SECRET)")
    parser.add_argument("--public-url", default="", help="the address for browsers, if it is not the host and port")
    parser.add_argument("--state", type=Path, help="a JSON file that keeps the account")
    options = parser.parse_args()
    delivery = DeliveryOptions(url=options.webhook_url, secret=options.webhook_secret)
    serve(
        "Stripe's stand-in",
        options,
        lambda url: stripe_app(
            StandIn.create(price=options.price, url=options.public_url or url, delivery=delivery, state=options.state)
        ),
    )


if __name__ == "__main__":
    main()
