"""The reconciler with a real database and a real credits service."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from reelworks.credits.v1 import credits_pb2_grpc

from services.generation import reconciler as reconciler_module
from services.generation import reservations as reservations_module
from services.generation.__main__ import serve
from services.generation.reconciler import Reconciler
from services.generation.reconciliation import ReconcilePolicy, Reservation
from services.generation.reservations import Reservations
from services.generation.settings import GenerationSettings
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.state import Generation, Stage
from services.runtime.channel import connect
from tests.integration.generation.credits_service import CreditsService, running_credits
from tests.integration.generation.harness import (
    OUTPUT,
    PRICE,
    USER,
    Replica,
    eventually,
    generation_in,
    opened,
    opened_replica,
)
from tests.serving import free_address, serving

LONG_AGO = timedelta(hours=2)
RESERVATION, DEDUCTION, REFUND = ("RESERVATION", -PRICE), ("DEDUCTION", 0), ("REFUND", PRICE)

Log = list[MutableMapping[str, Any]]


@pytest.fixture
async def credits_service(
    tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[CreditsService]:
    async with running_credits(tmp_path, templates) as service:
        await service.open(USER)
        yield service


@dataclass
class Office:
    """A reconciler, and both of those that it compares."""

    replica: Replica
    credits: CreditsService
    stub: Any

    def reconciler(
        self,
        age_s: float = 0.0,
        interval_s: float = 300.0,
        reservations: Reservations | None = None,
        stopping: asyncio.Event | None = None,
    ) -> Reconciler:
        return Reconciler(
            self.replica.history,
            reservations or Reservations(self.stub),
            Settlement(self.stub),
            ReconcilePolicy(interval_s, age_s),
            stopping or asyncio.Event(),
        )

    async def reserved(self, stage: Stage, **changes: Any) -> Generation:
        """A generation in a stage whose price is still set aside."""
        generation = generation_in(stage, **changes)
        await self.replica.insert(generation)
        await self.credits.reserve(generation)
        return generation

    async def completed(self, **changes: Any) -> Generation:
        """A generation that says that it was paid; nothing is said at the credits service."""
        now = datetime.now(UTC)
        changes = {"finished_at": now - timedelta(minutes=1), "charged_credits": PRICE} | changes
        generation = generation_in(Stage.COMPLETED, output=OUTPUT, **changes)
        await self.replica.insert(generation)
        return generation

    async def moves(self, generation: Generation) -> list[tuple[str, int]]:
        return await self.credits.moves(generation.user_id, generation.generation_id)


@pytest.fixture
async def office(replica: Replica, credits_service: CreditsService) -> AsyncIterator[Office]:
    async with connect(credits_service.address, CREDITS_DEADLINES_S) as channel:
        yield Office(replica, credits_service, credits_pb2_grpc.CreditsServiceStub(channel))


@contextlib.contextmanager
def listening() -> Iterator[Log]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def faults(log: Log) -> dict[str, str]:
    """Finding by generation, of what was reported as an error; each once."""
    errors = [entry for entry in log if entry["log_level"] == "error"]
    found = {entry["generation_id"]: str(entry["finding"]) for entry in errors}
    assert len(found) == len(errors), "a fault was reported twice"
    return found


async def test_a_failed_generation_gets_its_credits_back_and_the_log_says_so(
    office: Office,
) -> None:
    failed = await office.reserved(Stage.FAILED)
    rejected = await office.reserved(Stage.REJECTED)
    reconciler = office.reconciler()

    with listening() as log:
        await reconciler.reconcile()
    with listening() as later:
        await reconciler.reconcile()

    assert faults(log) == dict.fromkeys(
        (failed.generation_id, rejected.generation_id), "NOT_REFUNDED"
    )
    assert await office.moves(failed) == [RESERVATION, REFUND]
    assert await office.moves(rejected) == [RESERVATION, REFUND]
    assert await office.credits.balance(USER) == (100, 0)
    assert faults(later) == {}


async def test_a_video_that_was_delivered_is_paid_and_the_log_says_so(office: Office) -> None:
    generation = await office.completed()
    await office.credits.reserve(generation)
    reconciler = office.reconciler()

    with listening() as log:
        await reconciler.reconcile()
    with listening() as later:
        await reconciler.reconcile()

    assert faults(log) == {generation.generation_id: "NOT_COMMITTED"}
    assert await office.moves(generation) == [RESERVATION, DEDUCTION]
    assert await office.credits.balance(USER) == (100 - PRICE, 0)
    assert faults(later) == {}


async def test_what_cannot_be_repaired_safely_is_reported_and_left_alone(office: Office) -> None:
    running = await office.reserved(Stage.RUNNING)
    overdue = await office.reserved(
        Stage.RUNNING, created_at=datetime.now(UTC) - LONG_AGO, job_id="late"
    )
    parked = await office.reserved(Stage.PARKED)
    unknown = generation_in(Stage.FAILED)
    await office.credits.reserve(unknown)
    # Another user's generation says nothing about this one's money.
    foreign = generation_in(Stage.FAILED, user_id="bob")
    await office.replica.insert(foreign)
    own = generation_in(Stage.FAILED, generation_id=foreign.generation_id)
    await office.credits.reserve(own)

    with listening() as log:
        await office.reconciler().reconcile()

    assert faults(log) == {
        overdue.generation_id: "OVERDUE",
        parked.generation_id: "PARKED",
        unknown.generation_id: "UNKNOWN",
        own.generation_id: "UNKNOWN",
    }
    assert await office.moves(running) == [RESERVATION]
    assert await office.credits.balance(USER) == (100 - 5 * PRICE, 5 * PRICE)


async def test_a_young_reservation_is_left_to_its_generation(office: Office) -> None:
    generation = await office.reserved(Stage.FAILED)

    with listening() as log:
        await office.reconciler(age_s=60.0).reconcile()

    assert faults(log) == {}
    assert await office.moves(generation) == [RESERVATION]


async def test_a_generation_that_settles_while_it_is_looked_at_is_no_fault(office: Office) -> None:
    generation = await office.reserved(Stage.FAILED)
    settlement = Settlement(office.stub)

    class Late(Reservations):
        """Its list is old when it arrives."""

        async def open_before(self, moment: datetime) -> AsyncIterator[Sequence[Reservation]]:
            async for page in super().open_before(moment):
                await settlement.refund(generation)
                yield page

    with listening() as log:
        await office.reconciler(reservations=Late(office.stub)).reconcile()

    assert faults(log) == {}
    assert await office.moves(generation) == [RESERVATION, REFUND]


async def test_a_completed_generation_that_nobody_paid_is_reported_once(office: Office) -> None:
    now = datetime.now(UTC)
    settlement = Settlement(office.stub)
    paid, refunded = await office.completed(), await office.completed()
    for generation in (paid, refunded):
        await office.credits.reserve(generation)
    await settlement.commit(paid)
    await settlement.refund(refunded)
    unreserved = await office.completed()
    uncharged = await office.completed(charged_credits=0)
    stranger = await office.completed(user_id="no-account")
    await office.completed(finished_at=now - timedelta(hours=25))
    just_now = await office.completed(finished_at=now)
    reconciler = office.reconciler()

    with listening() as log:
        await reconciler.reconcile()
    with listening() as later:
        await reconciler.reconcile()

    assert faults(log) == {
        refunded.generation_id: "NOT_PAID",
        unreserved.generation_id: "NOT_PAID",
        uncharged.generation_id: "NOT_CHARGED",
        stranger.generation_id: "NOT_PAID",
    }
    assert just_now.generation_id not in faults(log)
    assert faults(later) == {}
    assert await office.credits.balance(USER) == (100 - PRICE, 0)


async def test_a_pass_reads_all_pages(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations_module, "PAGE_SIZE", 2)
    monkeypatch.setattr(reconciler_module, "PAGE_SIZE", 2)
    # Nothing is done about these, so that no page changes while it is read.
    unknown = [generation_in(Stage.FAILED) for _ in range(5)]
    for generation in unknown:
        await office.credits.reserve(generation)
    moment = datetime.now(UTC) - timedelta(minutes=1)
    unpaid = [await office.completed(finished_at=moment) for _ in range(5)]

    with listening() as log:
        await office.reconciler().reconcile()

    assert faults(log) == dict.fromkeys((g.generation_id for g in unknown), "UNKNOWN") | (
        dict.fromkeys((g.generation_id for g in unpaid), "NOT_PAID")
    )


async def test_it_goes_on_when_the_credits_service_comes_back_and_ends_at_once_when_told(
    office: Office,
) -> None:
    generation = await office.reserved(Stage.FAILED)
    stopping = asyncio.Event()
    reconciler = office.reconciler(interval_s=0.05, stopping=stopping)
    await office.credits.stop()

    with listening() as log:
        running = asyncio.create_task(reconciler.run())

        async def complained() -> bool:
            return any(entry["event"] == "not reconciled" for entry in log)

        async def refunded() -> bool:
            return await office.moves(generation) == [RESERVATION, REFUND]

        await eventually(complained)
        await office.credits.start()
        await eventually(refunded)
        stopping.set()
        async with asyncio.timeout(1):
            await running

    assert faults(log) == {generation.generation_id: "NOT_REFUNDED"}


async def test_the_process_reconciles_while_it_serves(
    url: str, credits_service: CreditsService, tmp_path: Path
) -> None:
    generation = generation_in(Stage.FAILED)
    async with opened(url) as database, opened_replica(database) as replica:
        await replica.insert(generation)
    await credits_service.reserve(generation)
    keys = tmp_path / "callback_keys"
    keys.write_bytes(base64.b64encode(b"k" * 32))
    settings = GenerationSettings.model_validate(
        {
            "address": free_address(),
            "credits_address": credits_service.address,
            "database_url": url,
            "storage_url": (tmp_path / "media").as_uri(),
            "callback_keys_file": keys,
            "REPLICATE_API_TOKEN": "unused",
            "REPLICATE_BASE_URL": f"http://{free_address()}",
            "drain_s": 0,
            "grace_s": 1,
            "reconcile_interval_s": 0.05,
            "reconcile_age_s": 0,
        }
    )

    async def refunded() -> bool:
        moves = await credits_service.moves(USER, generation.generation_id)
        return moves == [RESERVATION, REFUND]

    async with serving(lambda leave: serve(settings, leave), settings.address):
        await eventually(refunded)
