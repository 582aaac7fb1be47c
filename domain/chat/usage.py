"""What a user has sent, counted by the UTC day and by the minute, and what is still unanswered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from domain.billing import Allowance, SendingLimits
from domain.chat.calls import CallPurpose, ModelCall
from domain.chat.messages import Message, Outcome
from domain.errors import QuotaExceeded, SendingTooFast, TooManyInFlight

MINUTE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One user's counters. Verbs return the next state; a day that has begun never goes back."""

    day: date
    used: int = 0
    in_flight: int = 0
    #: Minutes begin with a message.
    minute_from: datetime
    minute_used: int = 0
    #: Tokens of the day's replies, as the model reported them.
    input_tokens: int = 0
    output_tokens: int = 0
    #: The day's replies that were cut off before their first word.
    empty_cuts: int = 0

    def consumed(self, limits: SendingLimits, *, day: date, at: datetime) -> Usage:
        """With one more message. Raises QuotaExceeded, TooManyInFlight or SendingTooFast, the first that applies."""
        now = self._on(day)
        if at >= self.minute_from + MINUTE:
            now = replace(now, minute_from=at, minute_used=0)
        if limits.daily is not None and now.used >= limits.daily:
            raise QuotaExceeded(total=limits.daily, resets_at=Allowance(now.day, 0, None).resets_at)
        if limits.in_flight is not None and now.in_flight >= limits.in_flight:
            raise TooManyInFlight(limits.in_flight)
        if limits.per_minute is not None and now.minute_used >= limits.per_minute:
            left = now.minute_from + MINUTE - at
            raise SendingTooFast(limits.per_minute, retry_after=left.total_seconds())
        return replace(now, used=now.used + 1, in_flight=now.in_flight + 1, minute_used=now.minute_used + 1)

    def allowance(self, total: int | None, *, day: date) -> Allowance:
        """What is used of this day, or of a later one that a message has begun."""
        now = self._on(day)
        return Allowance(now.day, now.used, total, now.input_tokens, now.output_tokens)

    def gives_back(self, message: Message, outcome: Outcome) -> bool:
        """Whether a refundable message is refunded: of a day's empty cuts, only the first one is."""
        is_further_cut = outcome.is_empty_cut and self.day == message.allowance_day and self.empty_cuts > 0
        return not is_further_cut

    def freed(self, message: Message, outcome: Outcome, *, refundable: bool) -> Usage:
        """Without a message that was in flight."""
        is_refundable = refundable and self.day == message.allowance_day
        return replace(
            self,
            in_flight=self.in_flight - 1,
            used=self.used - (is_refundable and self.gives_back(message, outcome)),
            empty_cuts=self.empty_cuts + (is_refundable and outcome.is_empty_cut),
        )

    def booked(self, call: ModelCall) -> Usage:
        """With the tokens of a call, if it was for a reply of this day. Those of a title are not the user's."""
        if call.usage is None or call.purpose is not CallPurpose.REPLY or call.day != self.day:
            return self
        input_tokens, output_tokens = self.input_tokens + call.usage.input, self.output_tokens + call.usage.output
        return replace(self, input_tokens=input_tokens, output_tokens=output_tokens)

    def _on(self, day: date) -> Usage:
        if self.day >= day:
            return self
        return Usage(day=day, in_flight=self.in_flight, minute_from=self.minute_from, minute_used=self.minute_used)
