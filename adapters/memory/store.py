"""A database of dictionaries with transactions, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

from application.ports.runtime import UnitOfWork

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_undo: ContextVar[list[Callable[[], None]] | None] = ContextVar("undo", default=None)


class Table(Generic[K, V]):
    """Rows by key. Values are never changed in place, so undoing a write restores the old value."""

    def __init__(self) -> None:
        self._rows: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        return self._rows.get(key)

    def all(self) -> list[V]:
        return list(self._rows.values())

    def items(self) -> list[tuple[K, V]]:
        return list(self._rows.items())

    def put(self, key: K, value: V | None) -> None:
        """Store, or with None remove."""
        before = self._rows.get(key)
        undo = _undo.get()
        if undo is not None:
            undo.append(lambda: self._set(key, before))
        self._set(key, value)

    def _set(self, key: K, value: V | None) -> None:
        if value is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = value


class MemoryUnitOfWork(UnitOfWork):
    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        assert _undo.get() is None, "units of work do not nest"
        undo: list[Callable[[], None]] = []
        token = _undo.set(undo)
        try:
            yield
        except BaseException:
            for step in reversed(undo):
                step()
            raise
        finally:
            _undo.reset(token)

    def __call__(self) -> AbstractAsyncContextManager[None]:
        return self._transaction()
