"""Between rows and entities: a column has its field's name, so two functions serve every table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

import asyncpg
from tortoise.models import Model

E = TypeVar("E")


@cache
def _fields_of(entity: type[Any]) -> tuple[tuple[str, type[Enum] | None], ...]:
    hints = get_type_hints(entity)
    return tuple((field.name, _enum_in(hints[field.name])) for field in fields(entity))


def _enum_in(hint: Any) -> type[Enum] | None:
    """The enum of a field's type, which may be optional."""
    return next((kind for kind in get_args(hint) or (hint,) if isinstance(kind, type) and issubclass(kind, Enum)), None)


def _fields(entity: type[Any]) -> tuple[tuple[str, type[Enum] | None], ...]:
    return _fields_of(entity)  # type: ignore[arg-type]  # mypy doubts that a class can be hashed


def to_entity(entity: type[E], row: Mapping[str, Any] | Model) -> E:
    """Columns that the entity has no field for are left out."""
    values = row.__dict__ if isinstance(row, Model) else row
    return entity(
        **{
            name: value if enum is None or value is None else enum(value)
            for name, enum in _fields(entity)
            for value in [values[name]]
        }
    )


def to_row(entity: object) -> dict[str, Any]:
    return {name: getattr(entity, name) for name, _ in _fields(type(entity))}


def violated(error: asyncpg.IntegrityConstraintViolationError) -> str | None:
    """The name of the violated constraint."""
    return getattr(error, "constraint_name", None)
