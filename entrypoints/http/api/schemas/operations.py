"""What probes get."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from entrypoints.http.api.schemas.common import Schema


class HealthReply(Schema):
    status: Annotated[Literal["ok"], Field(description="The process answers.")] = "ok"


class ReadyReply(Schema):
    """`degraded`: everything is served, but something is slower or later than usual."""

    status: Annotated[Literal["ready", "degraded"], Field(description="Whether anything is away.", examples=["ready"])]
    dependencies: Annotated[
        dict[str, str],
        Field(
            description="Postgres and Redis: `ok` or `away`. If the model refuses the workers' key, `model` says why:"
            " `not configured (API_KEY_INVALID)`.",
            examples=[{"postgres": "ok", "redis": "ok"}],
        ),
    ]
    warnings: Annotated[list[str], Field(description="What production was told to do and should not.", examples=[[]])]
