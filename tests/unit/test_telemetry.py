"""What a log tells of an exception."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from entrypoints.settings import Settings
from entrypoints.telemetry import configure_logs

SECRET = "+919876500000"


@pytest.fixture(params=["development", "production"])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What is written with everything set as a process does it."""
    root, before, written = logging.getLogger(), structlog.get_config(), io.StringIO()
    handlers, level = root.handlers, root.level
    environment = {"APP_ENV": request.param, "OTP_IN_RESPONSE": "yes-this-is-a-demo"}
    configure_logs(Settings.from_environment(environment))
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**before)


def fail() -> None:
    try:
        raise ValueError(f"Key (mobile)=({SECRET}) already exists.")
    except ValueError as error:
        raise KeyError(SECRET) from error


def test_an_exception_shows_locations_and_types_but_no_message(log: io.StringIO) -> None:
    try:
        fail()
    except KeyError as error:
        structlog.get_logger("ours").error("unexpected_error", exc_info=error)
        logging.getLogger("theirs").exception("failed")
    written = log.getvalue()
    assert SECRET not in written
    assert written.count("ValueError") >= 2
    assert written.count("in fail") >= 2


def test_an_exception_group_shows_each_exception(log: io.StringIO) -> None:
    group = ExceptionGroup(SECRET, [ValueError(SECRET), LookupError(SECRET)])
    logging.getLogger("theirs").error("failed", exc_info=group)
    written = log.getvalue()
    assert SECRET not in written
    assert all(name in written for name in ("ExceptionGroup", "ValueError", "LookupError"))


def test_an_operating_system_error_shows_its_message(log: io.StringIO) -> None:
    logging.getLogger("theirs").error("failed", exc_info=OSError(98, "Address already in use"))
    assert "Address already in use" in log.getvalue()


def test_a_logger_that_was_used_follows_the_next_configuration(log: io.StringIO) -> None:
    ours = structlog.get_logger("ours")
    ours.warning("with_the_first")
    configure_logs(Settings.from_environment({}))
    with capture_logs() as captured:
        ours.warning("with_the_second")
    assert "with_the_first" in log.getvalue()
    assert [line["event"] for line in captured] == ["with_the_second"]
