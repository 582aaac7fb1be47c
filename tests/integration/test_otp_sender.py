"""Ways for a code to reach its owner: SMS against a stand-in of Twilio, the terminal, the background."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from adapters.otp_sender.senders import ConsoleOtpSender, InBackground, ReplyOtpSender
from adapters.otp_sender.twilio import SmsRefused, TwilioAccount, TwilioOtpSender
from application.ports.accounts import OtpSender
from application.ports.runtime import Described
from domain.accounts import MobileNumber, OtpPurpose
from domain.errors import DomainError, Unavailable
from entrypoints.container import Container
from entrypoints.settings import Settings
from tests.support.patience import HANG
from tests.support.twilio_standin import ACCOUNT, CONTENT, SENDER, SERVICE, TOKEN, TwilioStandIn, twilio_standin

ANN, CODE = MobileNumber("+919876543210"), "042137"
LOGIN, RESET = OtpPurpose.LOGIN, OtpPurpose.RESET
LOGIN_TEXT = "042137 is your code to log in. It is valid for 5 minutes. Do not share it."


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioStandIn]:
    async with twilio_standin() as standin:
        yield standin


@asynccontextmanager
async def started(sender: OtpSender) -> AsyncIterator[OtpSender]:
    await sender.start()
    try:
        yield sender
    finally:
        await sender.close()


def by_sms(twilio: TwilioStandIn, *, seconds: float = 10, **changes: Any) -> TwilioOtpSender:
    values = {"sid": ACCOUNT, "token": TOKEN, "sender": SENDER, "api_base": twilio.url}
    return TwilioOtpSender(TwilioAccount(**{**values, **changes}), seconds=seconds)


class TestTwilio:
    async def test_sends_from_a_number(self, twilio: TwilioStandIn) -> None:
        async with started(by_sms(twilio)) as sender:
            assert not sender.in_reply
            await sender.send(ANN, CODE, LOGIN)
        assert twilio.sent == [{"To": ANN, "From": SENDER, "Body": LOGIN_TEXT}]

    async def test_sends_by_a_messaging_service(self, twilio: TwilioStandIn) -> None:
        async with started(by_sms(twilio, sender=SERVICE)) as sender:
            await sender.send(ANN, CODE, RESET)
        text = "042137 is your code to set a new password. It is valid for 5 minutes. Do not share it."
        assert twilio.sent == [{"To": ANN, "MessagingServiceSid": SERVICE, "Body": text}]

    @pytest.mark.parametrize("purpose", [LOGIN, RESET])
    async def test_sends_a_message_to_the_letter(self, twilio: TwilioStandIn, purpose: OtpPurpose) -> None:
        template = "Dear user, {code} is your OTP\nfor {#var#}. \u2013 ACME  Ltd"
        async with started(by_sms(twilio, message=template)) as sender:
            await sender.send(ANN, CODE, purpose)
        assert twilio.sent[0]["Body"] == "Dear user, 042137 is your OTP\nfor {#var#}. \u2013 ACME  Ltd"

    @pytest.mark.parametrize(
        ("by", "origin"),
        [(SENDER, {"From": f"whatsapp:{SENDER}"}), (SERVICE, {"MessagingServiceSid": SERVICE})],
    )
    async def test_sends_by_whatsapp(self, twilio: TwilioStandIn, by: str, origin: dict[str, str]) -> None:
        async with started(by_sms(twilio, sender=by, channel="whatsapp", content=CONTENT)) as sender:
            await sender.send(ANN, CODE, LOGIN)
        [sent] = twilio.sent
        assert json.loads(sent.pop("ContentVariables")) == {"1": CODE}
        assert sent == {"To": f"whatsapp:{ANN}", **origin, "ContentSid": CONTENT}

    async def test_says_that_its_account_works(self, twilio: TwilioStandIn) -> None:
        async with started(InBackground(by_sms(twilio))) as sender:
            assert isinstance(sender, Described)
            facts = {fact.name: (fact.value, fact.warning) for fact in await sender.describe()}
            assert facts == {"account": ("active", ""), "channel": ("sms", "")}
            twilio.status = "suspended"
            [suspended, _] = await sender.describe()
            assert suspended.warning
        assert twilio.sent == []

    @pytest.mark.parametrize(("fault", "token"), [(None, "wrong"), (503, TOKEN), (429, TOKEN), ("cut", TOKEN)])
    async def test_says_what_is_wrong_with_it(self, twilio: TwilioStandIn, fault: int | str | None, token: str) -> None:
        twilio.fault = fault
        async with started(by_sms(twilio, token=token)) as sender:
            assert isinstance(sender, Described)
            with pytest.raises(DomainError) as caught:
                await sender.describe()
        assert isinstance(caught.value, Unavailable) == (token == TOKEN)
        assert TOKEN not in caught.value.detail

    @pytest.mark.parametrize("slash", ["", "/"])
    async def test_many_at_once(self, twilio: TwilioStandIn, slash: str) -> None:
        async with started(by_sms(twilio, api_base=twilio.url + slash)) as sender:
            await asyncio.gather(*(sender.send(ANN, f"{n:06d}", LOGIN) for n in range(50)))
        assert sorted(sent["Body"][:6] for sent in twilio.sent) == [f"{n:06d}" for n in range(50)]

    async def test_heeds_no_proxy_and_no_password_file_of_the_environment(
        self, twilio: TwilioStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
            monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
        (tmp_path / "netrc").write_text("default login somebody password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with started(by_sms(twilio)) as sender:
            await sender.send(ANN, CODE, LOGIN)
        assert len(twilio.sent) == 1

    async def test_follows_no_redirect(self, twilio: TwilioStandIn) -> None:
        """It would take the number and the code along."""
        async with twilio_standin() as elsewhere:
            twilio.fault, twilio.location = 307, f"{elsewhere.url}/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
            async with started(by_sms(twilio)) as sender:
                with pytest.raises(SmsRefused):
                    await sender.send(ANN, CODE, LOGIN)
        assert (twilio.asked, elsewhere.asked) == (1, 0)

    @pytest.mark.parametrize(
        ("changes", "mobile", "status", "reason"),
        [
            ({"token": "wrong"}, ANN, 401, 20003),
            ({"sid": "AC" + "0" * 32}, ANN, 401, 20003),
            ({}, "+15005550001", 400, 21211),
            ({"sender": "+15005550007"}, ANN, 400, 21603),
        ],
        ids=["wrong token", "wrong account", "no such number", "not our sender"],
    )
    async def test_a_refusal_is_raised(
        self, twilio: TwilioStandIn, changes: dict[str, Any], mobile: str, status: int, reason: int
    ) -> None:
        async with started(by_sms(twilio, **changes)) as sender:
            with pytest.raises(SmsRefused) as caught:
                await sender.send(MobileNumber(mobile), CODE, LOGIN)
        assert (caught.value.status, caught.value.reason) == (status, reason)
        assert all(secret not in str(caught.value) for secret in (mobile, CODE, TOKEN))
        assert (twilio.asked, twilio.sent) == (1, [])

    @pytest.mark.parametrize("body", ["", "no JSON", "[]", '"text"', '{"code": "21211"}', "{}", '{"code": 1'])
    async def test_a_refusal_without_a_reason_is_still_one(self, twilio: TwilioStandIn, body: str) -> None:
        twilio.fault, twilio.body = 502, body
        async with started(by_sms(twilio)) as sender:
            with pytest.raises(SmsRefused) as caught:
                await sender.send(ANN, CODE, LOGIN)
        assert (caught.value.status, caught.value.reason) == (502, None)

    @pytest.mark.parametrize("fault", [429, 500, 503, "cut"])
    async def test_trouble_is_raised_and_not_repeated(self, twilio: TwilioStandIn, fault: int | str) -> None:
        twilio.fault = fault
        async with started(by_sms(twilio)) as sender:
            with pytest.raises(Exception, match=r".*"):
                await sender.send(ANN, CODE, LOGIN)
            assert twilio.asked == 1
            twilio.fault = None
            await sender.send(ANN, CODE, LOGIN)
        assert len(twilio.sent) == 1

    async def test_one_that_hangs_is_given_up(self, twilio: TwilioStandIn) -> None:
        twilio.fault = "hang"
        async with started(by_sms(twilio, seconds=0.1)) as sender:
            async with asyncio.timeout(HANG):
                with pytest.raises(TimeoutError):
                    await sender.send(ANN, CODE, LOGIN)
            twilio.fault = None
            twilio.released.set()
            await sender.send(ANN, CODE, LOGIN)

    async def test_its_client_logs_neither_number_nor_code(
        self, twilio: TwilioStandIn, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        async with started(by_sms(twilio)) as sender:
            await sender.send(ANN, CODE, LOGIN)
        for secret in (ANN, ANN[1:], CODE, TOKEN):
            assert secret not in caplog.text


class TestOthers:
    async def test_the_terminal_shows_the_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        async with started(ConsoleOtpSender()) as sender:
            assert not sender.in_reply
            await sender.send(ANN, CODE, LOGIN)
        shown = capsys.readouterr()
        assert shown.err == f"To {ANN}: {LOGIN_TEXT}\n"
        assert shown.out == ""

    async def test_the_reply_needs_no_sender(self, capsys: pytest.CaptureFixture[str]) -> None:
        async with started(ReplyOtpSender()) as sender:
            assert sender.in_reply
            await sender.send(ANN, CODE, LOGIN)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("chosen", "kind"),
        [
            ({}, ReplyOtpSender),
            ({"OTP_SENDER": "console"}, InBackground),
            (
                {
                    "OTP_SENDER": "twilio",
                    "TWILIO_ACCOUNT_SID": ACCOUNT,
                    "TWILIO_AUTH_TOKEN": TOKEN,
                    "TWILIO_FROM": SENDER,
                },
                InBackground,
            ),
        ],
        ids=["by default", "console", "twilio"],
    )
    def test_settings_choose(self, chosen: dict[str, str], kind: type[OtpSender]) -> None:
        assert isinstance(Container(settings=Settings.from_environment(chosen)).otp_sender(), kind)

    async def test_settings_reach_twilio(self, twilio: TwilioStandIn) -> None:
        environment = {
            "OTP_SENDER": "twilio",
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_FROM": SENDER,
            "TWILIO_API_BASE": twilio.url + "/",
        }
        async with started(Container(settings=Settings.from_environment(environment)).otp_sender()) as sender:
            await sender.send(ANN, CODE, LOGIN)
        assert [sent["Body"] for sent in twilio.sent] == [LOGIN_TEXT], "closing waits for it"


class SlowSender(ConsoleOtpSender):
    """Sends when it is let, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.let = asyncio.Event()
        self.error = error
        self.begun: list[str] = []
        self.sent: list[str] = []
        self.is_open = False

    async def start(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def send(self, mobile: MobileNumber, code: str, purpose: OtpPurpose) -> None:
        self.begun.append(code)
        await self.let.wait()
        if self.error:
            raise self.error
        assert self.is_open
        self.sent.append(code)


class TestInBackground:
    async def test_who_asks_does_not_wait(self) -> None:
        slow = SlowSender()
        async with started(InBackground(slow)) as sender:
            assert not sender.in_reply
            for _ in range(3):
                await sender.send(ANN, CODE, LOGIN)
            assert slow.begun == [], "not even its beginning is waited for"
            slow.let.set()
        assert slow.sent == [CODE] * 3, "what is on its way is waited for at the end"
        assert not slow.is_open

    @pytest.mark.parametrize("error", [OSError(f"no route to {ANN}"), TimeoutError(), ValueError(f"{CODE} for {ANN}")])
    async def test_a_failure_is_logged_without_number_or_code(self, error: Exception) -> None:
        slow = SlowSender(error)
        slow.let.set()
        with structlog.testing.capture_logs() as logs:
            async with started(InBackground(slow)) as sender:
                await sender.send(ANN, CODE, LOGIN)
        assert logs == [
            {
                "event": "code_not_sent",
                "log_level": "error",
                "error": type(error).__name__,
                "status": None,
                "reason": None,
            }
        ]

    async def test_a_refusal_is_logged_by_its_status(self, twilio: TwilioStandIn) -> None:
        with structlog.testing.capture_logs() as logs:
            async with started(InBackground(by_sms(twilio, token="wrong"))) as sender:
                await sender.send(ANN, CODE, LOGIN)
        [logged] = logs
        assert (logged["event"], logged["status"], logged["reason"]) == ("code_not_sent", 401, 20003)
        assert all(secret not in str(logged) for secret in (ANN, CODE, TOKEN))

    async def test_one_that_hangs_does_not_stop_the_end(self, twilio: TwilioStandIn) -> None:
        twilio.fault = "hang"
        async with asyncio.timeout(HANG), started(InBackground(by_sms(twilio, seconds=1))) as sender:
            await sender.send(ANN, CODE, LOGIN)
        assert (twilio.asked, twilio.sent) == (1, [])
