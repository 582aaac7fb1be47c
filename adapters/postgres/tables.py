"""The tables, as Tortoise models. A column has the name of its entity's field.

Partial indexes, which the ORM cannot express, are SQL in the migrations.
"""

from __future__ import annotations

from datetime import datetime

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.fields.db_defaults import Now
from tortoise.models import Model

from domain.accounts import GuessKind, OtpPurpose
from domain.billing import SubscriptionStatus
from domain.chat.calls import ThinkingLevel
from domain.chat.messages import MessageStatus


class UserRow(Model):
    id = fields.UUIDField(primary_key=True)
    mobile = fields.CharField(max_length=16, unique=True)
    name = fields.TextField()
    password_hash = fields.TextField(null=True)
    pro_until = fields.DatetimeField(null=True)
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
    last_seen_at = fields.DatetimeField(db_index=True)
    expires_at = fields.DatetimeField(db_index=True)
    device = fields.TextField()
    network = fields.TextField()
    ended_at = fields.DatetimeField(null=True)

    class Meta:
        table = "sessions"
        indexes = (("user_id",),)


class RefreshTokenRow(Model):
    """Spent ones too, so that the reuse of a token is detected."""

    id = fields.BigIntField(primary_key=True)
    hash = fields.BinaryField()
    session: fields.ForeignKeyRelation[SessionRow] = fields.ForeignKeyField(
        "models.SessionRow", related_name=False, on_delete=fields.CASCADE
    )
    expires_at = fields.DatetimeField()
    spent_at = fields.DatetimeField(null=True)

    class Meta:
        table = "refresh_tokens"
        unique_together = (("hash",),)
        indexes = (("session_id",),)


class KnownDeviceRow(Model):
    """A device that has logged in, and its latest session, which may be gone."""

    id = fields.BigIntField(primary_key=True)
    hash = fields.BinaryField()
    user: fields.ForeignKeyRelation[UserRow] = fields.ForeignKeyField(
        "models.UserRow", related_name=False, on_delete=fields.CASCADE
    )
    session_id = fields.UUIDField()
    seen_at = fields.DatetimeField(db_index=True)

    class Meta:
        table = "known_devices"
        unique_together = (("hash",),)
        indexes = (("user_id",),)


class GuessBudgetRow(Model):
    """When the latest wrong guesses at a number were made, newest first, up to the daily limit.

    It outlives the number's account, so it has a keyed digest of the number, or of the number and one of its known
    devices. The next two have the number's.
    """

    id = fields.BigIntField(primary_key=True)
    number_digest = fields.CharField(max_length=22)
    kind = fields.CharEnumField(GuessKind, max_length=16)
    wrong_at: fields.Field[list[datetime]] = ArrayField("timestamptz")
    in_a_row = fields.IntField()

    class Meta:
        table = "wrong_guesses"
        unique_together = (("number_digest", "kind"),)


class OtpSendingRow(Model):
    """When the latest codes were sent to a number, newest first, as far as the rules look back."""

    number_digest = fields.CharField(max_length=22, primary_key=True)
    sent_at: fields.Field[list[datetime]] = ArrayField("timestamptz")
    # Of these, the ones that known devices asked for. NULL in rows of the previous version.
    known_at: fields.Field[list[datetime]] = ArrayField("timestamptz", null=True)

    class Meta:
        table = "codes_sent"


class CodesTotalRow(Model):
    """The codes sent on a day to all numbers together."""

    day = fields.DateField(primary_key=True)
    sent = fields.IntField()

    class Meta:
        table = "codes_total"


class KeptAllowanceRow(Model):
    """The usage of an account that was deleted today. The number's next account begins with it."""

    number_digest = fields.CharField(max_length=22, primary_key=True)
    day = fields.DateField()
    used = fields.IntField()
    minute_from = fields.DatetimeField()
    minute_used = fields.IntField()
    input_tokens = fields.BigIntField()
    output_tokens = fields.BigIntField()
    empty_cuts = fields.IntField()

    class Meta:
        table = "kept_allowances"


class OneTimeCodeRow(Model):
    id = fields.BigIntField(primary_key=True)
    mobile = fields.CharField(max_length=16)
    purpose = fields.CharEnumField(OtpPurpose, max_length=16)
    challenge_hash = fields.BinaryField()
    code_hash = fields.TextField()
    expires_at = fields.DatetimeField(db_index=True)
    guesses_left = fields.IntField()
    unbound_left = fields.IntField()

    class Meta:
        table = "one_time_codes"
        unique_together = (("challenge_hash",),)
        indexes = (("mobile", "purpose"),)


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
    """A message, written when it is queued and when it has ended. In between, its state is that of its queue entry.

    Partitioned by month of the id. Without foreign keys: a deleted room's messages are erased later, in batches.
    """

    id = fields.UUIDField(primary_key=True)
    chatroom_id = fields.UUIDField()
    user_id = fields.UUIDField()
    input = fields.TextField()
    created_at = fields.DatetimeField()
    status = fields.CharEnumField(MessageStatus, max_length=16)
    response = fields.TextField(null=True)
    thoughts = fields.TextField(null=True)
    thinking_seconds = fields.FloatField(null=True)
    finish_reason = fields.TextField(null=True)
    input_tokens = fields.IntField(null=True)
    cached_tokens = fields.IntField(null=True)
    output_tokens = fields.IntField(null=True)
    thought_tokens = fields.IntField(null=True)
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
    thinking = fields.CharEnumField(ThinkingLevel, max_length=16, null=True)
    kept_characters = fields.IntField(default=0, db_default=0)
    kept_attempt = fields.IntField(default=0, db_default=0)
    request_id = fields.UUIDField(null=True)
    window_from = fields.UUIDField(null=True)
    completed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "messages"
        indexes = (("chatroom_id", "id"),)


class DeletedChatroomRow(Model):
    """A deleted room, or one of a deleted user, whose messages are not erased yet. A trigger writes it."""

    id = fields.UUIDField(primary_key=True)

    class Meta:
        table = "deleted_chatrooms"


class QueueEntryRow(Model):
    """A message that is queued or being generated. None of its usual changes is indexed, so that they are HOT."""

    message_id = fields.UUIDField(primary_key=True)
    chatroom: fields.ForeignKeyRelation[ChatroomRow] = fields.ForeignKeyField(
        "models.ChatroomRow", related_name=False, on_delete=fields.CASCADE
    )
    attempt = fields.IntField(default=0, db_default=0)
    failures = fields.IntField(default=0, db_default=0)
    deaths = fields.IntField(default=0, db_default=0)
    #: The model has been called since the message was queued.
    called = fields.BooleanField(default=False, db_default=False)
    cancel_requested = fields.BooleanField(default=False, db_default=False)
    queued_at = fields.DatetimeField()
    due_at = fields.DatetimeField()
    notified_at = fields.DatetimeField()
    #: The worker that has it. Not a foreign key: workers go when they please.
    worker_id = fields.UUIDField(null=True)

    class Meta:
        table = "queue_entries"
        indexes = (("chatroom_id",),)


class WorkerRow(Model):
    """The lease of a worker process."""

    id = fields.UUIDField(primary_key=True)
    lease_until = fields.DatetimeField()

    class Meta:
        table = "workers"


class AllowanceRow(Model):
    """A user's usage of the latest day, unanswered messages, and messages of the latest minute."""

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
    #: Replies of the day that were cut before their first word: from the second on they are not given back.
    empty_cuts = fields.IntField(default=0, db_default=0)

    class Meta:
        table = "allowances"


class ModelCallRow(Model):
    """A billed call of the model, whatever its outcome. It outlives its message and its user."""

    id = fields.BigIntField(primary_key=True)
    created_at = fields.DatetimeField(db_index=True, db_default=Now())
    user_id = fields.UUIDField()
    message_id = fields.UUIDField()
    attempt = fields.IntField()
    purpose = fields.CharField(max_length=16)
    model = fields.TextField()
    outcome = fields.CharField(max_length=32)
    input_tokens = fields.IntField(null=True)
    cached_tokens = fields.IntField(null=True)
    output_tokens = fields.IntField(null=True)
    thought_tokens = fields.IntField(null=True)

    class Meta:
        table = "model_calls"
        unique_together = (("message_id", "attempt", "purpose"),)
        indexes = (("user_id", "id"),)


class BillingAccountRow(Model):
    """One for each user known to Stripe, and the job that syncs it from there: due_at, lease_until, attempt."""

    user: fields.OneToOneRelation[UserRow] = fields.OneToOneField(
        "models.UserRow", related_name=False, on_delete=fields.CASCADE, primary_key=True
    )
    customer_id = fields.CharField(max_length=255, null=True, unique=True)
    customers = fields.IntField(default=0)
    checkouts = fields.IntField(default=0)
    checkout_busy_until = fields.DatetimeField(null=True)
    changes = fields.BigIntField(default=0)
    attempt = fields.IntField(default=0)
    failures = fields.IntField(default=0)
    announced = fields.BooleanField(default=False, db_default=False)
    due_at = fields.DatetimeField(null=True, db_index=True)
    lease_until = fields.DatetimeField(null=True)
    rung_at = fields.DatetimeField(null=True)

    class Meta:
        table = "billing_accounts"


class SubscriptionRow(Model):
    id = fields.CharField(max_length=255, primary_key=True)
    user: fields.ForeignKeyRelation[UserRow] = fields.ForeignKeyField(
        "models.UserRow", related_name=False, on_delete=fields.CASCADE
    )
    status = fields.CharEnumField(SubscriptionStatus, max_length=24)
    price_id = fields.TextField()
    created_at = fields.DatetimeField()
    current_period_end = fields.DatetimeField(null=True)
    cancel_at = fields.DatetimeField(null=True)
    unpaid_from = fields.DatetimeField(null=True)
    past_due_since = fields.DatetimeField(null=True)

    class Meta:
        table = "subscriptions"
        indexes = (("user_id",),)


class CheckoutRow(Model):
    id = fields.CharField(max_length=255, primary_key=True)
    user: fields.ForeignKeyRelation[UserRow] = fields.ForeignKeyField(
        "models.UserRow", related_name=False, on_delete=fields.CASCADE
    )
    url = fields.TextField(null=True)
    expires_at = fields.DatetimeField()
    payment_intent_id = fields.CharField(max_length=255, null=True, db_index=True)
    settled = fields.BooleanField(default=False)

    class Meta:
        table = "checkouts"
        indexes = (("user_id",),)


class PaymentEventRow(Model):
    """Ids of the events that were processed."""

    id = fields.CharField(max_length=255, primary_key=True)
    received_at = fields.DatetimeField(db_index=True)

    class Meta:
        table = "payment_events"


class ModelBudgetRow(Model):
    """One row: the time up to which calls of the model are booked."""

    id = fields.IntField(primary_key=True, generated=False)
    booked_until = fields.DatetimeField()

    class Meta:
        table = "model_budget"


class ModelSetupRow(Model):
    """One row: why Google refuses the deployment's key or project; NULL if it does not."""

    id = fields.IntField(primary_key=True, generated=False)
    refused_for = fields.TextField(null=True)
    seen_at = fields.DatetimeField()

    class Meta:
        table = "model_setup"


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
