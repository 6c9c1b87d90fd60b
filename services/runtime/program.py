"""Runs a process that serves: reads its settings, then serves until it is told to leave."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Self, TypeVar

import uvloop
from pydantic import Field, model_validator

from services.runtime.settings import (
    DAY_S,
    PLAINTEXT_RULE,
    HostAndPort,
    Peer,
    exit_with,
    is_loopback_target,
    load_settings,
)
from services.runtime.telemetry import LogFormat, LogLevel, configure_log
from services.runtime.tls import TlsSettings
from services.runtime.tracing import tracing

__all__ = ["ProcessSettings", "collect_rarely", "leave_on_signals", "run_program"]

COLLECT_AFTER_OBJECTS = 20_000


class ProcessSettings(TlsSettings):
    """Settings that every service has."""

    environment: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "local"
    """Name of the installation: 1 to 32 of `a-z 0-9 -`. `local` turns reflection on."""
    log_format: LogFormat = "console"
    """Lines for people, or JSON for programs."""
    log_level: LogLevel = "INFO"
    """Least severe lines that are written."""
    drain_s: Annotated[float, Field(ge=0, le=DAY_S)] = 5.0
    """How long new calls are still answered after NOT_SERVING, for balancers to look away."""
    grace_s: Annotated[float, Field(ge=0, le=DAY_S)] = 20.0
    """How long calls under way may take to end after that."""
    metrics_address: HostAndPort | None = None
    """Where Prometheus finds the metrics: `host:port`, in plaintext. None: nowhere."""

    @model_validator(mode="after")
    def _calls_elsewhere_with_certificates_only(self) -> Self:
        for name, field in type(self).model_fields.items():
            is_peer = any(isinstance(mark, Peer) for mark in field.metadata)
            if is_peer and not self.has_tls and not is_loopback_target(getattr(self, name)):
                variable = f"REELWORKS_{name.upper()}"
                raise ValueError(f"{variable}: {getattr(self, name)} {PLAINTEXT_RULE}")
        return self


SettingsType = TypeVar("SettingsType", bound=ProcessSettings)


def run_program(
    name: str,
    settings_type: type[SettingsType],
    serve: Callable[[SettingsType, asyncio.Event], Coroutine[Any, Any, None]],
) -> None:
    """Serves until SIGTERM.

    `serve` gets the settings and an event that is set when the process is told to leave. Wrong
    settings and wrong usage end the process with exit code 2.
    """
    if sys.argv[1:]:
        exit_with(f"usage: python -m services.{name}")
    # What gRPC's core has to say about connections, the callers' errors say too.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    settings = load_settings(settings_type)
    configure_log(name, settings.log_format, settings.log_level)
    with contextlib.suppress(KeyboardInterrupt), tracing(name, settings.environment):
        uvloop.run(_serve_until_told(settings, serve))


def collect_rarely() -> None:
    """Has the garbage collector look less often, and at nothing that is there already.

    To be called once all is wired. What many calls hold while they wait for the disk is no garbage,
    but makes the collector walk through it again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS)


def leave_on_signals(leave: asyncio.Event) -> None:
    """Sets `leave` on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave.set)


async def _serve_until_told(
    settings: SettingsType,
    serve: Callable[[SettingsType, asyncio.Event], Coroutine[Any, Any, None]],
) -> None:
    leave = asyncio.Event()
    leave_on_signals(leave)
    await serve(settings, leave)
