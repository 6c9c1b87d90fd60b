"""The worker with a real database, a real credits service and the provider's stand-in."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from reelworks.credits.v1 import credits_pb2_grpc

from services.generation import tables
from services.generation.archive import Archive
from services.generation.catalog import load_catalog
from services.generation.claims import Claims
from services.generation.commands import Happen
from services.generation.events import SubmitDeferred, Submitted
from services.generation.history import History
from services.generation.replicate import Replicate
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.state import FailureCode, Generation, Stage, Status
from services.generation.store import Store
from services.generation.submission import Callbacks, Submission
from services.generation.timing import FAST, Timing
from services.generation.worker import Worker
from services.runtime.channel import connect
from services.runtime.database import Database
from services.runtime.errors import Unavailable
from services.runtime.storage import open_storage
from tests.integration.generation.credits_service import CreditsService, running_credits
from tests.integration.generation.harness import (
    OPEN_GATE,
    PRICE,
    PROMPT,
    REQUEST,
    USER,
    Replica,
    beginning,
    eventually,
    opened,
    opened_replica,
)
from tests.integration.generation.simulator_process import TOKEN, Simulator, running_simulator
from tests.serving import free_address

# Calls have time enough for a machine that is busy: what is tested here is no timeout.
TIMING = replace(
    FAST,
    poll_s=0.05,
    credits_call_s=5.0,
    credits_lease_s=10.0,
    provider_call_s=10.0,
    provider_lease_s=25.0,
    archive_call_s=10.0,
    archive_lease_s=15.0,
    send_before_s=10.0,
)
LIMIT_S = 30.0
RESERVATION = ("RESERVATION", -PRICE)

# One simulator serves all tests of this module.
pytestmark = pytest.mark.xdist_group("generation_worker")


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with running_simulator(speed=200.0) as simulator:
        yield simulator


@pytest.fixture
async def simulator(provider: Simulator) -> Simulator:
    """The provider without a past."""
    await provider.reset()
    return provider


@pytest.fixture
async def credits_service(
    tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[CreditsService]:
    async with running_credits(tmp_path, templates) as service:
        await service.open(USER)
        yield service


@dataclass
class House:
    """What outlives the processes of the generation service."""

    url: str
    credits: CreditsService
    simulator: Simulator
    storage: Path

    @contextlib.asynccontextmanager
    async def replica(self, timing: Timing = TIMING) -> AsyncIterator[Replica]:
        """A process that works until the block ends."""
        async with (
            opened(self.url) as database,
            connect(self.credits.address, CREDITS_DEADLINES_S) as channel,
        ):
            settlement = Settlement(credits_pb2_grpc.CreditsServiceStub(channel))
            async with self._working(database, settlement, timing) as replica:
                yield replica

    @contextlib.asynccontextmanager
    async def dead_replica(self, timing: Timing = TIMING) -> AsyncIterator[Replica]:
        """A process that writes rows and does nothing of what they ask for."""
        async with (
            opened(self.url) as database,
            opened_replica(database, timing) as replica,
        ):
            yield replica

    @contextlib.asynccontextmanager
    async def _working(
        self, database: Database, settlement: Settlement, timing: Timing
    ) -> AsyncIterator[Replica]:
        stopping = asyncio.Event()
        changes: list[Generation] = []

        def changed(generation: Generation) -> None:
            changes.append(generation)
            worker.wake()

        storage = open_storage(f"file://{self.storage}")
        provider = Replicate(TOKEN, self.simulator.api, timing.provider_call_s)
        archive = Archive(storage, TOKEN, [self.simulator.delivery], timing.archive_call_s)
        store = Store(database, timing, changed)
        claims = Claims(database, timing, OPEN_GATE)
        # Without a webhook address there is only polling.
        callbacks = Callbacks(None, b"k" * 32, "test")
        submission = Submission(provider, load_catalog(), callbacks, claims.pause_creates)
        worker = Worker(
            store, claims, settlement, submission, provider, archive, timing, stopping, grace_s=2.0
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(store.writer.run())
                working = tasks.create_task(worker.run())
                try:
                    yield Replica(database, store, claims, History(database), changes)
                finally:
                    stopping.set()
                    await asyncio.wait([working])
                    store.writer.close()
        finally:
            await provider.close()
            await archive.close()
            storage.close()

    async def statement(self, generation: Generation) -> list[tuple[str, int]]:
        return await self.credits.moves(generation.user_id, generation.generation_id)


@pytest.fixture
def house(url: str, credits_service: CreditsService, simulator: Simulator, tmp_path: Path) -> House:
    return House(url, credits_service, simulator, tmp_path / "videos")


async def reaches(replica: Replica, generation: Generation, *stages: Stage) -> Generation:
    async def reached() -> Generation | None:
        now = await replica.now_is(generation)
        assert now.stage in stages or not now.stage.is_final, now
        return now if now.stage in stages else None

    return await eventually(reached, LIMIT_S)


async def test_a_video_is_made_stored_and_paid_by_polling_alone(house: House) -> None:
    async with house.replica() as replica:
        # It is begun as by a caller that died: nothing but the row says that there is work.
        begun = await replica.begun()
        await replica.make_due(begun)

        done = await reaches(replica, begun, Stage.COMPLETED)

        assert (done.status, done.charged_credits, done.attempt) == (Status.COMPLETED, PRICE, 1)
        (prediction,) = await house.simulator.predictions()
        assert done.job_id == prediction["id"]
        assert done.output is not None
        video = (house.storage / done.output.key).read_bytes()
        assert (len(video), video[4:8]) == (done.output.size_bytes, b"ftyp")
        assert await house.statement(done) == [RESERVATION, ("DEDUCTION", 0)]
        assert await house.credits.balance(USER) == (90, 0)
        (attempt,) = await replica.rows(tables.attempts)
        assert (attempt["state"], attempt["http_status"]) == ("CREATED", 201)
        assert f'"prompt": "{PROMPT}"' in attempt["input"]
        stages = [row["to_stage"] for row in await replica.rows(tables.transitions)]
        assert stages == ["READY", "SUBMITTING", "RUNNING", "ARCHIVING", "COMMITTING", "COMPLETED"]
        percents = [change.progress_percent for change in replica.changes]
        assert percents == sorted(percents)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_failed_prediction_is_refunded(house: House) -> None:
    async with house.replica() as replica:
        request = replace(REQUEST, prompt=f"{PROMPT} [fail]")
        begun = await replica.begun(beginning(request=request))
        await replica.make_due(begun)

        failed = await reaches(replica, begun, Stage.FAILED)

        assert failed.failure is not None
        assert failed.failure.code is FailureCode.MODEL_FAILED
        assert (failed.charged_credits, failed.output) == (0, None)
        assert await house.statement(failed) == [RESERVATION, ("REFUND", PRICE)]
        assert await house.credits.balance(USER) == (100, 0)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_new_worker_goes_on_where_another_was_stopped(house: House) -> None:
    async with house.replica() as replica:
        begun = await replica.begun(beginning(request=replace(REQUEST, prompt=f"{PROMPT} [slow]")))
        await replica.make_due(begun)
        await reaches(replica, begun, Stage.RUNNING)

    async with house.replica() as replica:
        done = await reaches(replica, begun, Stage.COMPLETED)

    assert await house.simulator.creates() == 1
    assert await house.statement(done) == [RESERVATION, ("DEDUCTION", 0)]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_what_a_dead_process_may_have_submitted_is_never_submitted_again(
    house: House,
) -> None:
    timing = replace(TIMING, deadline_s=1.5, submit_margin_s=0.0, provider_lease_s=0.2)
    async with house.dead_replica(timing) as dead:
        submitting = await dead.submitting()
        await house.credits.reserve(submitting)

    async with house.replica(timing) as replica:
        failed = await reaches(replica, submitting, Stage.FAILED)

        assert failed.failure is not None
        assert failed.failure.code is FailureCode.SUBMIT_UNCERTAIN
        assert failed.finished_at is not None
        assert timedelta() <= failed.finished_at - failed.deadline_at < timedelta(seconds=2)
        assert await house.simulator.creates() == 0
        assert await house.statement(failed) == [RESERVATION, ("REFUND", PRICE)]
        (attempt,) = await replica.rows(tables.attempts)
        assert (attempt["attempt"], attempt["state"]) == (1, "OPEN")


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_prediction_that_does_not_end_is_canceled_at_the_deadline_and_refunded(
    house: House,
) -> None:
    timing = replace(TIMING, deadline_s=3.0, submit_margin_s=0.5)
    async with house.replica(timing) as replica:
        request = replace(REQUEST, prompt=f"{PROMPT} [stuck]")
        begun = await replica.begun(beginning(request=request))
        await replica.make_due(begun)

        failed = await reaches(replica, begun, Stage.FAILED)

        assert failed.failure is not None
        assert failed.failure.code is FailureCode.MODEL_TIMED_OUT
        (prediction,) = await house.simulator.predictions()
        assert prediction["status"] == "canceled"
        assert await house.statement(failed) == [RESERVATION, ("REFUND", PRICE)]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_while_credits_is_away_the_commit_is_repeated_and_charges_once(house: House) -> None:
    async with house.dead_replica() as dead:
        ready = await dead.ready()
        await house.credits.reserve(ready)
    await house.credits.stop()

    async with house.replica() as replica:
        await reaches(replica, ready, Stage.COMMITTING)

        async def has_failed_twice() -> bool:
            return (await replica.now_is(ready)).failures >= 2

        await eventually(has_failed_twice, LIMIT_S)
        stuck = await replica.now_is(ready)
        await house.credits.start()
        done = await reaches(replica, ready, Stage.COMPLETED)

    assert (stuck.stage, stuck.charged_credits) == (Stage.COMMITTING, 0)
    assert done.charged_credits == PRICE
    assert await house.statement(done) == [RESERVATION, ("DEDUCTION", 0)]
    assert await house.credits.balance(USER) == (90, 0)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_the_outcome_of_a_create_is_kept_while_the_database_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen = Store.happen
    lost: list[Happen] = []

    async def lose_twice(self: Store, command: Happen) -> Generation:
        if isinstance(command.event, Submitted) and len(lost) < 2:
            lost.append(command)
            raise Unavailable("DATABASE_UNAVAILABLE", "The database cannot be reached.")
        return await happen(self, command)

    monkeypatch.setattr(Store, "happen", lose_twice)
    async with house.replica() as replica:
        begun = await replica.begun()
        await replica.make_due(begun)
        done = await reaches(replica, begun, Stage.COMPLETED)

    assert len(lost) == 2
    assert (done.stage, done.attempt) == (Stage.COMPLETED, 1)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_what_was_not_sent_is_known_although_the_gate_cannot_be_closed(
    house: House,
) -> None:
    async def fail(seconds: float, why: str) -> None:
        raise Unavailable("DATABASE_UNAVAILABLE", f"{seconds} {why}")

    async with house.dead_replica() as replica:
        generation = await replica.submitting()
    provider = Replicate(TOKEN, f"http://{free_address()}", call_s=1.0)
    submission = Submission(provider, load_catalog(), Callbacks(None, b"k" * 32, "test"), fail)
    try:
        event, record = await submission.submit(
            generation,
            submission.prepare(generation),
            generation.stage_since,
            send_before=time.monotonic() + 5,
        )
    finally:
        await provider.close()

    assert event == SubmitDeferred(1)
    assert record.state == "NOT_SENT"
