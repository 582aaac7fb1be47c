"""`gemini-backend up`: the whole product on this machine, with nothing to install, no key and no Docker.

It starts what the environment does not name (Postgres, Valkey, stand-ins for Gemini and Stripe), migrates the database,
starts the API and the worker, restarts what ends, and stops everything in order. After `kill -9` nothing of it is left
running: see processes.py.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from domain.errors import ModelError, ModelNotConfigured
from entrypoints.secret_files import read_secret_files
from entrypoints.settings import Settings, SettingsError
from local.files import LOCALHOST, LocalServerError, free_port, port_is_free, try_lock
from local.processes import kill_group
from local.stack import GEMINI_KEY, Stack
from local.steps import complain, say
from local.watch import Watch

PYTHON = (sys.executable, "-m", "local.processes")
CLI = (*PYTHON, "entrypoints.cli")


def up(environment: Mapping[str, str], *, command: Sequence[str] = CLI) -> int:
    """Runs until Ctrl-C or SIGTERM; returns the exit code. `command` is how serve, worker and migrate are called."""
    try:
        settings = Settings.from_environment(environment)
    except SettingsError as error:
        for line in error.lines:
            complain(line)
        return 2
    if os.name != "posix":
        complain("`up` needs Linux or macOS. On Windows use WSL, or run `serve` and `worker` with your own servers.")
        return 1
    try:
        # The programs are given values, not files, which is all that the rest of this package looks at.
        values, _ = read_secret_files(environment, Settings.secret_names())
        _Run(settings, values, command).run()
    except KeyboardInterrupt:
        pass
    except LocalServerError as error:
        complain(str(error))
        return 1
    return 0


class _Run:
    def __init__(self, settings: Settings, environment: dict[str, str], command: Sequence[str]) -> None:
        self.settings = settings
        self.environment = environment
        self.command = command
        self.data = settings.data_dir.absolute()
        self.stack: Stack | None = None
        self.stop_requested = threading.Event()

    def run(self) -> None:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, self._on_signal)
        lock = self._claim_data()
        port = self._claim_port()
        self.environment["PORT"] = str(port)
        host = self._local_address()
        self.stack = stack = Stack(
            data=self.data,
            environment=self.environment,
            python=PYTHON,
            cli=self.command,
            host=host,
            port=port,
            api_url=f"http://{f'[{host}]' if ':' in host else host}:{port}",
            shutdown_seconds=self.settings.http.shutdown_seconds,
            lock=lock,
            pause=self._pause,
        )
        try:
            stack.start()
            self._announce(stack)
            self._check_gemini()
            watch = Watch(stack.services)
            while True:
                self._pause(0.2)
                watch.look()
        finally:
            for service in reversed(stack.services):
                service.stop()
            if stack.services and self.stop_requested.is_set():
                say(f"Stopped. Your data is in {self.settings.data_dir}.")

    # --- before anything starts

    def _claim_data(self) -> int:
        """A descriptor of the lock that programs inherit. Raises LocalServerError if the data is in use."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            lock = try_lock(self.data / "lock")
        except OSError as error:
            raise LocalServerError(f"DATA_DIR {self.data} is not writable ({error.strerror})") from None
        if lock is None:
            pid = (self.data / "lock").read_text().strip() or "unknown"
            raise LocalServerError(f"gemini-backend is already running on the data in {self.data} (process {pid})")
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        # After `kill -9` this second lock is free as soon as the last program is gone.
        programs = try_lock(self.data / "programs.lock", timeout=15)
        if programs is None:
            raise LocalServerError(f"the API or worker of an earlier run on {self.data} is still running; stop it")
        return programs

    def _claim_port(self) -> int:
        host = self.settings.host
        try:
            port = self.settings.port or free_port(host)
            taken = not port_is_free(port, host)
        except OSError as error:
            raise LocalServerError(
                f"HOST {host} with PORT {self.settings.port} cannot be used ({error.strerror})"
            ) from None
        if taken:
            raise LocalServerError(f"port {port} on {host} is taken; set PORT to another one")
        return port

    def _local_address(self) -> str:
        """A server that listens on all addresses is reached at the loopback one."""
        with suppress(ValueError):
            address = ipaddress.ip_address(self.settings.host)
            if address.is_unspecified:
                return LOCALHOST if address.version == 4 else "::1"
        return self.settings.host

    # --- once everything runs

    def _announce(self, stack: Stack) -> None:
        api, data = stack.api_url, self.settings.data_dir
        say("")
        for label, place in [
            ("API", f"{api} (documentation: {api}/docs)"),
            *stack.places,
            ("Data", f"{data} (logs: {data / 'log'})"),
        ]:
            say(f"  {label:<9} {place}")
        json = "-H 'Content-Type: application/json' -d"
        codes = {"reply": "in the replies", "console": "in the log of the API", "twilio": "sent by SMS"}
        say(
            f"\nOpen {api} in a browser, or try:\n"
            f'  curl {api}/auth/signup {json} \'{{"mobile": "+919876543210", "name": "Me"}}\'\n'
            f'  curl {api}/auth/send-otp {json} \'{{"mobile": "+919876543210"}}\'\n'
            f"One-time codes are {codes[self.settings.login.otp_sender]}. Ctrl-C stops everything."
        )

    def _check_gemini(self) -> None:
        """A key that Gemini refuses is reported here. In the page it would look like a failed message."""
        if self.environment["GEMINI_API_KEY"] == GEMINI_KEY:
            return
        from entrypoints.container import Container  # imports all adapters, so only for users with their own key

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
                f"Gemini refuses your GEMINI_API_KEY or GEMINI_MODEL ({error.reason}), so every message will fail."
                " Correct it and start again."
            )
        except ModelError:
            say("Gemini is not answering at the moment. Messages will wait and be retried.")

    # --- stop

    def _pause(self, seconds: float) -> None:
        if self.stop_requested.wait(seconds):
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested.is_set():
            self._kill_all()
        self.stop_requested.set()

    def _kill_all(self) -> NoReturn:
        # Signals only: the interrupted code may hold the locks that waiting would need.
        for service in self.stack.services if self.stack else []:
            if service.pid is not None:
                kill_group(service.pid)
        os._exit(130)
