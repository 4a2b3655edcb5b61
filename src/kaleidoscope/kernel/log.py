"""Structured logs: readable on a console, one JSON object a line for machines. No secrets."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from kaleidoscope.kernel.settings import KernelSettings, load

_SECRET = ("secret", "password", "token", "authorization", "embedding", "api_key")


def _redact(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {k: "…" if any(s in k.lower() for s in _SECRET) else v for k, v in event.items()}


def configure(service: str, *, calm: bool = False) -> None:
    """Set up logging for this process; every line carries the service's name. Logs go to stderr.

    `calm`: what merely goes well is left out, unless DEBUG is asked for. A person reads the answer.
    """
    settings = load(KernelSettings)
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    if calm and level == logging.INFO:
        level = logging.WARNING
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, force=True)
    renderer: structlog.typing.Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The default would print the local variables of every frame, secrets among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.format_exc_info
            if settings.log_format == "json"
            else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Whatever stderr is at the moment of the line, as `logging` does not.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)
