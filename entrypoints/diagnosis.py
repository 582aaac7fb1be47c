"""`gemini-backend check`: what works, what does not and why, and what an operator should know, in two seconds."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from typing import Any

from application.ports.chat import LanguageModel
from application.ports.runtime import Dependency, Described, Fact, Verified
from domain.errors import DomainError, ModelError, ModelNotConfigured, ModelRejectedRequest, Unavailable
from entrypoints.container import Container, running
from entrypoints.settings import Settings

#: For what comes after the last answer.
_REST_SECONDS = 0.1
#: What a probe has at least, however long the start took.
_LEAST_SECONDS = 0.8
_CLOSE_SECONDS = 0.1


class State(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It is not this deployment's fault, so it does not count."""
    OFF = "off"


@dataclass
class Finding:
    """What was found out about one part of the deployment."""

    name: str
    state: State = State.OK
    detail: str = ""
    facts: list[Fact] = field(default_factory=list)
    is_unavailable: bool = False

    def lines(self) -> list[str]:
        said = self.detail or self.state
        return [
            f"{self.name}: {said}",
            *(f"  {fact.name}: {fact.value}{f' - {fact.warning}' if fact.warning else ''}" for fact in self.facts),
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "detail": self.detail or None,
            "facts": {fact.name: fact.value for fact in self.facts},
            "warnings": {fact.name: fact.warning for fact in self.facts if fact.warning},
        }


async def diagnose(settings: Settings, *, until: float) -> list[Finding]:
    """All parts, asked concurrently. `until`: when the answer is due, by time.monotonic()."""
    container = Container(settings=settings)
    seconds = max(_LEAST_SECONDS, until - _REST_SECONDS - time.monotonic())
    gateway, sender = container.payment_gateway(), container.otp_sender()
    probes = [
        *(_probe(dependency.name, seconds, _dependency(dependency)) for dependency in container.watched()),
        _model(container, settings, seconds),
        _optional("stripe", bool(settings.stripe.secret_key.get_secret_value()), gateway, seconds),
        _optional("sms", bool(settings.twilio.auth_token.get_secret_value()), sender, seconds),
    ]
    resources = running([*container.resources(), gateway, sender])
    await resources.__aenter__()
    try:
        return [_product(settings), *await asyncio.gather(*probes)]
    finally:
        # A server that hangs would hold up the end; the process ends with its connections.
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await resources.__aexit__(None, None, None)


def _product(settings: Settings) -> Finding:
    facts = [
        Fact("version", version("gemini-backend")),
        Fact("python", platform.python_version()),
        Fact("environment", settings.app_env),
        *(Fact("setting", "unsafe", warning) for warning in settings.warnings),
    ]
    return Finding("gemini-backend", facts=facts)


async def _probe(name: str, seconds: float, ask: Callable[[Finding], Awaitable[None]]) -> Finding:
    """The finding that `ask` fills in; what it has not by then counts as failed."""
    finding = Finding(name)
    try:
        async with asyncio.timeout(seconds):
            await ask(finding)
    except TimeoutError:
        finding.state, finding.detail = State.FAILED, f"There was no answer within {seconds:.1f} s."
        finding.is_unavailable = True
    except DomainError as error:
        finding.state, finding.detail = State.FAILED, error.cause if isinstance(error, Unavailable) else error.detail
        finding.is_unavailable = isinstance(error, Unavailable)
    return finding


def _dependency(dependency: Dependency) -> Callable[[Finding], Awaitable[None]]:
    async def describe(finding: Finding) -> None:
        if isinstance(dependency, Described):
            with suppress(DomainError):  # the check says why
                finding.facts += await dependency.describe()

    async def ask(finding: Finding) -> None:
        # A server that is not usable yet, such as one without our tables, can still be described.
        check = dependency.verify if isinstance(dependency, Verified) else dependency.check
        checked, _ = await asyncio.gather(check(), describe(finding), return_exceptions=True)
        if isinstance(checked, Exception):
            raise checked
        for fact in finding.facts:
            if fact.is_fatal:
                raise DomainError(f"{fact.name} {fact.value}. {fact.warning}")

    return ask


async def _model(container: Container, settings: Settings, seconds: float) -> Finding:
    if not settings.gemini.api_key.get_secret_value():
        return Finding("gemini", State.OFF, "not checked: GEMINI_API_KEY, which only workers need, is not set")
    model: LanguageModel = container.language_model()

    async def ask(finding: Finding) -> None:
        finding.facts.append(Fact("model", settings.gemini.model))
        try:
            await model.check()
        except ModelNotConfigured as error:
            raise DomainError(f"{error.detail} ({error.reason})") from None
        except ModelRejectedRequest:
            raise
        except ModelError as error:
            raise Unavailable(error.detail) from None

    return await _vendor(model.name, seconds, ask)


async def _vendor(name: str, seconds: float, ask: Callable[[Finding], Awaitable[None]]) -> Finding:
    """What others run may be unavailable: that is said, but this deployment is not at fault."""
    finding = await _probe(name, seconds, ask)
    if finding.is_unavailable:
        finding.state = State.UNKNOWN
    return finding


async def _optional(name: str, is_used: bool, adapter: object, seconds: float) -> Finding:
    if not is_used:
        return Finding(name, State.OFF, "not set up")

    async def ask(finding: Finding) -> None:
        if isinstance(adapter, Described):
            finding.facts += await adapter.describe()

    return await _vendor(name, seconds, ask)


def has_failed(findings: Sequence[Finding]) -> bool:
    return any(finding.state is State.FAILED for finding in findings)
