"""Structured logs: readable in development, JSON lines in production."""

from __future__ import annotations

import logging
import sys

import structlog

from entrypoints import metrics
from entrypoints.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Route structlog and the standard library's loggers through one format to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[metrics.count_log_event, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.is_production
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # These log what they are given: SQL values, job payloads, request lines, prompts.
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
        "twilio",
        "sanic.access",
    ):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # asyncpg reports a database that went away with a traceback, which is ordinary here and logged by us.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
