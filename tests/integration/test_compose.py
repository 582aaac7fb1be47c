"""docker-compose.yml: what each service may use, and which secrets it gets."""

from __future__ import annotations

import re

import pytest

from entrypoints.settings import MIGRATE_NEEDS, SERVE_NEEDS, WORKER_NEEDS, Settings
from tests.support.compose import services
from tests.support.processes import ROOT

VALUES = {
    "OTP_SENDER": "twilio",
    "OTP_COUNTRIES": "IN",
    "PUBLIC_URL": "https://chat.example.com",
    "GEMINI_PROXY": "http://me:secret@proxy:3128",
    "DATABASE_DIRECT_URL": "postgres://me:secret@db/name",
}
NEEDS = {"api": SERVE_NEEDS, "worker": WORKER_NEEDS, "migrate": MIGRATE_NEEDS}
SECRETS = {
    "api": {
        "DATABASE_URL",
        "REDIS_URL",
        "ACCESS_TOKEN_SECRET",
        "ACCESS_TOKEN_OLD_SECRETS",
        "METRICS_TOKEN",
        "TWILIO_AUTH_TOKEN",
        "STRIPE_SECRET_KEY",
        "STRIPE_WEBHOOK_SECRET",
    },
    "worker": {"DATABASE_URL", "REDIS_URL", "GEMINI_API_KEY", "GEMINI_PROXY", "STRIPE_SECRET_KEY"},
    "migrate": {"DATABASE_URL"},
}


def everything_set() -> str:
    """.env with a value for each secret and for what belongs to it."""
    text = (ROOT / ".env.example").read_text()
    names = {*Settings.secret_names(), "POSTGRES_PASSWORD", "VALKEY_PASSWORD", *VALUES}
    names |= {"TWILIO_ACCOUNT_SID", "TWILIO_FROM", "STRIPE_PRICE_ID"}
    for name in names:
        value = VALUES.get(name, "0123456789abcdef" * 2)
        text, changed = re.subn(rf"(?m)^#?{name}=.*$", f"{name}={value}", text)
        assert changed == 1, name
    return text


@pytest.mark.parametrize("name", NEEDS)
def test_a_process_gets_the_secrets_that_it_needs_and_no_other(name: str) -> None:
    environment = services(everything_set())[name]["environment"]
    secrets = {*Settings.secret_names(), "POSTGRES_PASSWORD", "VALKEY_PASSWORD"}
    assert {secret for secret in secrets if environment.get(secret)} == SECRETS[name]
    assert Settings.from_environment(environment, needs=NEEDS[name]).is_production


def test_every_service_is_confined() -> None:
    for service in services(everything_set()).values():
        assert service["read_only"]
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["logging"] == {"driver": "local"}
        assert "privileged" not in service


def test_only_the_api_is_published_and_only_here() -> None:
    ports = {name: service["ports"] for name, service in services(everything_set()).items() if "ports" in service}
    assert ports == {"api": ["127.0.0.1:8000:8000"]}
