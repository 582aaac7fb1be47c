"""All scenarios by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.chaos import scenarios_allowance as allowance
from tests.chaos import scenarios_billing as billing
from tests.chaos import scenarios_books as books
from tests.chaos import scenarios_delivery as delivery
from tests.chaos import scenarios_model as model
from tests.chaos import scenarios_outages as outages
from tests.chaos import scenarios_redis as redis
from tests.chaos import scenarios_streams as streams
from tests.support.scenarios import Row, Scale

SCENARIOS: dict[str, Callable[[Scale, int], Awaitable[Row]]] = {
    scenario.__name__: scenario
    for scenario in (
        allowance.quota_race,
        allowance.refund_race,
        allowance.one_key,
        allowance.fairness,
        delivery.worker_kills,
        delivery.frozen_worker,
        delivery.rolling_restart,
        delivery.poison,
        outages.redis_outage,
        redis.sentinel_failover,
        redis.demoted_redis,
        outages.postgres_restarts,
        model.model_faults,
        model.bad_messages,
        model.storm,
        books.books,
        model.requests_per_minute,
        model.burst,
        model.memory,
        streams.dropped_streams,
        streams.cancels,
        streams.forgotten_streams,
        billing.one_event_often,
        billing.any_order,
        billing.webhooks_without_postgres,
        billing.parallel_subscribes,
        billing.upgrade_amid_sends,
        billing.readers_that_die,
        billing.webhook_flood,
    )
}
