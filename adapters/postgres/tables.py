"""The tables, as Tortoise models. A column has the name of its entity's field.

What the ORM cannot say (partial indexes) stands in the migrations as SQL.
"""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model

from domain.accounts import OtpPurpose
from domain.billing import Tier
from domain.chat import MessageStatus


class UserRow(Model):
    id = fields.UUIDField(primary_key=True)
    mobile = fields.CharField(max_length=16, unique=True)
    name = fields.TextField()
    password_hash = fields.TextField(null=True)
    tier = fields.CharEnumField(Tier, max_length=16)
    chatrooms_version = fields.BigIntField(default=0)
    created_at = fields.DatetimeField()

    class Meta:
        table = "users"


class SessionRow(Model):
    id = fields.UUIDField(primary_key=True)
    user: fields.ForeignKeyRelation[UserRow] = fields.ForeignKeyField(
        "models.UserRow", related_name=False, on_delete=fields.CASCADE
    )
    created_at = fields.DatetimeField()
    ended_at = fields.DatetimeField(null=True)

    class Meta:
        table = "sessions"
        indexes = (("user_id",),)


class OtpChallengeRow(Model):
    id = fields.BigIntField(primary_key=True)
    mobile = fields.CharField(max_length=16)
    purpose = fields.CharEnumField(OtpPurpose, max_length=16)
    code_hash = fields.TextField()
    expires_at = fields.DatetimeField()
    guesses_left = fields.IntField()

    class Meta:
        table = "otp_challenges"
        unique_together = (("mobile", "purpose"),)


class ChatroomRow(Model):
    id = fields.UUIDField(primary_key=True)
    user: fields.ForeignKeyRelation[UserRow] = fields.ForeignKeyField(
        "models.UserRow", related_name=False, on_delete=fields.CASCADE
    )
    name = fields.TextField()
    instructions = fields.TextField(null=True)
    auto_title = fields.BooleanField(default=False, db_default=False)
    created_at = fields.DatetimeField()

    class Meta:
        table = "chatrooms"
        indexes = (("user_id", "id"),)


class MessageRow(Model):
    """The message, which is its own outbox: status, attempt, lease_until and due_at are the queue."""

    id = fields.UUIDField(primary_key=True)
    chatroom: fields.ForeignKeyRelation[ChatroomRow] = fields.ForeignKeyField(
        "models.ChatroomRow", related_name=False, on_delete=fields.CASCADE
    )
    user: fields.ForeignKeyRelation[UserRow] = fields.ForeignKeyField(
        "models.UserRow", related_name=False, on_delete=fields.CASCADE
    )
    input = fields.TextField()
    created_at = fields.DatetimeField()
    status = fields.CharEnumField(MessageStatus, max_length=16)
    response = fields.TextField(null=True)
    finish_reason = fields.TextField(null=True)
    input_tokens = fields.IntField(null=True)
    output_tokens = fields.IntField(null=True)
    error_code = fields.TextField(null=True)
    error_detail = fields.TextField(null=True)
    attempt = fields.IntField(default=0)
    failures = fields.IntField(default=0)
    deaths = fields.IntField(default=0)
    allowance_day = fields.DateField()
    charged = fields.BooleanField()
    cancel_requested = fields.BooleanField(default=False, db_default=False)
    queued_at = fields.DatetimeField()
    max_output_tokens = fields.IntField()
    completed_at = fields.DatetimeField(null=True)
    due_at = fields.DatetimeField()
    lease_until = fields.DatetimeField(null=True)
    rung_at = fields.DatetimeField()

    class Meta:
        table = "messages"
        indexes = (("chatroom_id", "id"), ("user_id", "id"))


class AllowanceRow(Model):
    """What a user has used of the latest day, what is unanswered, and what was sent in the latest minute."""

    user: fields.OneToOneRelation[UserRow] = fields.OneToOneField(
        "models.UserRow", related_name=False, on_delete=fields.CASCADE, primary_key=True
    )
    day = fields.DateField()
    used = fields.IntField()
    in_flight = fields.IntField()
    minute_from = fields.DatetimeField()
    minute_used = fields.IntField()
    input_tokens = fields.BigIntField(default=0, db_default=0)
    output_tokens = fields.BigIntField(default=0, db_default=0)

    class Meta:
        table = "allowances"


class ModelBudgetRow(Model):
    """One row: the moment up to which the model's calls a minute are spoken for."""

    id = fields.IntField(primary_key=True, generated=False)
    booked_until = fields.DatetimeField()

    class Meta:
        table = "model_budget"


class IdempotencyKeyRow(Model):
    id = fields.BigIntField(primary_key=True)
    scope = fields.TextField()
    key = fields.TextField()
    body_hash = fields.BinaryField()
    resource_id = fields.UUIDField()
    busy_until = fields.DatetimeField()
    status = fields.IntField(null=True)
    reply = fields.BinaryField(null=True)
    created_at = fields.DatetimeField(db_index=True)

    class Meta:
        table = "idempotency_keys"
        unique_together = (("scope", "key"),)
