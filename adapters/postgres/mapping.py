"""Maps rows to entities and back. A column has the name of its field, so two functions serve every table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_type_hints

from tortoise.models import Model

E = TypeVar("E")


_Setter = Callable[[Any, Any], None]


@cache
def _names(entity: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(entity))


@cache
def _setters(entity: Any, columns: tuple[str, ...]) -> tuple[_Setter, ...]:
    """For each column, what puts its value into an entity."""
    hints, names = get_type_hints(entity), _names(entity)
    if missing := set(names).difference(columns):
        raise KeyError(f"{entity.__name__} has no {', '.join(sorted(missing))}")
    return tuple(
        _setter(getattr(entity, column).__set__, hints[column]) if column in names else _ignore for column in columns
    )


def _setter(put: _Setter, hint: Any) -> _Setter:
    """For an enum, optional or not, it puts the member in place of the value."""
    for kind in get_args(hint) or (hint,):
        if isinstance(kind, type) and issubclass(kind, Enum):
            members: dict[object, Enum | None] = {member.value: member for member in kind} | {None: None}
            return lambda made, value: put(made, members[value])
    return put


def _ignore(made: object, value: object) -> None:
    """For a column without a field."""


def to_entity(entity: type[E], row: Mapping[str, Any] | Model) -> E:
    """Columns without a field are ignored.

    Sets the slots of the entity, which has no `__post_init__`: a page has many messages, and the constructor of a
    frozen dataclass takes three times as long.
    """
    values = row.__dict__ if isinstance(row, Model) else row
    made, kind = object.__new__(entity), cast("Any", entity)  # mypy doubts that a class can be hashed
    for put, value in zip(_setters(kind, tuple(values.keys())), values.values(), strict=True):
        put(made, value)
    return made


def to_row(entity: object) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in _names(cast("Any", type(entity)))}
