"""The ledger is looked after while it is used: what does not agree is shown, and one looks."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from services.credits import audit
from services.credits.audit import Audit
from services.credits.commands import OpenAccount, Reserve
from services.credits.metrics import CreditsMetrics
from services.credits.reads import LedgerReads
from services.credits.tables import reservations
from services.credits.verification import ADVISORY_LOCK, Verifier
from services.runtime.database import Database, open_database
from services.runtime.metrics import Metrics
from tests.conftest import NewDatabase
from tests.integration.credits.stores import AT_ONCE, DAY, running_store
from tests.query_plans import explained

USERS = [f"u{number:02}" for number in range(20)]
LIMIT_S = 20.0


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    async with running_store(opened) as store:
        for user in USERS:
            await store.submit(OpenAccount(user, 100))
        await store.submit(Reserve("u01", "open", 30, DAY))
        await store.submit(Reserve("u02", "late", 5, AT_ONCE))
    yield opened
    await opened.close()


class Watched:
    """An audit that reads a few accounts at a time, and what it shows."""

    def __init__(self, database: Database) -> None:
        self.metrics = Metrics()
        self.stopping = asyncio.Event()
        overdue = timedelta(days=1)
        verifier = Verifier(database, self.stopping, overdue, transactions_per_range=3)
        reads = LedgerReads(database)
        measures = CreditsMetrics(self.metrics)
        self.audit = Audit(reads, verifier, measures, self.stopping, figures_s=0.01, pass_s=0.05)

    def shown(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"reelworks_{name}", labels)
        assert value is not None, name
        return value

    async def verify_all(self) -> None:
        """Verifies parts until the whole ledger was verified once more."""
        before = self.shown("ledger_verified_timestamp")
        async with asyncio.timeout(LIMIT_S):
            while self.shown("ledger_verified_timestamp") == before:
                await self.audit.verify_part()


async def spoil(database: Database, credits_: int) -> None:
    async with database.write() as connection:
        await connection.execute(
            text("UPDATE accounts SET available = available + :more WHERE user_id = 'u15'"),
            {"more": credits_},
        )


async def test_what_does_not_agree_is_shown_at_once_and_until_it_does(database: Database) -> None:
    watched = Watched(database)

    await watched.verify_all()
    good = watched.shown("ledger_violations", invariant="I1")
    await spoil(database, 1)
    await watched.verify_all()
    bad = watched.shown("ledger_violations", invariant="I1")
    await spoil(database, -1)
    await watched.audit.verify_part()
    still_bad = watched.shown("ledger_violations", invariant="I1")
    await watched.verify_all()

    assert (good, bad, still_bad) == (0, 1, 1)
    assert watched.shown("ledger_violations", invariant="I1") == 0


async def test_of_very_much_that_does_not_agree_some_is_named_and_all_is_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "LISTED_MAX", 3)
    watched = Watched(database)

    async with database.write() as connection:
        await connection.execute(text("UPDATE accounts SET available = available + 1"))
    with capture_logs() as lines:
        await watched.verify_all()
        first = watched.shown("ledger_violations", invariant="I1")
        await watched.verify_all()
        second = watched.shown("ledger_violations", invariant="I1")
    named = [line["detail"] for line in lines if line["event"] == "ledger"]
    above = [line["violations"] for line in lines if "violations" in line]

    assert (first, second) == (20, 20)
    assert len(named) == len(set(named)) == 3
    assert above == [37, 37], "another rule is broken as often"
    async with database.write() as connection:
        await connection.execute(text("UPDATE accounts SET available = available - 1"))
    await watched.verify_all()
    assert watched.shown("ledger_violations", invariant="I1") == 0


async def test_what_is_set_aside_is_shown(database: Database) -> None:
    watched = Watched(database)
    running = asyncio.create_task(watched.audit.run())
    async with asyncio.timeout(LIMIT_S):
        while not watched.shown("figures_read_timestamp"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    watched.stopping.set()
    await running

    assert watched.shown("reservations_open") == 2
    assert watched.shown("reserved_credits") == 35
    # It is due, but has not been for five minutes.
    assert watched.shown("reservations_overdue") == 0


async def test_one_replica_verifies_at_a_time(database: Database) -> None:
    if not database.has_row_locks:
        pytest.skip("no other process has the file open")
    watched = Watched(database)

    async with database.write() as connection:
        lock = text("SELECT pg_advisory_xact_lock(:key)")
        await connection.execute(lock, {"key": ADVISORY_LOCK})
        await watched.audit.verify_part()
        meanwhile = watched.shown("ledger_verified_timestamp")
    await watched.verify_all()

    assert meanwhile == 0
    assert watched.shown("ledger_verified_timestamp") > 0


async def test_what_is_set_aside_is_read_by_its_index(database: Database) -> None:
    reads, now = LedgerReads(database), datetime.now(UTC)
    row = {"user_id": "u00", "credits": 1, "state": "COMMITTED", "committed": 1, "reimbursed": 0}
    times = {"created_at": now, "expires_at": now, "resolved_at": now, "description": ""}
    async with database.write() as connection:
        await connection.execute(
            reservations.insert(),
            [row | times | {"reservation_id": f"r{number}"} for number in range(2000)],
        )

    async with explained(database) as plans:
        found = await reads.open_reservations(timedelta(minutes=5))

    assert found.reservations == 2
    assert "ix_reservations_" in plans[0]
