"""GetStats."""

from datetime import UTC, datetime, timedelta

import pytest

from services.generation.state import Failure, FailureCode
from services.generation.state import Stage as Stages
from tests.contract.generation.harness import COMPARED, Service, Stage, Status
from tests.integration.generation.harness import OUTPUT, generation_in


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_operators_are_told_how_the_service_is_doing(service: Service) -> None:
    now = datetime.now(UTC)
    since = now - timedelta(minutes=3)
    await service.replica.insert(
        generation_in(Stages.READY, stage_since=since, user_id="bob"),
        generation_in(
            Stages.COMPLETED,
            created_at=now - timedelta(seconds=90),
            finished_at=now - timedelta(seconds=30),
            output=OUTPUT,
        ),
        generation_in(
            Stages.FAILED, failure=Failure(FailureCode.MODEL_FAILED, "The model failed.")
        ),
    )

    stats = await service.call("GetStats")

    [ready] = stats.stages
    assert (ready.stage, ready.generations) == (Stage.STAGE_READY, 1)
    assert ready.oldest_time.ToDatetime(UTC) == since
    assert [(end.status, end.code, end.generations) for end in stats.ends] == [
        (Status.COMPLETED, 0, 1),
        (Status.FAILED, 5, 1),
    ]
    assert stats.success_ratio == 0.5
    assert stats.completion_p50.ToTimedelta() == timedelta(seconds=60)
    assert stats.completion_p90.ToTimedelta() == timedelta(seconds=60)
    assert stats.unsettled_credits == 10
    assert not stats.HasField("creates_paused_until")
    assert [(one.kind, one.generations) for one in stats.findings] == [("CHARGED_WITHOUT_VIDEO", 2)]
    assert stats.compare_time.ToDatetime(UTC) == COMPARED.reconciled_at


async def test_what_was_not_measured_is_unset(service: Service) -> None:
    stats = await service.call("GetStats")

    assert (list(stats.stages), list(stats.ends)) == ([], [])
    for name in ("success_ratio", "completion_p50", "completion_p90"):
        assert not stats.HasField(name)
    assert (stats.live_orphans, stats.orphans, stats.creates_paused_why) == (0, 0, "")
