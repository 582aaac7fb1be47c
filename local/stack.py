"""What `up` starts: servers and stand-ins that the environment does not name, the migration, the API and the worker."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from local.embedded import EmbeddedServer
from local.files import LOCALHOST, LocalServerError, free_port, kept_secret, log_tail
from local.postgres import EmbeddedPostgres
from local.services import Program, Service
from local.steps import step
from local.valkey import EmbeddedValkey

START_SECONDS = 60.0
GEMINI_KEY = "stand-in"
STRIPE_KEY, STRIPE_PRICE = "sk_test_standin", "price_standin_pro"


@dataclass
class Stack:
    data: Path
    environment: dict[str, str]
    python: Sequence[str]  # runs a module as a child that ends with us
    cli: Sequence[str]  # how serve, worker and migrate are called
    host: str  # an address at which the API can be reached from here
    port: int
    api_url: str
    shutdown_seconds: float
    lock: int  # a descriptor for programs to inherit
    pause: Callable[[float], None]
    services: list[Service] = field(default_factory=list)  # in the order in which they start
    places: list[tuple[str, str]] = field(default_factory=list)  # what is used, and where

    def start(self) -> None:
        """Raises LocalServerError."""
        if not self.environment.get("ACCESS_TOKEN_SECRET"):
            self.environment["ACCESS_TOKEN_SECRET"] = kept_secret(self.data / "access_token_secret")
        if not self.environment.get("PUBLIC_URL"):  # where Stripe's pages lead back to
            self.environment["PUBLIC_URL"] = self.api_url
        self._start_servers()
        self._start_gemini()
        self._start_stripe()
        with step("Migrating the database"):
            self._migrate()
        grace = self.shutdown_seconds + 5
        # Two processes on one machine cannot share the metrics port, and the API has /metrics.
        api = self._program("API", "api", [*self.cli, "serve"], grace=grace, METRICS_PORT="")
        worker = self._program("worker", "worker", [*self.cli, "worker"], grace=grace)
        # The API is the last to start and so the first to stop: it accepts nothing that no worker would answer.
        self.services += [worker, api]
        with step("Starting the API and the worker"):
            worker.start()
            api.start()
            self._wait_for(api, self.host, self.port, "/ready")

    def _start_servers(self) -> None:
        kinds: list[tuple[str, type[EmbeddedServer], Path]] = [
            ("DATABASE_URL", EmbeddedPostgres, self.data / "postgres"),
            ("REDIS_URL", EmbeddedValkey, self.data / "valkey"),
        ]
        servers: dict[str, EmbeddedServer] = {}
        for variable, kind, folder in kinds:
            if url := self.environment.get(variable):
                self.places.append((kind.name, f"{urlsplit(url).hostname}, from {variable}"))
            else:
                servers[variable] = kind(folder, log=self.data / "log" / f"{kind.name.lower()}.log")
        self.services += servers.values()
        if servers:
            new = "" if all(server.data_dir.exists() for server in servers.values()) else " with new data"
            names = " and ".join(server.name for server in servers.values())
            with step(f"Starting {names}{new}"), ThreadPoolExecutor() as pool:
                urls = pool.map(_start_or_show_log, servers.values())
                self.environment.update(zip(servers, urls, strict=True))
        self.places += [(server.name, f"{LOCALHOST}:{server.port}") for server in servers.values()]

    def _start_gemini(self) -> None:
        if self.environment.get("GEMINI_API_KEY"):
            place = self.environment.get("GEMINI_BASE_URL") or "Google's API, with your GEMINI_API_KEY"
        elif place := self.environment.get("GEMINI_BASE_URL", ""):
            self.environment["GEMINI_API_KEY"] = GEMINI_KEY
        else:
            url = self._start_stand_in("Gemini", "gemini")
            self.environment.update(GEMINI_BASE_URL=url, GEMINI_API_KEY=GEMINI_KEY)
            place = f"a stand-in at {url}; set GEMINI_API_KEY to use the real API"
        self.places.append(("Gemini", place))

    def _start_stripe(self) -> None:
        if self.environment.get("STRIPE_SECRET_KEY"):
            place = self.environment.get("STRIPE_API_BASE") or "Stripe's API, with your STRIPE_SECRET_KEY"
        else:
            # Kept like the customers: an event sent before a restart is still valid after it.
            if not self.environment.get("STRIPE_WEBHOOK_SECRET"):
                self.environment["STRIPE_WEBHOOK_SECRET"] = f"whsec_{kept_secret(self.data / 'stripe_webhook_secret')}"
            price = self.environment.get("STRIPE_PRICE_ID") or STRIPE_PRICE
            self.environment.update(STRIPE_SECRET_KEY=STRIPE_KEY, STRIPE_PRICE_ID=price)
            if not (place := self.environment.get("STRIPE_API_BASE", "")):
                options = ["--price", price, "--webhook-url", f"{self.api_url}/webhook/stripe"]
                options += ["--state", str(self.data / "stripe" / "account.json")]
                url = self._start_stand_in("Stripe", "stripe", *options)
                self.environment["STRIPE_API_BASE"] = url
                place = f"a stand-in at {url}; set STRIPE_SECRET_KEY to use the real API"
        self.places.append(("Stripe", place))

    def _start_stand_in(self, name: str, package: str, *options: str) -> str:
        """Returns its URL."""
        port = free_port()
        command = [*self.python, f"local.{package}", "--port", str(port), *options]
        stand_in = self._program(f"{name} stand-in", package, command, grace=5)
        self.services.append(stand_in)
        with step(f"Starting the {stand_in.name}"):
            stand_in.start()
            self._wait_for(stand_in, LOCALHOST, port, "/health")
        return f"http://{LOCALHOST}:{port}"

    def _migrate(self) -> None:
        migration = self._program("migration", "migrate", [*self.cli, "migrate"], grace=5)
        migration.start()
        try:
            while (code := migration.exit_code) is None:
                self.pause(0.05)
        finally:
            migration.stop()
        if code != 0:
            raise _ended_while_starting(migration, code)

    def _program(self, name: str, log: str, command: Sequence[str], *, grace: float, **changes: str) -> Program:
        return Program(
            name,
            command,
            log=self.data / "log" / f"{log}.log",
            environment={**self.environment, **changes} if changes else self.environment,
            grace=grace,
            inherit=[self.lock],
        )

    def _wait_for(self, program: Service, host: str, port: int, path: str) -> None:
        """Until it answers. Raises LocalServerError if any service ends before, or if that takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while _status(host, port, path) != 200:
            for service in self.services:
                if (code := service.exit_code) is not None:
                    raise _ended_while_starting(service, code)
            if time.monotonic() > deadline:
                raise LocalServerError(
                    f"{log_tail(program.log)}\nthe {program.name} was not ready within {START_SECONDS:.0f} s;"
                    f" its log is {program.log}"
                )
            self.pause(0.05)


def _status(host: str, port: int, path: str) -> int | None:
    """None if nothing answers. Unlike urllib, http.client ignores the proxy variables."""
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
    return LocalServerError(
        f"{log_tail(service.log)}\nthe {service.name} ended with exit code {code} while starting;"
        f" its log is {service.log}"
    )
