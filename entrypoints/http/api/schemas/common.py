"""What the calls of several areas share. Schemas validate, encode and document; there is no second description."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints
from uuid import UUID

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    create_model,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from domain.accounts import MAX_NAME_CHARACTERS
from domain.text import is_blank

UNLIMITED = "unlimited"


#: Compact UTF-8 JSON.
encode = msgspec.json.Encoder().encode


class Schema(BaseModel):
    """Of what a request carries."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class ReplySchema(msgspec.Struct, rename=to_camel, gc=False):
    """Of a reply, or of a part of one. We make all its values ourselves: they are encoded, not validated.

    The annotations are those of `Schema`; for the documentation they become one.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(documented(cls))


@cache
def documented(reply: type[ReplySchema]) -> type[Schema]:
    """The same fields for pydantic, which generates their documentation."""
    annotations = get_type_hints(reply, include_extras=True)
    fields: Any = {
        field.name: (annotations[field.name], ... if field.required else field.default)
        for field in msgspec.structs.fields(reply)
    }
    return create_model(reply.__name__, __base__=Schema, __module__=reply.__module__, __doc__=reply.__doc__, **fields)


def timestamp(time: datetime) -> str:
    """All times are UTC. A page of messages has many, and `isoformat` would take three times as long."""
    text = encode(time)[1:-2]  # between the quotes, without the Z; a fraction is missing or has six digits
    return (text[:23] if len(text) > 19 else text + b".000").decode() + "Z"


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
    str,
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


class Reply(ReplySchema):
    message: Annotated[str, Field(description="Human-readable result.", examples=["Done."])]
