"""Structured logs: readable in development, JSON lines in production."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from traceback import format_tb
from types import TracebackType

import structlog

from entrypoints import metrics
from entrypoints.settings import Settings

#: Of the request that is being answered. Most requests log nothing, and structlog's own context is a dict to copy.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


def configure_logs(settings: Settings) -> None:
    """Route structlog and the standard library's loggers through one format to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[metrics.count_log_event, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Not cached: a logger that was used would keep this configuration after the next.
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.is_production
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, metrics.count_application_event],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(where_and_what),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # These log their input: SQL values, job payloads, request lines, prompts.
    for name in (
        "tortoise",
        "taskiq",
        "asyncio",
        "google_genai",
        "httpx",
        "httpx2",
        "httpcore",
        "aiohttp",
        "stripe",
        "sanic.access",
    ):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # asyncpg logs a traceback when the database disconnects, which is expected here and logged by us.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)


def _add_request_id(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if (identifier := REQUEST_ID.get()) is not None:
        event.setdefault("request_id", identifier)
    return event


def where_and_what(exc_info: tuple[type[BaseException], BaseException, TracebackType | None]) -> str:
    """An exception and its causes, by location and type, without its message.

    A message may quote user input: the database's, for example, a duplicate number. Those of the operating system do
    not, and without them the error cannot be understood.
    """
    error = exc_info[1]
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    inside = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    parts = [
        where_and_what((type(cause), cause, cause.__traceback__)) for cause in (*([before] if before else []), *inside)
    ]
    said = f": {error}" if isinstance(error, OSError) else ""
    return "\n".join([*parts, "".join(format_tb(error.__traceback__)) + type(error).__qualname__ + said])
