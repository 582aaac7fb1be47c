"""The format of every error."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from entrypoints.http.api.schemas.common import Schema, Timestamp, without_default


class FieldError(Schema):
    """An invalid value."""

    pointer: Annotated[
        str,
        Field(
            description="Where it is: a JSON pointer into the body, `?name` in the query, or the name of a header.",
            examples=["/mobile"],
        ),
    ]
    detail: Annotated[str, Field(description="Human-readable reason.", examples=["is required"])]


class Problem(Schema):
    """Every error, as in RFC 9457. `code` is for programs; `title` and `detail` are for people."""

    type: Annotated[str, Field(description="Always `about:blank`; see `code`.")] = "about:blank"
    title: Annotated[str, Field(description="The HTTP status in words.", examples=["Forbidden"])]
    status: Annotated[int, Field(description="The HTTP status.", examples=[403])]
    detail: Annotated[str, Field(description="Human-readable explanation.", examples=["Today's messages are used up."])]
    instance: Annotated[str, Field(description="Path of the request.", examples=["/chatroom"])]
    code: Annotated[str, Field(description="Stable code for programs.", examples=["quota_exceeded"])]
    request_id: Annotated[
        str,
        Field(
            description="The same as in `X-Request-ID` and in the service's log; quote it to the operator.",
            examples=["9f1c2a7be04d4a1c8f3e5b6d7a8c9e0f"],
        ),
    ]
    errors: Annotated[
        list[FieldError] | None,
        Field(
            description="For validation errors: every invalid value.",
            json_schema_extra=without_default,
        ),
    ] = None
    resets_at: Annotated[
        Timestamp | None,
        Field(
            description="For `quota_exceeded`: when the allowance resets.",
            examples=["2026-02-01T00:00:00.000Z"],
            json_schema_extra=without_default,
        ),
    ] = None
