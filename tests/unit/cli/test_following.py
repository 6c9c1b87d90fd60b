"""In a pipe, progress is told once for every step."""

from typing import Any

from services.cli.following import progress
from services.client.generations import Stage, Status
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
