"""Sets up the log of a process: lines a person can read on a terminal, JSON elsewhere."""

import logging
import sys
from typing import Any, Literal

import structlog

from services.runtime.tracing import add_trace_ids

__all__ = ["LogFormat", "LogLevel", "configure_log", "get_logger"]

LogFormat = Literal["console", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def configure_log(
    service: str, log_format: LogFormat = "console", level: LogLevel = "INFO"
) -> None:
    """Sends the log of this process, and of the libraries in it, to standard error.

    Every line of JSON carries the name of the `service`. Call it once, first thing in `__main__`.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        # A person wants the time of the wall, a program one that can be compared.
        structlog.processors.TimeStamper(
            fmt="iso" if log_format == "json" else "%H:%M:%S", utc=log_format == "json", key="time"
        ),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[Any]
    # Stacks without the values of variables, which may be secrets or what people wrote.
    if log_format == "json":
        # On a terminal they would hide what is said.
        shared.append(add_trace_ids)
        stacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [
            structlog.processors.ExceptionRenderer(stacks),
            structlog.processors.JSONRenderer(),
        ]
    else:
        # Whoever runs the process adds colours of its own, `reelworks up` for one.
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
                timestamp_key="time",
                pad_event_to=0,
            )
        ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("aiosqlite", "alembic.runtime", "httpcore", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        # What is not logged is dropped before anything is done for it.
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    if log_format == "json":
        structlog.contextvars.bind_contextvars(service=service)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Returns the logger of a module; `name` is the module's `__name__`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
