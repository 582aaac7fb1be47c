"""The one command: gemini-backend up | serve | worker | migrate | check | messages | accounts | billing."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from application.ports.chat import LanguageModel
from domain.chat.messages import MessageStatus
from domain.errors import DomainError, ModelError, ModelNotConfigured
from domain.ids import MessageId, UserId
from entrypoints.settings import MIGRATE_NEEDS, SERVE_NEEDS, SERVERS, WORKER_NEEDS, Settings, SettingsError

# Each subcommand imports what it needs when it runs: `--help` is quick, and no process pays for another's parts.


def up(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """start the whole product on this machine, its servers included"""
    try:
        from local.up import up as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "local":
            raise
        raise SettingsError(
            ["up needs a checkout of the repository: an installed package is the product alone."]
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
    """answer messages"""
    settings = Settings.from_environment(environment, needs=WORKER_NEEDS)
    from entrypoints.worker import run

    return run(settings, workers=arguments.workers)


def migrate(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """bring the database's schema up to date"""
    settings = Settings.from_environment(environment, needs=MIGRATE_NEEDS)
    from adapters.postgres.migrate import migrate as run
    from entrypoints.telemetry import configure_logs

    configure_logs(settings)
    for name in asyncio.run(run(settings.postgres.url.get_secret_value())):
        print(f"applied {name}")
    print("The database is up to date.")
    return 0


def check(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """check the settings, and that Postgres, Redis and the model can be used"""
    settings = Settings.from_environment(environment, needs=SERVERS)
    from entrypoints.container import Container, running
    from entrypoints.telemetry import configure_logs

    configure_logs(settings)

    async def run() -> int:
        container = Container(settings=settings)
        failed = 0
        async with running(container.resources()):
            for dependency in container.watched():
                try:
                    await dependency.check()
                    print(f"{dependency.name}: ok")
                except DomainError as error:
                    failed = 1
                    print(f"{dependency.name}: {error.detail}")
            if settings.gemini.api_key.get_secret_value():  # only workers need one
                failed = await _check_model(container.language_model()) or failed
        return failed

    return asyncio.run(run())


async def _check_model(model: LanguageModel) -> int:
    """A model that is away is no fault of this deployment, and no reason to restart its workers: only said."""
    try:
        await model.check()
        print(f"{model.name}: ok")
    except ModelNotConfigured as error:
        print(f"{model.name}: {error.detail} ({error.reason})")
        return 1
    except ModelError as error:
        print(f"{model.name}: {error.detail}")
    return 0


def messages(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """list messages by their state, or have a failed one answered after all"""
    settings = Settings.from_environment(environment, needs=SERVERS)
    from entrypoints.container import Container, running
    from entrypoints.telemetry import configure_logs

    configure_logs(settings)

    async def run() -> None:
        container = Container(settings=settings)
        async with running(container.resources()):
            if arguments.action == "requeue":
                await container.requeue_message()(message_id=MessageId(arguments.id))
                print(f"{arguments.id} is queued again.")
                return
            # Ids, times and codes only: what people wrote is none of the terminal's business.
            for message in await container.messages().list_by_status(arguments.status, limit=arguments.limit):
                sent = message.created_at.isoformat(timespec="seconds")
                print(f"{message.id}  {sent}  attempts={message.attempt}  {message.error_code or ''}".rstrip())

    asyncio.run(run())
    return 0


def accounts(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """let a number be logged in with again after too many wrong codes or passwords"""
    # Guesses are counted by the number's keyed digest: with another key none would be found.
    settings = Settings.from_environment(environment, needs=(*SERVERS, "ACCESS_TOKEN_SECRET"))
    from entrypoints.container import Container, running
    from entrypoints.telemetry import configure_logs

    configure_logs(settings)

    async def run() -> None:
        container = Container(settings=settings)
        number = container.mobile_numbers().parse(arguments.number)
        async with running(container.resources()):
            counted = await container.guess_limits().reset(number)
        print("All wrong guesses are forgotten." if counted else "No wrong guesses are counted for this number.")

    asyncio.run(run())
    return 0


def billing(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """read subscriptions from Stripe, now and here"""
    settings = Settings.from_environment(environment, needs=(*SERVERS, "STRIPE_SECRET_KEY"))
    from entrypoints.container import Container, running
    from entrypoints.telemetry import configure_logs

    configure_logs(settings)

    async def run() -> int:
        container = Container(settings=settings)
        reconcile = container.reconcile()
        async with running([*container.resources(), container.payment_gateway()]):
            if arguments.user:
                if not await reconcile.one(UserId(arguments.user)):
                    print("Nothing was read: the user never had to do with Stripe, or the log says why.")
                    return 1
                print("Read.")
                return 0
            read, failed = await reconcile.all()
            print(f"Read the subscriptions of {read}; {failed} could not be read and will be tried again.")
            return 1 if failed else 0

    return asyncio.run(run())


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
        subparser.add_argument("--workers", type=_count, default=1, help="processes to run (1)")

    add(up)
    serving = add(serve)
    serving.add_argument("--host", help="address to listen on (HOST, or 127.0.0.1; 0.0.0.0 in production)")
    serving.add_argument("--port", type=_port, help="port to listen on (PORT, or 8000)")
    add_workers(serving)
    add_workers(add(worker))
    add(migrate)
    add(check)
    actions = add(messages).add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="newest first: id, time, attempts and what went wrong")
    listing.add_argument("--status", type=MessageStatus, choices=list(MessageStatus), default=MessageStatus.FAILED)
    listing.add_argument("--limit", type=_count, default=50, help="at most so many (50)")
    actions.add_parser("requeue", help="queue a failed message again").add_argument("id", type=UUID)
    actions = add(accounts).add_subparsers(dest="action", required=True, metavar="ACTION")
    unlocking = actions.add_parser("unlock", help="forget all wrong guesses made for a number")
    unlocking.add_argument("number", metavar="NUMBER", help="international, or of DEFAULT_REGION")
    actions = add(billing).add_subparsers(dest="action", required=True, metavar="ACTION")
    reconciling = actions.add_parser("reconcile", help="everybody's, or one user's")
    reconciling.add_argument("--user", type=UUID, metavar="ID", help="only this user's")
    return parser


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
        lines = [error.detail]
    for line in lines:
        print(f"gemini-backend: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
