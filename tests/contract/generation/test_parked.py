"""ListParked and ResumeGeneration."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.generation.events import CreditsContradicted, Refunded
from services.generation.state import Stage as SagaStage
from services.runtime.errors import InvalidRequest, NotFound, PreconditionFailed
from tests.contract.generation.harness import Service, Stage, Status, refusal
from tests.integration.generation.harness import OUTPUT, generation_in, new_id

SINCE = datetime(2026, 7, 1, tzinfo=UTC)


def parked(minute: int = 0, parked_from: SagaStage = SagaStage.COMMITTING, **changes: Any) -> Any:
    return generation_in(
        SagaStage.PARKED,
        parked_from=parked_from,
        park_reason="credits answered ALREADY_REFUNDED",
        stage_since=SINCE + timedelta(minutes=minute),
        output=OUTPUT,
        job_id=new_id(),
        **changes,
    )


async def resume(service: Service, generation_id: str, stage: Any = 0) -> Any:
    return await service.call("ResumeGeneration", generation_id=generation_id, stage=stage)


async def test_what_is_parked_is_listed_of_all_users_oldest_first(service: Service) -> None:
    stuck = [parked(minute, user_id=user) for minute, user in enumerate(["ada", "grace", "ada"])]
    await service.replica.insert(*reversed(stuck), generation_in(SagaStage.RUNNING, job_id="job"))

    first = await service.call("ListParked", page_size=2)
    second = await service.call("ListParked", page_size=2, page_token=first.next_page_token)

    found = [*first.parked, *second.parked]
    assert [one.generation.generation_id for one in found] == [g.generation_id for g in stuck]
    assert found[0].stage == Stage.STAGE_COMMITTING
    assert found[0].park_time.ToDatetime(UTC) == SINCE
    assert found[0].reason == "credits answered ALREADY_REFUNDED"
    assert second.next_page_token == ""
    with pytest.raises(InvalidRequest):
        await service.call("ListParked", page_token="bm9uZQ==")


async def test_it_goes_on_where_it_stopped(service: Service) -> None:
    stuck = parked()
    await service.replica.insert(stuck)

    resumed = await resume(service, stuck.generation_id)
    again = await resume(service, stuck.generation_id)

    assert (resumed.stage, resumed.status) == (Stage.STAGE_COMMITTING, Status.PROCESSING)
    assert again == resumed
    row = await service.replica.now_is(stuck)
    assert (row.parked_from, row.park_reason, row.claims) == (None, None, 0)
    assert row.due_at == row.stage_since


async def test_it_is_refunded_on_demand(service: Service) -> None:
    stuck = parked(parked_from=SagaStage.RUNNING)
    await service.replica.insert(stuck)

    resumed = await resume(service, stuck.generation_id, Stage.STAGE_REFUNDING)
    ended = await service.replica.tell(stuck, Refunded())

    assert resumed.stage == Stage.STAGE_REFUNDING
    assert ended.stage is SagaStage.FAILED
    assert ended.failure is not None


async def test_a_refund_that_meets_a_commit_can_go_on_to_its_video(service: Service) -> None:
    stuck = parked()
    await service.replica.insert(stuck)
    await resume(service, stuck.generation_id, Stage.STAGE_REFUNDING)
    contradicted = await service.replica.tell(stuck, CreditsContradicted("ALREADY_COMMITTED"))

    resumed = await resume(service, stuck.generation_id, Stage.STAGE_COMMITTING)

    assert (contradicted.stage, contradicted.parked_from) == (SagaStage.PARKED, SagaStage.REFUNDING)
    assert resumed.stage == Stage.STAGE_COMMITTING
    assert not resumed.HasField("error")


async def test_what_cannot_be_resumed_is_refused(service: Service) -> None:
    reserving, running = (
        parked(parked_from=SagaStage.RESERVING),
        generation_in(SagaStage.RUNNING, job_id="job"),
    )
    await service.replica.insert(reserving, running)

    not_parked, metadata = await refusal(PreconditionFailed, resume(service, running.generation_id))
    not_possible, possible = await refusal(
        PreconditionFailed, resume(service, reserving.generation_id, Stage.STAGE_REFUNDING)
    )
    unknown, _ = await refusal(NotFound, resume(service, new_id()))
    malformed, _ = await refusal(InvalidRequest, resume(service, running.generation_id, 99))

    assert (not_parked, metadata["stage"]) == ("NOT_PARKED", "STAGE_RUNNING")
    assert (not_possible, possible["possible"]) == ("STAGE_NOT_POSSIBLE", "STAGE_RESERVING")
    assert (unknown, malformed) == ("GENERATION_NOT_FOUND", "INVALID_FIELD")
    assert await service.replica.now_is(reserving) == reserving
