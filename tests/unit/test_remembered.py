"""Remembered replies: the right one or none, within bounds."""

from __future__ import annotations

from uuid import UUID, uuid4

from domain.ids import ChatroomId, UserId
from entrypoints.http.api.schemas.chat import ChatroomsQuery
from entrypoints.http.steps.remembered import MAX_BYTES, MAX_USER_BYTES, RecentReplies

ANN, BOB = UserId(UUID(int=1)), UserId(UUID(int=2))
FIRST = ChatroomsQuery()
NEXT = ChatroomsQuery(cursor=ChatroomId(UUID(int=3)))


def test_user_version_and_query_must_be_equal() -> None:
    replies = RecentReplies()
    replies.put(ANN, 3, FIRST, b"reply")
    assert replies.get(ANN, 3, ChatroomsQuery()) == b"reply"
    for user_id, version, query in ((BOB, 3, FIRST), (ANN, 2, FIRST), (ANN, 4, FIRST), (ANN, 3, NEXT)):
        assert replies.get(user_id, version, query) is None


def test_a_user_has_one_reply() -> None:
    replies = RecentReplies()
    for version in range(100):
        replies.put(ANN, version, NEXT if version % 2 else FIRST, b"x" * 1_000)
    assert replies.bytes == 1_000
    assert replies.get(ANN, 98, FIRST) is None
    assert replies.get(ANN, 99, NEXT) == b"x" * 1_000


def test_a_large_reply_is_not_kept_nor_an_earlier_one() -> None:
    replies = RecentReplies()
    replies.put(ANN, 1, FIRST, b"small")
    replies.put(ANN, 2, FIRST, b"x" * (MAX_USER_BYTES + 1))
    assert replies.get(ANN, 2, FIRST) is None
    assert replies.get(ANN, 1, FIRST) is None
    assert replies.bytes == 0


def test_the_longest_unused_are_dropped() -> None:
    replies, users = RecentReplies(), [UserId(uuid4()) for _ in range(MAX_BYTES // MAX_USER_BYTES)]
    for user_id in users:
        replies.put(user_id, 1, FIRST, b"x" * MAX_USER_BYTES)
    assert replies.bytes == MAX_BYTES
    assert replies.get(users[0], 1, FIRST)
    replies.put(ANN, 1, FIRST, b"x")
    assert replies.bytes <= MAX_BYTES
    assert replies.get(users[1], 1, FIRST) is None
    assert replies.get(users[0], 1, FIRST)
    assert replies.get(ANN, 1, FIRST) == b"x"
