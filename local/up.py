"""`gemini-backend up`: the whole product on this machine, with nothing installed, no key and no Docker.

It starts what the environment does not name (Postgres, Valkey, stand-ins for Gemini and Stripe), migrates, starts the
API and the worker, watches them all and stops them in order. Ended by `kill -9`, it takes them along: see processes.py.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

from domain.errors import ModelError, ModelNotConfigured
from entrypoints.settings import Settings, SettingsError
from local.postgres import EmbeddedPostgres
from local.processes import (
    LOCALHOST,
    EmbeddedServer,
    LocalServerError,
    Program,
    Service,
    free_port,
    kept_secret,
    kill_group,
    log_tail,
    port_is_free,
    try_lock,
)
from local.steps import complain, say, step
from local.valkey import EmbeddedValkey

ENDING_WITH_US = (sys.executable, "-m", "local.processes")
CLI = (*ENDING_WITH_US, "entrypoints.cli")
STAND_IN_KEY = "stand-in"
GEMINI_STAND_IN = (*ENDING_WITH_US, "local.gemini")
STRIPE_STAND_IN = (*ENDING_WITH_US, "local.stripe")
STRIPE_STAND_IN_KEY, STRIPE_STAND_IN_PRICE = "sk_test_standin", "price_standin_pro"

START_SECONDS = 60.0
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0  # seconds before a service that ended is started again
STEADY_SECONDS = 60.0  # after which the delay begins anew


def up(environment: Mapping[str, str], *, command: Sequence[str] = CLI) -> int:
    """Runs until Ctrl-C or SIGTERM; returns the exit code. `command` is how serve, worker and migrate are called."""
    try:
        settings = Settings.from_environment(environment)
    except SettingsError as error:
        for line in error.lines:
            complain(line)
        return 2
    if os.name != "posix":
        complain("up needs Linux or macOS; on Windows use WSL, or run serve and worker with servers of your own")
        return 1
    try:
        _Run(settings, dict(environment), command).run()
    except KeyboardInterrupt:
        pass
    except LocalServerError as error:
        complain(str(error))
        return 1
    return 0


@dataclass
class _Watched:
    service: Service
    delay: float = FIRST_DELAY
    started: float = field(default_factory=time.monotonic)
    due: float | None = None  # when to start it again


class _Run:
    def __init__(self, settings: Settings, environment: dict[str, str], command: Sequence[str]) -> None:
        self.settings = settings
        self.environment = environment
        self.command = command
        self.data = settings.data_dir.absolute()
        self.logs = self.data / "log"
        self.port = settings.port
        self.services: list[Service] = []  # in the order in which they start
        self.places: list[tuple[str, str]] = []
        self.stop_requested = threading.Event()

    def run(self) -> None:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, self._on_signal)
        self._claim_data()
        self._claim_port()
        try:
            self._start()
            self._announce()
            self._check_gemini()
            self._watch()
        finally:
            running = bool(self.services)
            for service in reversed(self.services):
                service.stop()
            if running and self.stop_requested.is_set():
                say(f"Stopped. The data stays in {self.settings.data_dir}.")

    # --- before anything starts

    def _claim_data(self) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            lock = try_lock(self.data / "lock")
        except OSError as error:
            raise LocalServerError(f"DATA_DIR {self.data} cannot be written to ({error.strerror})") from None
        if lock is None:
            pid = (self.data / "lock").read_text().strip() or "unknown"
            raise LocalServerError(f"gemini-backend already runs on the data in {self.data} (process {pid})")
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        # Programs inherit this second one: after a `kill -9` it tells when the last of them is gone.
        programs = try_lock(self.data / "programs.lock", patience=15)
        if programs is None:
            raise LocalServerError(f"the API or worker of an earlier run on {self.data} does not end; end it")
        self.programs_lock = programs

    def _claim_port(self) -> None:
        host = self.settings.host
        try:
            self.port = self.settings.port or free_port(host)
            taken = not port_is_free(self.port, host)
        except OSError as error:
            raise LocalServerError(
                f"HOST {host} with PORT {self.settings.port} cannot be used ({error.strerror})"
            ) from None
        if taken:
            raise LocalServerError(f"port {self.port} on {host} is taken; set PORT to another one")
        self.environment["PORT"] = str(self.port)

    # --- start

    def _start(self) -> None:
        if not self.environment.get("ACCESS_TOKEN_SECRET"):
            self.environment["ACCESS_TOKEN_SECRET"] = kept_secret(self.data / "access_token_secret")
        if not self.environment.get("PUBLIC_URL"):  # where Stripe's pages lead back to
            self.environment["PUBLIC_URL"] = self._api_url()
        self._start_servers()
        self._start_gemini_stand_in()
        self._start_stripe_stand_in()
        with step("Migrating the database"):
            self._migrate()
        api = self._program(
            "API",
            "api",
            [*self.command, "serve"],
            grace=self.settings.http.shutdown_seconds + 5,
            METRICS_PORT="",  # two processes of one machine cannot share it, and the API has /metrics
        )
        worker = self._program(
            "worker", "worker", [*self.command, "worker"], grace=self.settings.http.shutdown_seconds + 5
        )
        # The API is the first to stop, so that it takes nothing in which no worker would answer.
        self.services += [worker, api]
        with step("Starting the API and the worker"):
            for program in (worker, api):
                program.start()
            self._await(api, self.port, "/ready")

    def _start_servers(self) -> None:
        wanted: list[tuple[str, type[EmbeddedServer], Path]] = [
            ("DATABASE_URL", EmbeddedPostgres, self.data / "postgres"),
            ("REDIS_URL", EmbeddedValkey, self.data / "valkey"),
        ]
        servers: dict[str, EmbeddedServer] = {}
        for variable, kind, folder in wanted:
            if url := self.environment.get(variable):
                self.places.append((kind.name, f"{urlsplit(url).hostname}, as {variable} says"))
            else:
                servers[variable] = kind(folder, log=self.logs / f"{kind.name.lower()}.log")
        self.services += servers.values()
        if servers:
            new = "" if all(server.data_dir.exists() for server in servers.values()) else " with new data"
            names = " and ".join(server.name for server in servers.values())
            with step(f"Starting {names}{new}"), ThreadPoolExecutor() as pool:
                urls = pool.map(_start_or_show_log, servers.values())
                self.environment.update(zip(servers, urls, strict=True))
        self.places += [(server.name, f"{LOCALHOST}:{server.port}") for server in servers.values()]

    def _start_gemini_stand_in(self) -> None:
        if self.environment.get("GEMINI_API_KEY"):
            place = self.environment.get("GEMINI_BASE_URL") or "Google's, with your GEMINI_API_KEY"
        elif place := self.environment.get("GEMINI_BASE_URL", ""):
            self.environment["GEMINI_API_KEY"] = STAND_IN_KEY
        else:
            port = free_port()
            stand_in = self._program("Gemini stand-in", "gemini", [*GEMINI_STAND_IN, "--port", str(port)], grace=5)
            self._start_stand_in(stand_in, port)
            self.environment.update(GEMINI_BASE_URL=f"http://{LOCALHOST}:{port}", GEMINI_API_KEY=STAND_IN_KEY)
            place = f"a stand-in at {LOCALHOST}:{port}; set GEMINI_API_KEY to talk with Google's"
        self.places.append(("Gemini", place))

    def _start_stripe_stand_in(self) -> None:
        if self.environment.get("STRIPE_SECRET_KEY"):
            place = self.environment.get("STRIPE_API_BASE") or "Stripe's, with your STRIPE_SECRET_KEY"
        else:
            # Kept, as the customers are: what was sent before a restart is still good after it.
            if not self.environment.get("STRIPE_WEBHOOK_SECRET"):
                self.environment["STRIPE_WEBHOOK_SECRET"] = f"whsec_{kept_secret(self.data / 'stripe_webhook_secret')}"
            price = self.environment.get("STRIPE_PRICE_ID") or STRIPE_STAND_IN_PRICE
            self.environment.update(STRIPE_SECRET_KEY=STRIPE_STAND_IN_KEY, STRIPE_PRICE_ID=price)
            if not (place := self.environment.get("STRIPE_API_BASE", "")):
                port = free_port()
                command = [*STRIPE_STAND_IN, "--port", str(port), "--price", price]
                command += ["--webhook-url", f"{self._api_url()}/webhook/stripe"]
                command += ["--state", str(self.data / "stripe" / "account.json")]
                stand_in = self._program("Stripe stand-in", "stripe", command, grace=5)
                self._start_stand_in(stand_in, port)
                self.environment["STRIPE_API_BASE"] = f"http://{LOCALHOST}:{port}"
                place = f"a stand-in at http://{LOCALHOST}:{port}; set STRIPE_SECRET_KEY to use Stripe's"
        self.places.append(("Stripe", place))

    def _start_stand_in(self, stand_in: Program, port: int) -> None:
        self.services.append(stand_in)
        with step(f"Starting the {stand_in.name}"):
            stand_in.start()
            self._await(stand_in, port, "/health", host=LOCALHOST)

    def _migrate(self) -> None:
        migration = self._program("migration", "migrate", [*self.command, "migrate"], grace=5)
        migration.start()
        try:
            while (code := migration.exit_code) is None:
                self._pause(0.05)
        finally:
            migration.stop()
        if code != 0:
            raise _ended_while_starting(migration, code)

    def _program(self, name: str, log: str, command: Sequence[str], *, grace: float, **changes: str) -> Program:
        return Program(
            name,
            command,
            log=self.logs / f"{log}.log",
            environment={**self.environment, **changes} if changes else self.environment,
            grace=grace,
            inherit=[self.programs_lock],
        )

    def _await(self, program: Service, port: int, path: str, *, host: str | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while _status(host or self._own_address(), port, path) != 200:
            for service in self.services:
                if (code := service.exit_code) is not None:
                    raise _ended_while_starting(service, code)
            if time.monotonic() > deadline:
                raise LocalServerError(
                    f"{log_tail(program.log)}\nthe {program.name} was not ready within {START_SECONDS:.0f} s;"
                    f" its log is {program.log}"
                )
            self._pause(0.05)

    def _own_address(self) -> str:
        """A server that listens on every address is asked on the local one."""
        with suppress(ValueError):
            address = ipaddress.ip_address(self.settings.host)
            if address.is_unspecified:
                return LOCALHOST if address.version == 4 else "::1"
        return self.settings.host

    def _api_url(self) -> str:
        host = self._own_address()
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def _announce(self) -> None:
        api = self._api_url()
        json = "-H 'Content-Type: application/json' -d"
        for label, place in [
            ("API", f"{api}   docs: {api}/docs"),
            *self.places,
            ("Data", f"{self.settings.data_dir}   logs: {self.settings.data_dir / 'log'}"),
        ]:
            say(f"  {label:<9} {place}")
        say(
            f"\nOpen {api} in a browser, or try:\n"
            f'  curl {api}/auth/signup {json} \'{{"mobile": "+919876543210", "name": "Me"}}\'\n'
            f'  curl {api}/auth/send-otp {json} \'{{"mobile": "+919876543210"}}\'\n'
            f"One-time codes are in the reply: {self.settings.app_env}. Ctrl-C stops everything."
        )

    def _check_gemini(self) -> None:
        """A key that Gemini refuses is said here; in the page it would look like a message that failed."""
        if self.environment["GEMINI_API_KEY"] == STAND_IN_KEY:
            return
        from entrypoints.container import Container  # with all adapters: for those who have a key of their own

        async def check() -> None:
            model = Container(settings=Settings.from_environment(self.environment)).language_model()
            try:
                await model.check()
            finally:
                await model.close()

        try:
            asyncio.run(check())
        except ModelNotConfigured as error:
            say(
                f"Gemini refuses GEMINI_API_KEY or GEMINI_MODEL ({error.reason}), so every message will fail."
                " Set the right one and start again."
            )
        except ModelError:
            say("Gemini does not answer at the moment. Messages wait and are tried again.")

    # --- watch

    def _watch(self) -> None:
        watched = [_Watched(service) for service in self.services]
        while True:
            self._pause(0.2)
            for one in watched:
                self._revive(one, time.monotonic())

    def _revive(self, one: _Watched, now: float) -> None:
        service = one.service
        if one.due is None:
            if (code := service.exit_code) is None:
                return
            if now - one.started > STEADY_SECONDS:
                one.delay = FIRST_DELAY
            tail = log_tail(service.log, 5) if one.delay == FIRST_DELAY else ""
            self._put_off(one, now, f"{tail}\n{service.name} ended (exit code {code})".strip("\n"))
        elif now >= one.due:
            one.due, one.started = None, now
            try:
                service.start()
            except LocalServerError as error:
                self._put_off(one, now, str(error))
            else:
                say(f"{service.name} runs again.")

    def _put_off(self, one: _Watched, now: float, why: str) -> None:
        say(f"{why}; starting it again in {one.delay:.0f} s. Log: {one.service.log}")
        one.due = now + one.delay
        one.delay = min(one.delay * 2, LONGEST_DELAY)

    # --- stop

    def _pause(self, seconds: float) -> None:
        if self.stop_requested.wait(seconds):
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested.is_set():
            self._kill_all()
        self.stop_requested.set()

    def _kill_all(self) -> NoReturn:
        # No more than signals here: the code that this one interrupts may hold the locks that waiting would need.
        for service in self.services:
            if service.pid is not None:
                kill_group(service.pid)
        os._exit(130)


def _status(host: str, port: int, path: str) -> int | None:
    """None while nobody answers. http.client heeds no proxy variable, unlike urllib."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _start_or_show_log(server: EmbeddedServer) -> str:
    try:
        return server.start()
    except LocalServerError as error:
        tail = log_tail(server.log)
        raise LocalServerError(f"{tail}\n{error}" if tail else str(error)) from None


def _ended_while_starting(service: Service, code: int) -> LocalServerError:
    tail = log_tail(service.log)
    return LocalServerError(
        f"{tail}\nthe {service.name} ended with exit code {code} while starting; its log is {service.log}"
    )
