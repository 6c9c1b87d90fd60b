"""`reelworks demo` proves the promise to whoever types it."""

import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.running import environment, reelworks

pytestmark = pytest.mark.timeout(300)


def test_the_demonstration_ends_with_right_sums_and_a_video(tmp_path: Path) -> None:
    video = tmp_path / "demo.mp4"

    result = subprocess.run(
        reelworks("demo", "--output", str(video)),
        env=environment(REPLICATE_API_TOKEN="r8_of_somebody_else"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "All sums are right."
    assert "failure: 100 credits available, 0 reserved" in result.stdout
    assert "cancel: 100 credits available, 0 reserved" in result.stdout
    assert "refusal: 5 credits available, 0 reserved" in result.stdout
    assert "video: 90 credits available, 0 reserved" in result.stdout
    assert video.read_bytes()[4:8] == b"ftyp"
    assert list(tmp_path.iterdir()) == [video]
