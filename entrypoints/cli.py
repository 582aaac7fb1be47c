"""The one command: gemini-backend up | serve | worker | migrate | check | messages | accounts | billing."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from domain.chat.messages import MessageStatus
from domain.errors import DomainError, Unavailable
from domain.ids import MessageId, UserId
from entrypoints.settings import MIGRATE_NEEDS, SERVE_NEEDS, SERVERS, WORKER_NEEDS, Settings, SettingsError

if TYPE_CHECKING:
    from entrypoints.container import Container

_STARTED = time.monotonic()

# Each subcommand imports what it needs when it runs: `--help` is quick, and no process loads another's parts.


def up(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """start the whole product on this machine, including its servers"""
    try:
        from local.up import up as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "local":
            raise
        raise SettingsError(
            ["up needs a checkout of the repository; the installed package does not include it."]
        ) from None
    return run(environment)


def serve(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """serve the HTTP API"""
    settings = Settings.from_environment(environment, needs=SERVE_NEEDS)
    from entrypoints.http.server.server import serve as run

    return run(
        settings,
        host=arguments.host or settings.host,
        port=settings.port if arguments.port is None else arguments.port,
        workers=arguments.workers,
    )


def worker(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """run workers that answer messages"""
    settings = Settings.from_environment(environment, needs=WORKER_NEEDS)
    from entrypoints.worker import run

    return run(settings, workers=arguments.workers)


def migrate(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """apply database migrations, or show them"""
    settings = Settings.from_environment(environment, needs=MIGRATE_NEEDS)
    from adapters.postgres import migrate as migrations
    from adapters.postgres.pooler import set_role_settings
    from entrypoints.telemetry import configure_logs

    configure_logs(settings)
    pooled_url = settings.postgres.url.get_secret_value()
    url = settings.postgres.direct_url.get_secret_value() or pooled_url

    async def show() -> int:
        state = await migrations.state(url)
        if arguments.status:
            for name in state.applied:
                print(f"applied  {name}" + ("  (by a newer version)" if name in state.unknown else ""))
            for version in state.pending:
                print(f"pending  {version.name}")
        else:
            for version in state.pending:
                print(f"-- {version.name}, {'in' if version.in_transaction else 'without'} a transaction")
                print("\n".join(f"{statement.rstrip(';')};" for statement in await version.statements()), end="\n\n")
        print(f"-- {len(state.pending) or 'none'} pending")
        return 1 if state.pending else 0

    if arguments.plan or arguments.status:
        return asyncio.run(show())
    for name in asyncio.run(migrations.migrate(url, wait_seconds=arguments.wait)):
        print(f"applied {name}")
    if settings.postgres.has_pooler is not False and (role := asyncio.run(set_role_settings(pooled_url))):
        print(f"A pooler takes no settings, so the role {role} has them in this database.")
    print("The database is up to date.")
    return 0


def check(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """validate settings and check all servers and keys: 0 if usable, 1 if not, 2 if a setting is wrong"""
    serves = environment.get("ACCESS_TOKEN_SECRET") or environment.get("ACCESS_TOKEN_SECRET_FILE")
    settings = Settings.from_environment(environment, needs=SERVE_NEEDS if serves else SERVERS)
    from entrypoints.diagnosis import diagnose, has_failed
    from entrypoints.telemetry import configure_logs

    configure_logs(settings.model_copy(update={"log_level": "error"}))  # the findings say the rest
    with asyncio.Runner() as runner:
        findings = runner.run(diagnose(settings, until=_STARTED + arguments.seconds))
        code = 1 if has_failed(findings) else 0
        if arguments.json:
            report = {"usable": not code, "parts": [finding.as_json() for finding in findings]}
            print(json.dumps(report, indent=2, ensure_ascii=False))
        else:
            print("\n".join(line for finding in findings for line in finding.lines()))
        sys.stdout.flush()
        # Not by returning: a name that is still being resolved would hold up the end of the event loop.
        os._exit(code)


def messages(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """list messages by status, or queue a failed one again"""
    settings = Settings.from_environment(environment, needs=SERVERS)

    async def run() -> None:
        async with _container_for(settings) as container:
            if arguments.action == "requeue":
                await container.requeue_message()(message_id=MessageId(arguments.id))
                print(f"{arguments.id} is queued again.")
                return
            # Ids, times and codes only: what people wrote does not belong on a terminal.
            for message in await container.list_messages()(status=arguments.status, limit=arguments.limit):
                sent = message.created_at.isoformat(timespec="seconds")
                print(f"{message.id}  {sent}  attempts={message.attempt}  {message.error_code or ''}".rstrip())

    asyncio.run(run())
    return 0


def accounts(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """unlock a number after too many wrong codes or passwords"""
    # Guesses are counted by the number's keyed digest: with another key none would be found.
    settings = Settings.from_environment(environment, needs=(*SERVERS, "ACCESS_TOKEN_SECRET"))

    async def run() -> None:
        async with _container_for(settings) as container:
            unlocked = await container.unlock_number()(mobile=arguments.number)
        print("All wrong guesses are forgotten." if unlocked else "No wrong guesses are counted for this number.")

    asyncio.run(run())
    return 0


def billing(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """read subscriptions from Stripe now"""
    settings = Settings.from_environment(environment, needs=(*SERVERS, "STRIPE_SECRET_KEY"))

    async def run() -> int:
        async with _container_for(settings, with_stripe=True) as container:
            if arguments.user:
                if not await container.reconcile_user()(user_id=UserId(arguments.user)):
                    print("Nothing was read: the user was never a customer, or the log has the reason.")
                    return 1
                print("Read.")
                return 0
            done = await container.reconcile_all()()
            print(f"Read the subscriptions of {done.synced}; {done.failed} could not be read and will be tried again.")
            return 1 if done.failed else 0

    return asyncio.run(run())


@asynccontextmanager
async def _container_for(settings: Settings, *, with_stripe: bool = False) -> AsyncIterator[Container]:
    from entrypoints.container import Container, running
    from entrypoints.telemetry import configure_logs

    configure_logs(settings)
    container = Container(settings=settings)
    async with running([*container.resources(), *([container.payment_gateway()] if with_stripe else [])]):
        yield container


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gemini-backend", description="A backend for talking with Gemini in authenticated chatrooms."
    )
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(run: Callable[[argparse.Namespace, Mapping[str, str]], int]) -> argparse.ArgumentParser:
        subparser = subcommands.add_parser(
            run.__name__,
            help=run.__doc__,
            description=f"{_sentence(run.__doc__)} Settings come from the environment; .env.example names them.",
        )
        subparser.set_defaults(run=run)
        return subparser

    def add_workers(subparser: argparse.ArgumentParser) -> None:
        subparser.add_argument("--workers", type=_count, default=1, help="number of processes (1)")

    add(up)
    serving = add(serve)
    serving.add_argument("--host", help="address to listen on (HOST, or 127.0.0.1; 0.0.0.0 in production)")
    serving.add_argument("--port", type=_port, help="port to listen on (PORT, or 8000)")
    add_workers(serving)
    add_workers(add(worker))
    migrating = add(migrate)
    showing = migrating.add_mutually_exclusive_group()
    showing.add_argument(
        "--plan", action="store_true", help="print the SQL that would run; exit with 1 if there is any"
    )
    showing.add_argument("--status", action="store_true", help="list migrations; exit with 1 if any is pending")
    migrating.add_argument(
        "--wait", type=_count, default=600, metavar="SECONDS", help="how long to try again for what is locked (600)"
    )
    checking = add(check)
    checking.add_argument("--json", action="store_true", help="print the findings as JSON")
    checking.add_argument("--seconds", type=_count, default=2, help="when the answer is due (2)")
    actions = add(messages).add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="newest first: id, time, attempts and error code")
    listing.add_argument("--status", type=MessageStatus, choices=list(MessageStatus), default=MessageStatus.FAILED)
    listing.add_argument("--limit", type=_count, default=50, help="maximum number to list (50)")
    actions.add_parser("requeue", help="queue a failed message again").add_argument("id", type=UUID)
    actions = add(accounts).add_subparsers(dest="action", required=True, metavar="ACTION")
    unlocking = actions.add_parser("unlock", help="delete all wrong guesses made for a number")
    unlocking.add_argument("number", metavar="NUMBER", help="international, or local to DEFAULT_REGION")
    actions = add(billing).add_subparsers(dest="action", required=True, metavar="ACTION")
    reconciling = actions.add_parser("reconcile", help="all users, or one")
    reconciling.add_argument("--user", type=UUID, metavar="ID", help="only this user")
    return parser


def operators_words(error: DomainError) -> str:
    return error.cause if isinstance(error, Unavailable) else error.detail


def _sentence(words: str | None) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError("must be a whole number, at most 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, at least 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed, os.environ))
    except SettingsError as error:
        lines = error.lines
    except DomainError as error:
        lines = [operators_words(error)]
    for line in lines:
        print(f"gemini-backend: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
