"""Maps rows to entities and back. A column has the name of its field, so two functions serve every table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar, get_args, get_type_hints

from tortoise.models import Model

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class _Layout:
    """The fields of an entity, computed once."""

    names: tuple[str, ...]
    values: itemgetter[Any]
    #: For each field, what puts its value into an entity.
    setters: tuple[Callable[[Any, Any], None], ...]


def _layout(entity: type[Any]) -> _Layout:
    return _computed_layout(entity)  # type: ignore[arg-type]  # mypy doubts that a class can be hashed


@cache
def _computed_layout(entity: type[Any]) -> _Layout:
    names = tuple(field.name for field in fields(entity))
    hints = get_type_hints(entity)
    setters = tuple(_setter(getattr(entity, name).__set__, hints[name]) for name in names)
    return _Layout(names, itemgetter(*names), setters)


def _setter(put: Callable[[Any, Any], None], hint: Any) -> Callable[[Any, Any], None]:
    """For an enum, optional or not, it puts the member in place of the value."""
    for kind in get_args(hint) or (hint,):
        if isinstance(kind, type) and issubclass(kind, Enum):
            members: dict[object, Enum | None] = {member.value: member for member in kind} | {None: None}
            return lambda made, value: put(made, members[value])
    return put


def to_entity(entity: type[E], row: Mapping[str, Any] | Model) -> E:
    """Columns without a field are ignored.

    Sets the slots of the entity, which has no `__post_init__`, at half the cost of a frozen dataclass's
    constructor: a page has many messages.
    """
    layout = _layout(entity)
    made = object.__new__(entity)
    values = layout.values(row.__dict__ if isinstance(row, Model) else row)
    for put, value in zip(layout.setters, values, strict=True):
        put(made, value)
    return made


def to_row(entity: object) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in _layout(type(entity)).names}
