"""Settings that cannot be started with: a line for each, naming the variable and never its value."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations

import pytest

from domain.chat.calls import ThinkingLevel
from entrypoints.setting_types import secrets
from entrypoints.settings import MIGRATE_NEEDS, SERVE_NEEDS, WORKER_NEEDS, Settings, SettingsError

SECRET = "0123456789abcdef0123456789abcdef"


TWILIO = {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "hunter2", "TWILIO_FROM": "+15005550006"}


BY_SMS = {"APP_ENV": "production", "OTP_SENDER": "twilio", "OTP_COUNTRIES": "IN", **TWILIO}


def lines(needs: tuple[str, ...] = (), /, **environment: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment, needs=needs)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.lines


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ACCESS_TOKEN_SECRET", "hunter2", "too weak"),
        ("ACCESS_TOKEN_SECRET", SECRET[:31], "too weak"),
        ("ACCESS_TOKEN_SECRET", "secretsecretsecretsecretsecretse", "too weak"),
        ("DATABASE_URL", "mysql://user:hunter2@db/x", "must be a URL that starts with postgres://"),
        ("DATABASE_URL", "user:hunter2@db/x", "must be a URL"),
        ("DATABASE_URL", "postgres://", "must be a URL"),
        ("DATABASE_URL", "postgres://u:hunter2@db:port/x", "must be a URL"),
        ("DATABASE_URL", "postgres://[hunter2/x", "must be a URL"),
        ("REDIS_URL", "redis://:hunter2@cache:65536", "must have a port from 1 to 65535"),
        ("REDIS_URL", "http://:hunter2@cache", "must be a URL that starts with redis://, rediss://, unix://"),
        ("REDIS_URL", "hunter2", "must be a URL"),
        ("GEMINI_BASE_URL", "ftp://hunter2", "must be a URL that starts with http:// or https://"),
        ("STRIPE_API_BASE", "hunter2", "must be a URL that starts with http:// or https://"),
        ("PUBLIC_URL", "hunter2.example", "must be a URL"),
        ("CHECKOUT_SUCCESS_URL", "javascript:hunter2", "must be a URL"),
        ("CHECKOUT_CANCEL_URL", "//hunter2", "must be a URL"),
        ("PORTAL_RETURN_URL", "https://", "must be a URL"),
        ("STRIPE_PROMOTION_CODES", "hunter2", "must be 'on' or 'off'"),
        ("STRIPE_AUTOMATIC_TAX", "hunter2", "must be 'on' or 'off'"),
        ("STRIPE_SECONDS", "0", "must be greater than 0"),
        ("CHECKOUT_RECONCILE_MINUTES", "hunter2", "must be a number"),
        ("SUBSCRIPTION_RECONCILE_HOURS", "-1", "must be greater than 0"),
        ("WEBHOOK_BODY_BYTES", "0", "must be at least 1"),
        ("DEFAULT_REGION", "hunter2", "must be a two-letter region"),
        ("DEFAULT_REGION", "in", "must be a two-letter region"),
        ("PORT", "hunter2", "must be a whole number"),
        ("PORT", "80.5", "must be a whole number"),
        ("PORT", "65536", "must be at most 65535"),
        ("PORT", "-1", "must be at least 0"),
        ("APP_ENV", "hunter2", "must be 'development' or 'production'"),
        ("LOG_LEVEL", "hunter2", "must be 'debug'"),
        ("GEMINI_SDK", "hunter2", "must be 'rest', 'google-genai' or 'google-generativeai'"),
        ("GEMINI_PROXY", "socks5://user:hunter2@proxy", "must be a URL that starts with http:// or https://"),
        ("GEMINI_API_KEY", "hun ter2hunter2", "must be printable ASCII"),
        ("GEMINI_API_KEY", "hunter2\nhunter2", "must be printable ASCII"),
        ("GEMINI_API_KEY", "hünter2", "must be printable ASCII"),
        ("ACCESS_TOKEN_OLD_SECRETS", "hunter2", "too weak"),
        ("ACCESS_TOKEN_OLD_SECRETS", f"{SECRET},hunter2", "too weak"),
        ("OTP_IN_RESPONSE", "hunter2", "must be"),
        ("OTP_SENDER", "hunter2", "must be 'reply', 'console' or 'twilio'"),
        ("OTP_COUNTRIES", "hunter2", "must be two-letter regions"),
        ("OTP_COUNTRIES", "IN,in", "must be two-letter regions"),
        ("TWILIO_API_BASE", "hunter2", "must be a URL"),
        ("TWILIO_CHANNEL", "hunter2", "must be 'sms' or 'whatsapp'"),
        ("OTP_MESSAGE", "hunter2", "must contain {code} once"),
        ("OTP_MESSAGE", "{code}hunter2{code}", "must contain {code} once"),
        ("OTP_MESSAGE", "{code}" + "hunter2" * 70, "must have at most 480 characters"),
        ("DRAIN_SECONDS", "-1", "must be at least 0"),
        ("DRAIN_SECONDS", "13", "must be at most half of SHUTDOWN_SECONDS"),
        ("REDIS_NAMESPACE", "hunter2:hunter2", "is not valid"),
        ("FREE_DAILY_MESSAGES", "-1", "must be at least 0"),
        ("RATE_LIMITS", "hunter2", "must be 'on' or 'off'"),
        ("BASIC_IN_FLIGHT", "0", "must be at least 1"),
        ("PRO_IN_FLIGHT", "hunter2", "must be a whole number"),
        ("PRO_MESSAGES_PER_MINUTE", "0", "must be at least 1"),
        ("GEMINI_MAX_RPM", "-1", "must be at least 0"),
        ("WORKER_CONCURRENCY", "0", "must be at least 1"),
        ("ACCESS_TOKEN_SECONDS", "hunter2", "must be a whole number"),
        ("LEASE_SECONDS", "hunter2", "must be a number"),
        ("LEASE_SECONDS", "nan", "LEASE_SECONDS must be"),
        ("REPLY_SECONDS", "0", "must be greater than 0"),
        ("SILENCE_SECONDS", "0", "must be greater than 0"),
        ("BASIC_THINKING", "hunter2", "must be 'minimal', 'low', 'medium' or 'high'"),
        ("THOUGHT_TOKENS", "hunter2", "must be levels with tokens"),
        ("THOUGHT_TOKENS", "low=-1", "must be levels with tokens"),
        ("THOUGHT_TOKENS", "low=٣", "must be levels with tokens"),
        ("BASIC_REPLY_TOKENS", "0", "must be at least 1"),
        ("PRO_REPLY_TOKENS", "65000", "must be at most 65536 together"),
        ("POSTGRES_POOL", "0", "must be at least 1"),
        ("HEARTBEAT_SECONDS", "5.1", "must be at most half of LEASE_SECONDS"),
    ],
)
def test_an_invalid_value_is_named_and_not_shown(name: str, value: str, says: str) -> None:
    [line] = lines((), **{name: value})
    assert line.startswith(name)
    assert says in line
    assert line.endswith(".")
    assert "hunter2" not in line


def test_levels_of_thinking_that_are_not_named_keep_their_tokens() -> None:
    assert Settings.from_environment({"THOUGHT_TOKENS": "low=1, high=2"}).replies.thought_tokens == {
        ThinkingLevel.MINIMAL: 1_024,
        ThinkingLevel.LOW: 1,
        ThinkingLevel.MEDIUM: 24_576,
        ThinkingLevel.HIGH: 2,
    }


def test_missing_variables_are_named() -> None:
    assert lines(SERVE_NEEDS) == [f"{name} is not set." for name in SERVE_NEEDS]
    assert lines(WORKER_NEEDS, DATABASE_URL="") == [f"{name} is not set." for name in WORKER_NEEDS]
    assert lines(MIGRATE_NEEDS) == ["DATABASE_URL is not set."]


def test_all_errors_are_reported_at_once() -> None:
    found = lines(SERVE_NEEDS, PORT="x", REDIS_URL="x", DEFAULT_REGION="x")
    assert [line.split()[0] for line in found] == [
        "DATABASE_URL", "ACCESS_TOKEN_SECRET", "PORT", "REDIS_URL", "DEFAULT_REGION",
    ]  # fmt: skip


def test_production_returns_no_codes_without_consent() -> None:
    [line] = lines(APP_ENV="production")
    assert line.startswith("OTP_SENDER")
    consented = Settings.from_environment({"APP_ENV": "production", "OTP_IN_RESPONSE": "yes-this-is-a-demo"})
    assert consented.is_production
    assert Settings.from_environment(BY_SMS).is_production


def test_codes_in_replies_cause_a_warning() -> None:
    consent = {"APP_ENV": "production", "OTP_IN_RESPONSE": "yes-this-is-a-demo"}
    [warning] = Settings.from_environment(consent).warnings
    assert "log in as anybody" in warning
    assert Settings.from_environment({**consent, **BY_SMS}).warnings == []
    assert Settings.from_environment({}).warnings == []


@pytest.mark.parametrize("consent", ["", "yes-this-is-a-demo"])
def test_production_writes_no_codes_to_the_terminal(consent: str) -> None:
    [line] = lines(APP_ENV="production", OTP_SENDER="console", OTP_IN_RESPONSE=consent)
    assert line.startswith("OTP_SENDER must not be console")
    assert Settings.from_environment({"OTP_SENDER": "console"}).login.otp_sender == "console"


@pytest.mark.parametrize("missing", [names for count in (1, 2, 3) for names in combinations(TWILIO, count)])
@pytest.mark.parametrize("app_env", ["development", "production"])
def test_twilios_variables_only_work_together(missing: tuple[str, ...], app_env: str) -> None:
    given = {name: value for name, value in TWILIO.items() if name not in missing}
    [line] = lines(APP_ENV=app_env, OTP_SENDER="twilio", **given)
    assert line.startswith(", ".join(missing) + " must be set with OTP_SENDER=twilio")
    assert "hunter2" not in line


def test_production_sends_no_sms_to_the_whole_world() -> None:
    [line] = lines(**{**BY_SMS, "OTP_COUNTRIES": ""})
    assert line.startswith("OTP_COUNTRIES must be set")
    assert Settings.from_environment({"OTP_SENDER": "twilio", **TWILIO}).login.otp_countries == frozenset()


def test_whatsapp_needs_a_template() -> None:
    [line] = lines(**{**BY_SMS, "TWILIO_CHANNEL": "whatsapp"})
    assert line.startswith("TWILIO_CONTENT_SID must be set")
    assert Settings.from_environment({**BY_SMS, "TWILIO_CHANNEL": "whatsapp", "TWILIO_CONTENT_SID": "HX1"})


@pytest.mark.parametrize("production", [True, False])
def test_an_api_drains_in_production(production: bool) -> None:
    settings = Settings.from_environment(BY_SMS if production else {})
    assert settings.http.drain_seconds == (5 if production else 0)
    assert Settings.from_environment({**BY_SMS, "DRAIN_SECONDS": "0"}).http.drain_seconds == 0


def test_secrets_countries_and_networks_are_separated_by_commas() -> None:
    old = [SECRET[::-1], SECRET.upper()]
    settings = Settings.from_environment(
        {
            "ACCESS_TOKEN_SECRET": SECRET,
            "ACCESS_TOKEN_OLD_SECRETS": f" {old[0]} ,,{old[1]},",
            "OTP_COUNTRIES": "IN, DE,",
            **TWILIO,
        }
    )
    assert settings.login.access_token_secrets == [SECRET, *old]
    assert settings.login.otp_countries == {"IN", "DE"}
    assert settings.login.otp_sender == "reply", "Twilio's variables alone change nothing"


@pytest.mark.parametrize("networks", ["0.0.0.0/0", "10.0.0.0/8, ::/0"])
def test_production_does_not_trust_every_proxy(networks: str) -> None:
    consent = {"OTP_IN_RESPONSE": "yes-this-is-a-demo"}
    [line] = lines(APP_ENV="production", TRUSTED_PROXIES=networks, **consent)
    assert line.startswith("TRUSTED_PROXIES")
    assert networks not in line
    assert Settings.from_environment({"TRUSTED_PROXIES": networks}).http.trusted_proxies


def test_production_is_never_without_limits() -> None:
    consent = {"OTP_IN_RESPONSE": "yes-this-is-a-demo"}
    [line] = lines(APP_ENV="production", RATE_LIMITS="off", **consent)
    assert line.startswith("RATE_LIMITS")
    assert Settings.from_environment({"APP_ENV": "production", "RATE_LIMITS": "on", **consent}).limits.enabled
    assert not Settings.from_environment({"RATE_LIMITS": "off"}).limits.enabled


STRIPE = {
    "STRIPE_SECRET_KEY": "sk_test_hunter2",
    "STRIPE_PRICE_ID": "price_now",
    "STRIPE_WEBHOOK_SECRET": "whsec_hunter2",
}


@pytest.mark.parametrize("missing", [names for count in (1, 2) for names in combinations(STRIPE, count)])
@pytest.mark.parametrize("value", [None, "", " , "])
def test_stripes_variables_only_work_together(missing: tuple[str, ...], value: str | None) -> None:
    given = {name: text for name, text in STRIPE.items() if name not in missing}
    [line] = lines(**given, **({} if value is None else dict.fromkeys(missing, value)))
    assert line.startswith(", ".join(missing) + " must be set, too")
    assert "hunter2" not in line


def test_without_stripes_variables_payments_are_disabled() -> None:
    settings = Settings.from_environment({"STRIPE_OTHER_PRICES": "", "STRIPE_API_BASE": "http://127.0.0.1:9000/"})
    assert not settings.stripe.secret_key.get_secret_value()
    assert settings.stripe.api_base == "http://127.0.0.1:9000"


def test_several_secrets_and_prices_are_separated_by_commas() -> None:
    settings = Settings.from_environment(
        {**STRIPE, "STRIPE_OTHER_PRICES": " price_old ,,price_older,", "STRIPE_WEBHOOK_SECRET": "whsec_old, whsec_new,"}
    )
    assert settings.stripe.pro_prices == {"price_now", "price_old", "price_older"}
    assert secrets(settings.stripe.webhook_secret) == ["whsec_old", "whsec_new"]
    alone = Settings.from_environment(STRIPE).stripe
    assert (alone.pro_prices, secrets(alone.webhook_secret)) == (frozenset({"price_now"}), ["whsec_hunter2"])
    none = Settings().stripe
    assert (none.pro_prices, none.webhook_secret) == (frozenset(), ())


def test_an_empty_variable_counts_as_unset() -> None:
    settings = Settings.from_environment({"PORT": "", "DATABASE_URL": "", "APP_ENV": "", "LEASE_SECONDS": ""})
    assert settings == Settings()
    assert settings.worker.lease == timedelta(seconds=10)


def test_valid_variables_are_read_and_others_ignored() -> None:
    settings = Settings.from_environment(
        {
            "DATABASE_URL": "postgresql://user:hunter2@db:5433/name?sslmode=verify-full",
            "REDIS_URL": "rediss://:hunter2@cache:6380/1",
            "ACCESS_TOKEN_SECRET": SECRET,
            "GEMINI_BASE_URL": "http://127.0.0.1:9000/",
            "HEARTBEAT_SECONDS": "5",
            "PATH": "/bin",
        },
        needs=SERVE_NEEDS,
    )
    assert settings.gemini.base_url == "http://127.0.0.1:9000"
    assert settings.worker.heartbeat_seconds == 5


def test_white_space_around_a_copied_key_does_not_matter() -> None:
    settings = Settings.from_environment({"GEMINI_API_KEY": " hunter2\n"})
    assert settings.gemini.api_key.get_secret_value() == "hunter2"


def test_secrets_do_not_show() -> None:
    settings = Settings.from_environment({
        "DATABASE_URL": "postgres://user:hunter2@db/name", "REDIS_URL": "redis://:hunter2@cache",
        "ACCESS_TOKEN_SECRET": SECRET, "ACCESS_TOKEN_OLD_SECRETS": f"{SECRET},{SECRET}hunter2",
        "GEMINI_API_KEY": "hunter2", "GEMINI_PROXY": "http://user:hunter2@proxy", **STRIPE, **TWILIO,
    })  # fmt: skip
    for shown in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"):
        assert "hunter2" not in shown
        assert SECRET not in shown


def test_production_does_not_redirect_payers_to_localhost() -> None:
    stripe = {"STRIPE_SECRET_KEY": "sk_live_1", "STRIPE_PRICE_ID": "price_1", "STRIPE_WEBHOOK_SECRET": "whsec_1"}
    codes = {"APP_ENV": "production", "OTP_IN_RESPONSE": "yes-this-is-a-demo"}
    [line] = lines(**stripe, **codes)
    assert line.startswith("PUBLIC_URL must be set")
    assert Settings.from_environment({**stripe, **codes, "PUBLIC_URL": "https://chat.example.com"}).is_production


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        ({}, "127.0.0.1"),
        ({"PORT": "10000"}, "127.0.0.1"),
        ({"APP_ENV": "production"}, "0.0.0.0"),  # noqa: S104 - what is asked for
        ({"APP_ENV": "production", "PORT": "10000", "HOST": ""}, "0.0.0.0"),  # noqa: S104 - likewise
        ({"APP_ENV": "production", "PORT": "10000", "HOST": "127.0.0.1"}, "127.0.0.1"),
        ({"APP_ENV": "production", "HOST": "::1"}, "::1"),
        ({"HOST": "::"}, "::"),
    ],
)
def test_production_listens_on_every_address_by_default(environment: dict[str, str], host: str) -> None:
    settings = Settings.from_environment({**environment, "OTP_IN_RESPONSE": "yes-this-is-a-demo"})
    assert settings.host == host
