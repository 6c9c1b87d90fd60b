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
from sqlalchemy import text

from services.generation import history as history_module
from services.generation import reconciler as reconciler_module
from services.generation import reservations as reservations_module
from services.generation import tables
from services.generation.__main__ import serve
from services.generation.bookmark import Bookmark
from services.generation.reconciler import LOOK_BACK, VISIBLE_AFTER, Reconciler
from services.generation.reconciliation import Finding, ReconcilePolicy, Reservation
from services.generation.reservations import Reservations
from services.generation.settings import GenerationSettings
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.state import Generation, Stage
from services.runtime.channel import connect
from services.runtime.errors import DeadlineExceeded, ServiceFailed
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
SETTLED_LATELY = VISIBLE_AFTER + timedelta(minutes=1)
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
            Bookmark(self.replica.database),
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
        changes = {"charged_credits": PRICE, "output": OUTPUT} | changes
        return await self.ended(Stage.COMPLETED, **changes)

    async def ended(self, stage: Stage, **changes: Any) -> Generation:
        """A generation that ended a while ago; nothing is said at the credits service."""
        generation = generation_in(stage, **({"finished_at": ago(SETTLED_LATELY)} | changes))
        await self.replica.insert(generation)
        return generation

    async def moves(self, generation: Generation) -> list[tuple[str, int]]:
        return await self.credits.moves(generation.user_id, generation.generation_id)


@pytest.fixture
async def office(replica: Replica, credits_service: CreditsService) -> AsyncIterator[Office]:
    async with connect(credits_service.address, CREDITS_DEADLINES_S) as channel:
        yield Office(replica, credits_service, credits_pb2_grpc.CreditsServiceStub(channel))


def ago(time: timedelta) -> datetime:
    return datetime.now(UTC) - time


@contextlib.contextmanager
def listening() -> Iterator[Log]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def faults(log: Log) -> dict[str, str]:
    """Finding by generation, of what was reported; each once."""
    told = [entry for entry in log if entry["event"] == "money and work disagree"]
    found = {entry["generation_id"]: str(entry["finding"]) for entry in told}
    assert len(found) == len(told), "a fault was reported twice"
    return found


def mended(log: Log) -> list[str]:
    return [e["generation_id"] for e in log if e["event"] == "money and work agree again"]


async def told_by(reconciler: Reconciler) -> dict[str, str]:
    """The faults that a pass tells of."""
    with listening() as log:
        await reconciler.reconcile()
    return faults(log)


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
    overdue = await office.reserved(Stage.RUNNING, created_at=ago(LONG_AGO), job_id="late")
    parked = await office.reserved(Stage.PARKED)
    unknown = generation_in(Stage.FAILED)
    await office.credits.reserve(unknown)
    # Another user's generation says nothing about this one's money.
    foreign = generation_in(Stage.FAILED, user_id="bob")
    await office.replica.insert(foreign)
    own = generation_in(Stage.FAILED, generation_id=foreign.generation_id)
    await office.credits.reserve(own)
    # Another product's reservations are none of ours.
    await office.credits.reserve(generation_in(Stage.FAILED, generation_id="order-17"))

    with listening() as log:
        await office.reconciler().reconcile()

    assert faults(log) == {
        overdue.generation_id: "OVERDUE",
        parked.generation_id: "PARKED",
        unknown.generation_id: "UNMATCHED",
        own.generation_id: "UNMATCHED",
    }
    levels = {entry["finding"]: entry["log_level"] for entry in log if "finding" in entry}
    assert levels == {"OVERDUE": "error", "PARKED": "error", "UNMATCHED": "warning"}
    assert await office.moves(running) == [RESERVATION]
    assert await office.credits.balance(USER) == (100 - 6 * PRICE, 6 * PRICE)


async def test_a_charge_without_a_video_is_reported_until_it_is_reimbursed(office: Office) -> None:
    settlement = Settlement(office.stub)
    # Its commit landed, and eight answers to it were lost.
    parked = await office.reserved(Stage.PARKED, parked_from=Stage.COMMITTING, output=OUTPUT)
    failed = await office.ended(Stage.FAILED)
    await office.credits.reserve(failed)
    refunded = await office.ended(Stage.FAILED)
    await office.credits.reserve(refunded)
    await settlement.commit(parked)
    await settlement.commit(failed)
    await settlement.refund(refunded)
    reconciler = office.reconciler()

    before = reconciler.latest
    first, second = await told_by(reconciler), await told_by(reconciler)
    counted = reconciler.latest
    balance = await office.credits.balance(USER)
    for generation in (parked, failed):
        await office.credits.reimburse(generation, PRICE)
    with listening() as later:
        await reconciler.reconcile()

    assert first == dict.fromkeys(
        (parked.generation_id, failed.generation_id), "CHARGED_WITHOUT_VIDEO"
    )
    assert second == {}
    assert before is None
    assert counted is not None
    assert counted.findings == {Finding.CHARGED_WITHOUT_VIDEO: 2}
    assert abs(counted.reconciled_at - ago(timedelta(0))) < timedelta(minutes=1)
    assert balance == (100 - 2 * PRICE, 0)
    assert faults(later) == {parked.generation_id: "PARKED_UNRESERVED"}
    assert mended(later) == [failed.generation_id]
    assert reconciler.latest is not None
    assert reconciler.latest.findings == {Finding.PARKED_UNRESERVED: 1}


async def test_what_is_parked_stays_in_the_report_when_its_reservation_expires(
    office: Office,
) -> None:
    parked = await office.reserved(Stage.PARKED)
    reconciler = office.reconciler()
    first = await told_by(reconciler)

    office.credits.falsify("UPDATE reservations SET state = 'EXPIRED', resolved_at = expires_at")
    second, third = await told_by(reconciler), await told_by(reconciler)
    restarted = await told_by(office.reconciler())

    assert first == {parked.generation_id: "PARKED"}
    assert second == restarted == {parked.generation_id: "PARKED_UNRESERVED"}
    assert third == {}


async def test_what_should_have_ended_is_found_without_its_reservation(office: Office) -> None:
    stuck = await office.reserved(Stage.COMMITTING, created_at=ago(LONG_AGO), output=OUTPUT)
    await Settlement(office.stub).commit(stuck)
    await office.reserved(Stage.COMMITTING, output=OUTPUT)

    # The age says that no open reservation is to be looked at.
    assert await told_by(office.reconciler(age_s=60.0)) == {stuck.generation_id: "OVERDUE"}


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


async def test_a_parked_generation_that_goes_on_while_it_is_looked_at_is_no_fault(
    office: Office,
) -> None:
    parked = await office.reserved(Stage.PARKED, output=OUTPUT)

    class Resumed(Reservations):
        """An operator acts while a reservation is read."""

        async def find(self, user_id: str, reservation_id: str) -> Reservation | None:
            await Settlement(office.stub).commit(parked)
            async with office.replica.database.write() as connection:
                await connection.execute(text("UPDATE generations SET stage = 'COMPLETED'"))
            return await super().find(user_id, reservation_id)

    assert await told_by(office.reconciler(reservations=Resumed(office.stub))) == {}


async def test_a_completed_generation_that_nobody_paid_is_reported_once(office: Office) -> None:
    settlement = Settlement(office.stub)
    paid, refunded = await office.completed(), await office.completed()
    for generation in (paid, refunded):
        await office.credits.reserve(generation)
    await settlement.commit(paid)
    await settlement.refund(refunded)
    unreserved = await office.completed()
    uncharged = await office.completed(charged_credits=0)
    stranger = await office.completed(user_id="no-account")
    await office.completed(finished_at=ago(LOOK_BACK + timedelta(hours=1)))
    # One that ended just now may not be visible yet, so its time waits for the next pass.
    await office.completed(finished_at=ago(VISIBLE_AFTER - timedelta(minutes=1)))
    reconciler = office.reconciler()

    told, later = await told_by(reconciler), await told_by(reconciler)

    assert told == {
        refunded.generation_id: "NOT_PAID",
        unreserved.generation_id: "NOT_PAID",
        uncharged.generation_id: "NOT_CHARGED",
        stranger.generation_id: "NOT_PAID",
    }
    assert later == {}
    assert await office.credits.balance(USER) == (100 - PRICE, 0)
    assert reconciler.latest is not None
    assert reconciler.latest.findings == {Finding.NOT_PAID: 3, Finding.NOT_CHARGED: 1}


async def test_nothing_is_passed_over_however_long_no_process_could_look(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "LOOKED_AT_MAX", 2)
    days = [timedelta(days=day) for day in (30, 20, 10)]
    unpaid = [await office.completed(finished_at=ago(time)) for time in days]
    async with office.replica.database.write() as connection:
        await connection.execute(tables.bookmarks.update().values(moment=ago(timedelta(days=25))))

    # The first of the three was looked at before; the next process begins with the second.
    behind, level = office.reconciler(), office.reconciler()
    told = await told_by(behind)
    reached = await Bookmark(office.replica.database).read()
    await behind.reconcile()

    assert told == {g.generation_id: "NOT_PAID" for g in unpaid[1:]}
    assert reached == unpaid[2].finished_at
    assert behind.latest is not None
    assert abs(behind.latest.ends_checked_until - ago(VISIBLE_AFTER)) < timedelta(minutes=1)
    assert await told_by(level) == {}


async def test_payments_are_checked_although_open_reservations_cannot_be_read(
    office: Office,
) -> None:
    parked, unpaid = await office.reserved(Stage.PARKED), await office.completed()

    class Unlisted(Reservations):
        """The long list takes too long."""

        async def open_before(self, moment: datetime) -> AsyncIterator[Sequence[Reservation]]:
            async for _ in super().open_before(moment):
                raise DeadlineExceeded("", "The time is over.")
            yield []

    reconciler = office.reconciler(reservations=Unlisted(office.stub))
    with listening() as log, pytest.raises(DeadlineExceeded):
        await reconciler.reconcile()

    assert faults(log) == {parked.generation_id: "PARKED", unpaid.generation_id: "NOT_PAID"}
    assert reconciler.latest is None, "half a pass counts nothing"


class Defective(Reservations):
    """Fails to tell of some reservations."""

    def __init__(self, stub: Any, *generations: Generation) -> None:
        super().__init__(stub)
        self.unreadable = {generation.generation_id for generation in generations}

    async def find(self, user_id: str, reservation_id: str) -> Reservation | None:
        if reservation_id in self.unreadable:
            raise ServiceFailed
        return await super().find(user_id, reservation_id)


async def test_a_reservation_that_cannot_be_read_keeps_no_other_from_being_looked_at(
    office: Office,
) -> None:
    times = [SETTLED_LATELY + timedelta(minutes=minutes) for minutes in (2, 1)]
    broken, unpaid = [await office.completed(finished_at=ago(time)) for time in times]
    reservations = Defective(office.stub, broken)
    reconciler = office.reconciler(reservations=reservations)

    first, second = await told_by(reconciler), await told_by(reconciler)
    reached = await Bookmark(office.replica.database).read()
    counted = reconciler.latest
    reservations.unreadable.clear()
    healed = await told_by(reconciler)

    assert first == {broken.generation_id: "UNREADABLE", unpaid.generation_id: "NOT_PAID"}
    assert second == {}
    assert unpaid.finished_at is not None
    assert reached > unpaid.finished_at
    assert counted is not None
    assert counted.findings == {Finding.UNREADABLE: 1, Finding.NOT_PAID: 1}
    assert healed == {broken.generation_id: "NOT_PAID"}


async def test_no_end_is_passed_over_while_the_credits_service_tells_of_none(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "UNREADABLE_MAX", 1)
    unpaid = [await office.completed() for _ in range(3)]
    bookmark = Bookmark(office.replica.database)
    before = await bookmark.read()
    reservations = Defective(office.stub, *unpaid)
    reconciler = office.reconciler(reservations=reservations)

    with pytest.raises(ServiceFailed):
        await reconciler.reconcile()
    reached = await bookmark.read()
    reservations.unreadable.clear()

    assert reached == before
    assert await told_by(reconciler) == {g.generation_id: "NOT_PAID" for g in unpaid}


async def test_a_pass_looks_at_so_many_open_reservations_and_at_ends_before_them(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "LOOKED_AT_MAX", 2)
    unknown = [generation_in(Stage.FAILED) for _ in range(5)]
    for generation in unknown:
        await office.credits.reserve(generation)
    unpaid = await office.completed()
    told_before_open: list[dict[str, str]] = []

    class Last(Reservations):
        """Notes what was told when the open ones are asked for."""

        async def open_before(self, moment: datetime) -> AsyncIterator[Sequence[Reservation]]:
            told_before_open.append(faults(log))
            async for page in super().open_before(moment):
                yield page

    reconciler = office.reconciler(reservations=Last(office.stub))
    passes: list[dict[str, str]] = []
    for _ in range(4):
        with listening() as log:
            await reconciler.reconcile()
        passes.append(faults(log))

    assert told_before_open[0] == {unpaid.generation_id: "NOT_PAID"}
    assert [len(told) for told in passes] == [3, 2, 1, 0]
    told = {key: finding for one in passes for key, finding in one.items()}
    assert told == dict.fromkeys((g.generation_id for g in unknown), "UNMATCHED") | {
        unpaid.generation_id: "NOT_PAID"
    }


async def test_of_more_faults_than_are_remembered_only_the_number_is_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "FAULTS_MAX", 1)
    await office.replica.insert(*(generation_in(Stage.PARKED) for _ in range(4)))
    reconciler = office.reconciler()

    for told in (1, 0):
        with listening() as log:
            await reconciler.reconcile()
        beyond = [e["faults"] for e in log if e["event"] == "more faults than are remembered"]
        assert (len(faults(log)), beyond) == (told, [3])


async def test_a_pass_reads_all_pages(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations_module, "PAGE_SIZE", 2)
    monkeypatch.setattr(history_module, "PAGE_ROWS", 2)
    # Nothing is done about these, so that no page changes while it is read.
    unknown = [generation_in(Stage.FAILED) for _ in range(5)]
    for generation in unknown:
        await office.credits.reserve(generation)
    moment = ago(SETTLED_LATELY)
    unpaid = [await office.completed(finished_at=moment) for _ in range(5)]
    parked = [generation_in(Stage.PARKED, created_at=moment) for _ in range(5)]
    late = [generation_in(Stage.READY, created_at=ago(LONG_AGO)) for _ in range(5)]
    await office.replica.insert(*parked, *late)

    told = await told_by(office.reconciler())

    assert told == {
        g.generation_id: finding
        for found, finding in (
            (unknown, "UNMATCHED"),
            (unpaid, "NOT_PAID"),
            (parked, "PARKED_UNRESERVED"),
            (late, "OVERDUE"),
        )
        for g in found
    }


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
