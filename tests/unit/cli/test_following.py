"""In a pipe, progress is told once for every step."""

from datetime import UTC, datetime, timedelta
from typing import Any

from services.cli.following import progress
from services.client.generations import Eta, Stage, Status
from tests.unit.cli.samples import generation


def test_a_pipe_gets_a_line_for_each_stage_and_each_ten_percent(capsys: Any) -> None:
    running = {"status": Status.PROCESSING, "stage": Stage.RUNNING}

    with progress() as show:
        show(generation(status=Status.QUEUED, stage=Stage.READY, progress_percent=0))
        for percent in (0, 3, 9, 10, 19, 42):
            show(generation(**running, progress_percent=percent))
        show(generation(status=Status.PROCESSING, stage=Stage.UNKNOWN, progress_percent=42))
        show(generation())

    assert capsys.readouterr().out.splitlines() == [
        "  0 %  waiting for its turn",
        "  0 %  making the video",
        " 10 %  making the video",
        " 42 %  making the video",
        " 42 %  processing",
        "100 %  completed",
    ]


def test_what_waits_is_told_with_its_place_and_when_it_will_be_ready(capsys: Any) -> None:
    waiting = {"status": Status.QUEUED, "stage": Stage.READY, "progress_percent": 0}
    now = datetime.now(UTC)
    eta = Eta(now + timedelta(minutes=3, seconds=10), now + timedelta(minutes=5, seconds=10))

    with progress() as show:
        show(generation(**waiting, queue_position=2, eta=eta))
        show(generation(**waiting, queue_position=2, eta=eta))
        show(generation(**waiting, queue_position=1))

    assert capsys.readouterr().out.splitlines() == [
        "  0 %  waiting, place 2, ready in 3 min to 5 min",
        "  0 %  waiting, place 1",
    ]


def test_the_provider_s_queue_is_told_from_ours(capsys: Any) -> None:
    submitted = {"status": Status.PROCESSING, "stage": Stage.RUNNING, "progress_percent": 0}

    with progress() as show:
        show(generation(**submitted, started_at=None))
        show(generation(**submitted))

    assert capsys.readouterr().out.splitlines() == [
        "  0 %  in Replicate's queue",
        "  0 %  making the video",
    ]
