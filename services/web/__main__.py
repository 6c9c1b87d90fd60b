"""Starts the web service: `python -m services.web`, or `… token NAME` for one of development."""

import asyncio
import ipaddress
import sys

from services.runtime.metrics import Metrics, serving_metrics
from services.runtime.program import collect_rarely, run_program
from services.runtime.settings import exit_with, load_settings, split_address
from services.runtime.telemetry import get_logger
from services.web.app import create_app
from services.web.development import NAME_RULE, development_key, development_token, person_named
from services.web.server import ConnectionLimits, WebServer, listen
from services.web.settings import DevelopmentSettings, WebSettings
from services.web.wiring import WrongSetting, wired

__all__ = ["main"]

SERVICE = "web"

logger = get_logger(__name__)


def main() -> None:
    """Runs the process; with the arguments `token NAME`, prints an access token instead."""
    match sys.argv[1:]:
        case ["token", name]:
            sys.stdout.write(f"{_token(name)}\n")
        case _:
            run_program(SERVICE, WebSettings, serve)


async def serve(settings: WebSettings, leave: asyncio.Event) -> None:
    """Answers requests until `leave` is set, as by SIGTERM."""
    try:
        listener = listen(*split_address(settings.address))
    except OSError:
        exit_with(f"REELWORKS_ADDRESS: {settings.address} cannot be listened on; is it taken?")
    limits = ConnectionLimits(
        connections_max=settings.connections_max,
        connections_per_address=settings.connections_per_address,
        trusted_proxies=tuple(map(ipaddress.ip_network, settings.trusted_proxies)),
    )
    with listener:
        try:
            metrics = Metrics()
            async with (
                serving_metrics(metrics, settings.metrics_address),
                wired(settings, metrics) as parts,
            ):
                server = WebServer(
                    create_app(parts), limits, settings.grace_s, settings.forwarded_allow_ips
                )
                # Else the last collection, when all has ended, takes longer than leaving did.
                collect_rarely()
                serving = asyncio.create_task(server.serve([listener]))
                serving.add_done_callback(lambda _: leave.set())
                logger.info("serving", address=settings.address)
                await leave.wait()
                logger.info("leaving", drain_s=settings.drain_s)
                parts.leaving.set()
                await asyncio.sleep(settings.drain_s)
                server.should_exit = True
                await serving
        except WrongSetting as error:
            exit_with(str(error))
    logger.info("left")


def _token(name: str) -> str:
    """Returns a token that an installation in development believes."""
    person = person_named(name)
    if person is None:
        exit_with(f"NAME {NAME_RULE}")
    path = load_settings(DevelopmentSettings).development_key_file
    try:
        return development_token(development_key(path), person)
    except (OSError, ValueError) as error:
        exit_with(f"REELWORKS_DEVELOPMENT_KEY_FILE: {path}: {error}")


if __name__ == "__main__":
    main()
