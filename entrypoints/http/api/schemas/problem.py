"""What an error looks like, whatever was called."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from entrypoints.http.api.schemas.common import Schema, Timestamp, without_default


class FieldError(Schema):
    """A value that was not accepted."""

    pointer: Annotated[
        str,
        Field(
            description="Where: a JSON pointer into the body, `?name` in the query, or the name of a header.",
            examples=["/mobile"],
        ),
    ]
    detail: Annotated[str, Field(description="What is wrong with it, for people.", examples=["is required"])]


class Problem(Schema):
    """Every error, by RFC 9457. Program against `code`; `title` and `detail` are for people."""

    type: Annotated[str, Field(description="Always `about:blank`: `code` tells more.")] = "about:blank"
    title: Annotated[str, Field(description="The status in words.", examples=["Forbidden"])]
    status: Annotated[int, Field(description="The status of the answer.", examples=[403])]
    detail: Annotated[str, Field(description="What happened.", examples=["The day's messages are used up."])]
    instance: Annotated[str, Field(description="The path that was called.", examples=["/chatroom"])]
    code: Annotated[str, Field(description="A stable word for what happened.", examples=["quota_exceeded"])]
    request_id: Annotated[
        str,
        Field(
            description="The same as in `X-Request-ID` and in the service's log: name it to its operator.",
            examples=["9f1c2a7be04d4a1c8f3e5b6d7a8c9e0f"],
        ),
    ]
    errors: Annotated[
        list[FieldError] | None,
        Field(
            description="With `validation_failed` and its like: each value that was not accepted.",
            json_schema_extra=without_default,
        ),
    ] = None
    resets_at: Annotated[
        Timestamp | None,
        Field(
            description="With `quota_exceeded`: when the allowance returns.",
            examples=["2026-02-01T00:00:00.000Z"],
            json_schema_extra=without_default,
        ),
    ] = None
