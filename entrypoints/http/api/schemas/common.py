"""What the calls of several areas share. Schemas validate, serialise and document; there is no second description."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, PlainSerializer
from pydantic.alias_generators import to_camel

from domain.accounts import MAX_NAME_CHARACTERS
from domain.text import is_blank

UNLIMITED = "unlimited"


class Schema(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


def _iso(time: datetime) -> str:
    """All times are UTC, so slicing off the offset is safe; a page of messages has many."""
    return time.isoformat(timespec="milliseconds")[:-6] + "Z"


def plain_text(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    return text


def _non_blank(text: str) -> str:
    if is_blank(text):
        raise ValueError("must not be blank")
    return plain_text(text)


class _NotBlank:
    """States in the JSON schema what the validator enforces."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": r"\S"}


Id = Annotated[UUID, Field(description="Unique identifier.", examples=["01890a5d-ac96-774b-bcce-b302099a8057"])]
Timestamp = Annotated[
    datetime,
    PlainSerializer(_iso, return_type=str, when_used="json"),
    Field(
        description="UTC, with milliseconds.",
        examples=["2026-01-31T09:30:00.000Z"],
        json_schema_extra={"format": "date-time"},
    ),
]
NonBlankText = Annotated[str, AfterValidator(_non_blank), _NotBlank()]
Name = Annotated[NonBlankText, Field(max_length=MAX_NAME_CHARACTERS)]
Count = Annotated[int | Literal["unlimited"], Field(examples=[5])]
NextCursor = Annotated[
    UUID | None, Field(description="Cursor of the next page; null on the last page.", examples=[None])
]


def count(number: int | None) -> Any:
    return UNLIMITED if number is None else number


def without_default(schema: dict[str, Any]) -> None:
    """For an optional field whose default has no meaning."""
    schema.pop("default", None)


class PageQuery(Schema):
    limit: Annotated[int, Field(ge=1, le=100, description="Maximum number of items to return.")] = 50


class Reply(Schema):
    message: Annotated[str, Field(description="Human-readable result.", examples=["Done."])]
