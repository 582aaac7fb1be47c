"""Identifiers: UUIDs of distinct types."""

from typing import NewType
from uuid import UUID

UserId = NewType("UserId", UUID)
SessionId = NewType("SessionId", UUID)
ChatroomId = NewType("ChatroomId", UUID)
MessageId = NewType("MessageId", UUID)
WorkerId = NewType("WorkerId", UUID)
