"""Runs a simulator as a process of its own, from start to signal."""

import asyncio
import json
import signal
import sys
from dataclasses import asdict

from services.runtime.settings import exit_with
from services.runtime.telemetry import configure_log, get_logger
from services.simulator.renderer import Renderer
from services.simulator.server import PortTaken, run_simulator
from services.simulator.settings import SimulatorSettings

__all__ = ["run_process"]

_log = get_logger(__name__)


def run_process(settings: SimulatorSettings) -> None:
    """Serves until SIGTERM or SIGINT.

    Once all listeners answer, their addresses stand as one line of JSON on standard output.
    """
    configure_log("simulator", settings.log_format)
    try:
        with Renderer() as renderer:
            renderer.warm_up()
            asyncio.run(_serve(settings, renderer))
    except PortTaken as error:
        exit_with(str(error))


async def _serve(settings: SimulatorSettings, renderer: Renderer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with run_simulator(settings, renderer) as addresses:
        sys.stdout.write(json.dumps(asdict(addresses)) + "\n")
        sys.stdout.flush()
        _log.info("serving", speed=settings.speed, seed=settings.seed, **asdict(addresses))
        await stop.wait()
        _log.info("stopping")
