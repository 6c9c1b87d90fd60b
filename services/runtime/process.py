"""Runs a service with a database as a process: migrates its schema or serves."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from services.runtime.database_settings import DatabaseSettings
from services.runtime.migrations import migrate
from services.runtime.program import ProcessSettings, run_program
from services.runtime.settings import exit_with, load_settings
from services.runtime.telemetry import configure_log

__all__ = ["run_service"]

SettingsType = TypeVar("SettingsType", bound=ProcessSettings)


def run_service(
    name: str,
    settings_type: type[SettingsType],
    serve: Callable[[SettingsType, asyncio.Event], Coroutine[Any, Any, None]],
) -> None:
    """Serves until SIGTERM; with the argument `migrate`, brings the schema up to date instead.

    `serve` gets the settings and an event that is set when the process is told to leave. Wrong
    settings and wrong usage end the process with exit code 2.
    """
    match sys.argv[1:]:
        case []:
            run_program(name, settings_type, serve)
        case ["migrate"]:
            configure_log(name)
            settings = load_settings(DatabaseSettings)
            migrate(
                name,
                settings.database_url,
                wait_s=settings.database_wait_s,
                is_pooled=settings.has_pooler,
            )
        case _:
            exit_with(f"usage: python -m services.{name} [migrate]")
