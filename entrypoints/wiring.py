"""Providers that find their arguments by type; the container states only what does not follow from types."""

from __future__ import annotations

import dataclasses
import inspect
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

from dependency_injector import providers

T = TypeVar("T")

_NO_PORTS = (object, Protocol, Generic)


class Wiring:
    """The providers of one container, registered by the type that they make and by its ports."""

    def __init__(self) -> None:
        self._provided: defaultdict[type, list[providers.Provider[Any]]] = defaultdict(list)

    def single(self, make: Callable[..., T], *arguments: Any, **named: Any) -> providers.Singleton[T]:
        """One object per process. A function is registered by its return type."""
        provider = providers.Singleton(make, *arguments, **named)
        made = make if inspect.isclass(make) else get_type_hints(make)["return"]
        for kind in inspect.getmro(made):
            if kind not in _NO_PORTS:
                self.add(kind, provider)
        return provider

    def add(self, kind: type[T], provider: providers.Provider[T]) -> None:
        """Register a provider for the type."""
        self._provided[kind].append(provider)

    def provider_of(self, kind: type[T]) -> providers.Provider[T]:
        """Raises TypeError unless there is exactly one."""
        found = self._provided.get(kind, [])
        if len(found) != 1:
            raise TypeError(f"{kind.__name__} is provided {len(found)} times")
        return found[0]

    def wired(self, use_case: type[T], **given: Any) -> providers.Singleton[T]:
        """A dataclass with its fields filled by type. Values, and types with several providers, are given by name.

        Raises TypeError for a field that is neither found nor given.
        """
        types = get_type_hints(use_case)
        for field in dataclasses.fields(use_case):  # type: ignore[arg-type]  # T is a dataclass
            if field.name in given:
                continue
            match self._provided.get(types[field.name], []):
                case [provider]:
                    given[field.name] = provider
                case found if found or field.default is dataclasses.MISSING:
                    raise TypeError(f"{use_case.__name__}.{field.name} is provided {len(found)} times: give it by name")
        return self.single(use_case, **given)
