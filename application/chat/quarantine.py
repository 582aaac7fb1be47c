"""Quarantine of messages that may be poison: each process works on one of them at a time."""

from __future__ import annotations

from domain.ids import MessageId


class QuarantineSlot:
    """This process's only slot. Workers are notified later of messages that found it taken."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: dict[MessageId, None] = {}  # in order, each once

    def acquire(self, message_id: MessageId) -> bool:
        if self._taken:
            self._waiting[message_id] = None
            return False
        self._taken = True
        self._waiting.pop(message_id, None)
        return True

    def release(self) -> MessageId | None:
        """The next message to notify of, if any."""
        self._taken = False
        waiting = next(iter(self._waiting), None)
        if waiting is not None:
            del self._waiting[waiting]
        return waiting
