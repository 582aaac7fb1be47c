"""Replies to probes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from entrypoints.http.api.schemas.common import ReplySchema


class HealthReply(ReplySchema):
    status: Annotated[Literal["ok"], Field(description="The process answers.")] = "ok"


class ReadyReply(ReplySchema):
    """`degraded`: all calls are served, but some are slower than usual."""

    status: Annotated[
        Literal["ready", "degraded"], Field(description="Whether a dependency is unavailable.", examples=["ready"])
    ]
    dependencies: Annotated[
        dict[str, str],
        Field(
            description="State of Postgres and Redis: `ok` or `away`; what is known of the reason follows, as in"
            " `away (read-only)`. If the model refuses the workers' API key,"
            " `model` gives the reason: `not configured (API_KEY_INVALID)`.",
            examples=[{"postgres": "ok", "redis": "ok"}],
        ),
    ]
    warnings: Annotated[list[str], Field(description="Unsafe settings in use.", examples=[[]])]
