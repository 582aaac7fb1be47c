"""Chatrooms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain.ids import ChatroomId, UserId

MAX_INSTRUCTIONS_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Chatroom:
    id: ChatroomId
    user_id: UserId
    name: str
    #: The system instruction of every conversation in this room.
    instructions: str | None = None
    #: The model is to suggest a name after the first exchange.
    auto_title: bool = False
    created_at: datetime
