"""Starts the credits service: `python -m services.credits`, or `… migrate` for its schema."""

import asyncio
from datetime import timedelta

from reelworks.credits.v1 import credits_pb2_grpc

from services.credits.audit import Audit
from services.credits.callers import CALLERS
from services.credits.metrics import CreditsMetrics
from services.credits.reads import LedgerReads
from services.credits.requests import CHECKS
from services.credits.servicer import DOMAIN, SERVICE_NAME, CreditsServicer
from services.credits.settings import CreditsSettings
from services.credits.store import CreditsStore
from services.credits.sweeper import OVERDUE_S, Sweeper
from services.credits.verification import Verifier
from services.credits.watchers import BalanceWatchers
from services.runtime.metrics import Metrics, serving_metrics
from services.runtime.migrations import open_migrated, require_newest
from services.runtime.process import run_service
from services.runtime.server import ServedService, Server

__all__ = ["main"]


def main() -> None:
    """Runs the process."""
    run_service("credits", CreditsSettings, serve)


async def serve(settings: CreditsSettings, leave: asyncio.Event) -> None:
    """Serves the ledger at the database of `settings` until `leave` is set, as by SIGTERM."""
    metrics = Metrics()
    database = await open_migrated(settings, "credits", leave)
    try:
        stopping = asyncio.Event()
        reads = LedgerReads(database)
        watchers = BalanceWatchers(reads, stopping)
        measures = CreditsMetrics(metrics)
        measures.watch_pool(database)
        store = CreditsStore(database, moved=watchers.publish, metrics=measures)
        sweeper = Sweeper(reads, store, stopping)
        verifier = Verifier(database, stopping, overdue=timedelta(seconds=OVERDUE_S))
        audit = Audit(reads, verifier, measures, stopping)
        servicer = CreditsServicer(store, reads, watchers, verifier, settings.welcome_bonus_credits)
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
            stopping=stopping,
            callers=CALLERS,
            examine=lambda: require_newest(database, "credits"),
            checks=CHECKS,
            leave=leave,
            metrics=metrics,
        )
        async with (
            serving_metrics(metrics, settings.metrics_address),
            asyncio.TaskGroup() as tasks,
        ):
            # Should the writer fail, the server goes with it; it outlives the last call.
            tasks.create_task(store.run())
            await server.serve(watchers.run(), sweeper.run(), audit.run())
            store.close()
    finally:
        await database.close()


if __name__ == "__main__":
    main()
