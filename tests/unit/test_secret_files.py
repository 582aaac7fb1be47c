"""Secrets in files: NAME_FILE instead of NAME, for each secret, with errors that name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoints.settings import SERVE_NEEDS, WORKER_NEEDS, Settings, SettingsError

SECRET = "0123456789abcdef0123456789abcdef"
TEXTS = {
    "DATABASE_URL": "postgres://me:hunter2@db/name",
    "DATABASE_DIRECT_URL": "postgres://me:hunter2@db/name",
    "REDIS_URL": "redis://:hunter2@cache",
    "GEMINI_PROXY": "http://me:hunter2@proxy",
}


def put(folder: Path, content: bytes) -> str:
    file = folder / "secret"
    file.write_bytes(content)
    return str(file)


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment, needs=["ACCESS_TOKEN_SECRET"])
    [line] = caught.value.lines
    return line


@pytest.mark.parametrize("name", Settings.secret_names())
def test_each_secret_can_be_in_a_file(tmp_path: Path, name: str) -> None:
    text = TEXTS.get(name, SECRET)
    more = {"STRIPE_PRICE_ID": "price_1", "STRIPE_SECRET_KEY": "sk_1", "STRIPE_WEBHOOK_SECRET": "whsec_1"}
    others = {key: value for key, value in more.items() if name.startswith("STRIPE") and key != name}
    by_value = Settings.from_environment({**others, name: text})
    assert by_value != Settings()
    file = put(tmp_path, f"{text}\n".encode())
    assert Settings.from_environment({**others, f"{name}_FILE": file}) == by_value
    assert Settings.from_environment({**others, f"{name}_FILE": file, name: ""}) == by_value


def test_a_file_counts_as_set(tmp_path: Path) -> None:
    files = {f"{name}_FILE": put(tmp_path, TEXTS[name].encode()) for name in ("REDIS_URL",)}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(files, needs=SERVE_NEEDS)
    assert caught.value.lines == ["DATABASE_URL is not set.", "ACCESS_TOKEN_SECRET is not set."]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ACCESS_TOKEN_SECRET_FILE names a file that is empty."),
        (b" \n", "ACCESS_TOKEN_SECRET_FILE names a file that is empty."),
        (b"\xff\xfe" * 40, "ACCESS_TOKEN_SECRET_FILE names a file that is not text."),
        (b"a" * 70_000, "ACCESS_TOKEN_SECRET_FILE names a file that has more than 65536 bytes."),
        (b"hunter2", "ACCESS_TOKEN_SECRET is too weak"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, says: str) -> None:
    line = refusal({"ACCESS_TOKEN_SECRET_FILE": put(tmp_path, content)})
    assert line.startswith(says)
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("file", "reason"), [("/nowhere", "No such file or directory"), ("/", "Is a directory"), ("/\0", "cannot be read")]
)
def test_a_file_that_cannot_be_read(file: str, reason: str) -> None:
    line = refusal({"ACCESS_TOKEN_SECRET_FILE": file})
    assert line.startswith("ACCESS_TOKEN_SECRET_FILE names a file that cannot be read")
    assert reason in line


def test_a_value_and_a_file_are_too_much(tmp_path: Path) -> None:
    given = {"ACCESS_TOKEN_SECRET": SECRET, "ACCESS_TOKEN_SECRET_FILE": put(tmp_path, SECRET.encode())}
    assert refusal(given) == "ACCESS_TOKEN_SECRET and ACCESS_TOKEN_SECRET_FILE are both set: remove one."


def test_other_variables_with_that_ending_are_none_of_ours() -> None:
    assert Settings.from_environment({"PORT_FILE": "/nowhere", "LOG_LEVEL_FILE": "x"}) == Settings()


def test_a_worker_needs_nothing_of_what_the_api_sends_and_receives() -> None:
    given = {
        "DATABASE_URL": TEXTS["DATABASE_URL"],
        "REDIS_URL": TEXTS["REDIS_URL"],
        "GEMINI_API_KEY": "key",
        "APP_ENV": "production",
        "OTP_SENDER": "twilio",
        "STRIPE_SECRET_KEY": "sk_1",
        "STRIPE_PRICE_ID": "price_1",
    }
    assert Settings.from_environment(given, needs=WORKER_NEEDS).is_production
    with pytest.raises(SettingsError):
        Settings.from_environment({**given, "ACCESS_TOKEN_SECRET": SECRET}, needs=SERVE_NEEDS)
    with pytest.raises(SettingsError):
        Settings.from_environment({**given, "STRIPE_PRICE_ID": ""}, needs=WORKER_NEEDS)
