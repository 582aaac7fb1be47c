"""The files for platforms in deploy/: their commands, settings, probes and times are the product's.

Their vendors' schemas are not in any package, so what is compared is what can be wrong without them: keys that a file
of that platform knows, as its documentation lists them, and every value that refers to the product.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import yaml

from entrypoints.cli import _parser
from entrypoints.settings import SERVE_NEEDS, WORKER_NEEDS, Settings
from tests.support.processes import ROOT

SECRET = "0123456789abcdef" * 4
FROM_THE_PLATFORM = {"DATABASE_URL": "postgres://me:secret@db/name", "REDIS_URL": "redis://:secret@cache:6379"}
ASKED_FOR = {
    **FROM_THE_PLATFORM,
    "ACCESS_TOKEN_SECRET": SECRET,
    "GEMINI_API_KEY": "key",
    "PUBLIC_URL": "https://chat.example.com",
    "OTP_COUNTRIES": "IN",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "token",
    "TWILIO_FROM": "MG1",
}
SECRETS = {*Settings.secret_names()}


def read(name: str) -> str:
    return (ROOT / "deploy" / name).read_text()


def assert_command(text: str, command: str) -> None:
    program, *arguments = shlex.split(text)
    assert program == "gemini-backend"
    assert _parser().parse_args(arguments).run.__name__ == command


def assert_settings(names: Iterable[str]) -> None:
    """Each is a setting that there is."""
    example = (ROOT / ".env.example").read_text()
    for name in names:
        assert re.search(rf"(?m)^#?{name}=", example), name


def assert_starts(environment: Mapping[str, str], needs: tuple[str, ...]) -> Settings:
    settings = Settings.from_environment(environment, needs=needs)
    assert settings.is_production
    assert settings.http.drain_seconds == 5
    return settings


def assert_keys(value: Mapping[str, Any], known: str) -> None:
    assert set(value) <= set(known.split())


class TestRender:
    file: dict[str, Any] = yaml.safe_load(read("render.yaml"))

    def test_its_keys(self) -> None:
        assert_keys(self.file, "databases services envVarGroups")
        for database in self.file["databases"]:
            assert_keys(database, "name databaseName user postgresMajorVersion ipAllowList plan region")
            assert database["ipAllowList"] == []
        for service in self.file["services"]:
            assert_keys(
                service,
                "type name runtime dockerCommand preDeployCommand healthCheckPath maxShutdownDelaySeconds envVars"
                " maxmemoryPolicy ipAllowList plan region",
            )

    def test_its_processes(self) -> None:
        services = {service["type"]: service for service in self.file["services"]}
        assert services["keyvalue"]["maxmemoryPolicy"] == "noeviction"
        assert_command(services["web"]["dockerCommand"], "serve")
        assert_command(services["web"]["preDeployCommand"], "migrate")
        assert services["web"]["healthCheckPath"] == "/ready"
        assert_command(services["worker"]["dockerCommand"], "worker")
        for kind, needs in (("web", SERVE_NEEDS), ("worker", WORKER_NEEDS)):
            assert 300 >= services[kind]["maxShutdownDelaySeconds"] > Settings().http.shutdown_seconds
            assert_starts(self.environment(services[kind]), needs)

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        groups = {group["name"]: group["envVars"] for group in self.file["envVarGroups"]}
        entries: list[dict[str, Any]] = []
        for entry in service["envVars"]:
            entries += groups[entry["fromGroup"]] if "fromGroup" in entry else [entry]
        assert_settings(entry["key"] for entry in entries)
        found = {}
        for entry in entries:
            name = entry["key"]
            if name in SECRETS:
                assert "value" not in entry
            if name in FROM_THE_PLATFORM:
                source = entry["fromDatabase" if name == "DATABASE_URL" else "fromService"]
                everything = [*self.file["databases"], *self.file["services"]]
                assert source["name"] in {thing["name"] for thing in everything}
                assert source["property"] == "connectionString"
            found[name] = entry.get("value") or ASKED_FOR[name]
        return found


class TestFly:
    file: dict[str, Any] = tomllib.loads(read("fly.toml"))

    def test_its_keys(self) -> None:
        assert_keys(
            self.file,
            "app primary_region kill_signal kill_timeout build deploy env processes http_service checks metrics",
        )
        assert_keys(
            self.file["http_service"],
            "processes internal_port force_https auto_stop_machines concurrency checks",
        )
        assert (ROOT / "deploy" / self.file["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"

    def test_its_processes(self) -> None:
        assert_command(self.file["processes"]["api"], "serve")
        assert_command(self.file["processes"]["worker"], "worker")
        assert_command(self.file["deploy"]["release_command"], "migrate")
        assert self.file["kill_timeout"] > Settings().http.shutdown_seconds
        environment = self.file["env"]
        assert_settings(environment)
        assert not SECRETS & environment.keys()
        for needs in (SERVE_NEEDS, WORKER_NEEDS):
            settings = assert_starts({**ASKED_FOR, **environment}, needs)
        assert self.file["http_service"]["internal_port"] == settings.port
        assert self.file["http_service"]["concurrency"]["hard_limit"] <= settings.streams.per_process
        assert {check["path"] for check in self.file["http_service"]["checks"]} == {"/ready"}
        assert (self.file["checks"]["worker"]["port"], self.file["checks"]["worker"]["path"]) == (9100, "/health")
        assert {entry["port"] for entry in self.file["metrics"]} == {settings.metrics_port}


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_railway(command: str) -> None:
    file = json.loads(read(f"railway.{'api' if command == 'serve' else command}.json"))
    assert_keys(file, "$schema build deploy")
    assert file["build"] == {"builder": "DOCKERFILE", "dockerfilePath": "Dockerfile"}
    deploy = file["deploy"]
    assert_keys(
        deploy,
        "startCommand preDeployCommand healthcheckPath healthcheckTimeout overlapSeconds drainingSeconds"
        " restartPolicyType",
    )
    assert_command(deploy["startCommand"], command)
    assert deploy["drainingSeconds"] > Settings().http.shutdown_seconds
    if command == "serve":
        [migrate] = deploy["preDeployCommand"]
        assert_command(migrate, "migrate")
        assert deploy["healthcheckPath"] == "/ready"


def test_heroku() -> None:
    file = yaml.safe_load(read("heroku.yml"))
    assert_keys(file, "build release run")
    assert file["build"]["docker"] == {"web": "Dockerfile"}
    assert_command(file["run"]["web"], "serve")
    [worker], [migrate] = file["run"]["worker"]["command"], file["release"]["command"]
    assert_command(worker, "worker")
    assert_command(migrate, "migrate")
    assert file["run"]["worker"]["image"] == file["release"]["image"] == "web"
    app = json.loads(read("app.json"))
    assert_keys(app, "name description stack addons formation env")
    assert app["stack"] == "container"
    assert app["formation"].keys() == file["run"].keys()
    assert_settings(app["env"])
    for name, entry in app["env"].items():
        assert_keys(entry, "description value generator required")
        if name in SECRETS:
            assert "value" not in entry
    environment = {name: entry.get("value") or ASKED_FOR[name] for name, entry in app["env"].items()}
    for needs in (SERVE_NEEDS, WORKER_NEEDS):
        # Heroku allows 30 s and adds the URLs of its add-ons.
        settings = assert_starts({**environment, **FROM_THE_PLATFORM}, needs)
        assert settings.http.shutdown_seconds < 30
        assert settings.postgres.pool * 2 < 20
