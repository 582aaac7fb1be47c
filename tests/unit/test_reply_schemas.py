"""Replies as they are encoded: as documented, whatever is missing in them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, get_args, get_type_hints
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.accounts.sessions import SignedIn
from application.ports.accounts import AccessToken
from domain.accounts import MobileNumber, User
from domain.billing import Allowance, Tier
from domain.chat.messages import Message, MessageStatus
from domain.ids import ChatroomId, MessageId, UserId
from entrypoints.http.api.schemas import accounts, billing, chat, common
from entrypoints.http.server.app import api_document
from tests.support.openapi_check import Document

AT = datetime(2026, 1, 31, 9, 30, 0, 123_456, UTC)
ANN = User(id=UserId(UUID(int=1)), mobile=MobileNumber("+919876543210"), name='Zoë\u2028\x1f"\\', created_at=AT)
QUEUED = Message(
    id=MessageId(UUID(int=2)),
    chatroom_id=ChatroomId(UUID(int=3)),
    user_id=ANN.id,
    input="Why\tis the sky 🟦?",
    created_at=AT,
    queued_at=AT,
    allowance_day=date(2026, 1, 31),
    max_output_tokens=2_048,
)
ANSWERED = replace(
    QUEUED,
    status=MessageStatus.COMPLETED,
    response="Because.",
    thoughts="Rayleigh?",
    thinking_seconds=3.0,
    finish_reason="STOP",
    input_tokens=0,
    cached_tokens=0,
    output_tokens=7,
    thought_tokens=3,
    attempt=2,
    completed_at=AT.replace(microsecond=0),
)
FAILED = replace(QUEUED, status=MessageStatus.FAILED, error_code="model_unavailable", charged=False)
ACCESS = AccessToken("e.y.J", 3600)

REPLIES: list[common.ReplySchema] = [
    *(chat.MessageReply(message="Yours.", data=chat.Message.of(each)) for each in (QUEUED, ANSWERED, FAILED)),
    chat.MessagesReply(message="Yours.", data=[], next_cursor=None),
    chat.MessagesReply(message="Yours.", data=[chat.Message.of(ANSWERED)], next_cursor=QUEUED.id),
    chat.AcceptedReply.of(QUEUED, Allowance(AT.date(), 1, 5)),
    chat.AcceptedReply.of(QUEUED, Allowance(AT.date(), 1, None)),
    billing.SubscriptionReply(message="Yours.", data=billing.Subscription.of(Tier.BASIC, None)),
    accounts.OtpReply(message="Sent.", challenge="c"),
    accounts.OtpReply(message="Sent.", otp="042137", challenge="c"),
    accounts.SignedInReply.of(SignedIn(ANN, ACCESS, "r")),
    accounts.SignedInReply.of(SignedIn(ANN, ACCESS, "r", "d")),
    accounts.SignedInReply.of(SignedIn(ANN, ACCESS, "")),
    accounts.SessionsReply(message="Yours.", data=[]),
]


@pytest.fixture(scope="module")
def document() -> Document:
    return Document(api_document())


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_a_reply_is_as_documented(document: Document, reply: common.ReplySchema) -> None:
    document.fits(json.loads(common.encode(reply)), _ref(reply), type(reply).__name__)


def _ref(reply: common.ReplySchema) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{type(reply).__name__}"}


def test_null_is_shown_and_what_a_reply_does_not_have_is_left_out() -> None:
    shown = json.loads(common.encode(chat.Message.of(QUEUED)))
    assert shown["response"] is shown["completedAt"] is shown["error"] is shown["usage"]["inputTokens"] is None
    assert json.loads(common.encode(chat.Message.of(FAILED)))["error"] == {"code": "model_unavailable", "detail": ""}
    assert json.loads(common.encode(accounts.OtpReply(message="Sent.", challenge="c"))) == {
        "message": "Sent.",
        "challenge": "c",
    }
    assert "refreshToken" not in json.loads(common.encode(accounts.SignedInReply.of(SignedIn(ANN, ACCESS, ""))))
    assert json.loads(common.encode(accounts.User.of(ANN)))["name"] == ANN.name


def test_values_are_of_the_annotated_types() -> None:
    """Nothing validates a reply, so `of` must fit the annotations that are documented."""
    for message in (QUEUED, ANSWERED, FAILED):
        shown = chat.Message.of(message)
        for name, kind in get_type_hints(chat.Message).items():
            if name in chat.Message.__struct_fields__:
                assert isinstance(getattr(shown, name), tuple(get_args(kind)) or kind), name


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001 - naive bounds
def test_a_time_has_exactly_milliseconds(time: datetime) -> None:
    assert common.timestamp(time) == time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("microsecond", [0, 1, 999, 1_000, 120_000, 999_999])
def test_a_fraction_is_cut_not_rounded(microsecond: int) -> None:
    shown = common.timestamp(AT.replace(microsecond=microsecond))
    assert shown == f"2026-01-31T09:30:00.{microsecond // 1000:03}Z"
