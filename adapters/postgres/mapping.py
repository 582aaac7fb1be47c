"""Maps rows to entities and back. A column has the name of its field, so two functions serve every table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar, get_args, get_type_hints

import asyncpg
from tortoise.models import Model

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class _Layout:
    """The fields of an entity, computed once."""

    names: tuple[str, ...]
    values: itemgetter[Any]
    #: For each enum field, optional or not, the members by value.
    members: Mapping[str, Mapping[object, Enum]]


def _layout(entity: type[Any]) -> _Layout:
    return _computed_layout(entity)  # type: ignore[arg-type]  # mypy doubts that a class can be hashed


@cache
def _computed_layout(entity: type[Any]) -> _Layout:
    names = tuple(field.name for field in fields(entity))
    hints = get_type_hints(entity)
    enums = {
        name: kind
        for name in names
        for kind in get_args(hints[name]) or (hints[name],)
        if isinstance(kind, type) and issubclass(kind, Enum)
    }
    members = {name: {member.value: member for member in enum} for name, enum in enums.items()}
    return _Layout(names, itemgetter(*names), members)


def to_entity(entity: type[E], row: Mapping[str, Any] | Model) -> E:
    """Columns without a field are ignored."""
    layout = _layout(entity)
    values = dict(zip(layout.names, layout.values(row.__dict__ if isinstance(row, Model) else row), strict=True))
    for name, members in layout.members.items():
        if values[name] is not None:
            values[name] = members[values[name]]
    return entity(**values)


def to_row(entity: object) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in _layout(type(entity)).names}


def violated(error: asyncpg.IntegrityConstraintViolationError) -> str | None:
    """The name of the violated constraint."""
    return getattr(error, "constraint_name", None)
