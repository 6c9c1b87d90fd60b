"""Starts the credits service: `python -m services.credits`, or `… migrate` for its schema."""

import asyncio
import sys

from reelworks.credits.v1 import credits_pb2_grpc

from services.credits.requests import CHECKS
from services.credits.servicer import DOMAIN, SERVICE_NAME, CreditsServicer
from services.credits.settings import CreditsSettings, DatabaseSettings
from services.credits.store import CreditsStore
from services.runtime.database import open_database
from services.runtime.migrations import migrate, require_newest
from services.runtime.server import ServedService, Server, run
from services.runtime.settings import exit_with, load_settings
from services.runtime.telemetry import configure_log

__all__ = ["main"]


def main() -> None:
    """Serves until SIGTERM; with the argument `migrate`, brings the schema up to date instead."""
    match sys.argv[1:]:
        case []:
            settings = load_settings(CreditsSettings)
            configure_log("credits", settings.log_format, settings.log_level)
            run(serve(settings, leave=asyncio.Event()))
        case ["migrate"]:
            configure_log("credits")
            migrate("credits", load_settings(DatabaseSettings).database_url)
        case _:
            exit_with("usage: python -m services.credits [migrate]")


async def serve(settings: CreditsSettings, leave: asyncio.Event) -> None:
    """Serves the ledger at the database of `settings` until `leave` is set, as by SIGTERM."""
    database = open_database(settings.database_url)
    try:
        problem = await require_newest(database, "credits")
        if problem is not None:
            exit_with(problem)
        store = CreditsStore(database)
        servicer = CreditsServicer(store, settings.welcome_bonus_credits)
        server = Server(
            settings=settings,
            domain=DOMAIN,
            services=[
                ServedService(
                    SERVICE_NAME,
                    lambda grpc_server: credits_pb2_grpc.add_CreditsServiceServicer_to_server(
                        servicer, grpc_server
                    ),
                )
            ],
            stopping=asyncio.Event(),
            checks=CHECKS,
            leave=leave,
        )
        async with asyncio.TaskGroup() as tasks:
            # Should the writer fail, the server goes with it; it outlives the last call.
            tasks.create_task(store.run())
            await server.serve()
            store.close()
    finally:
        await database.close()


if __name__ == "__main__":
    main()
