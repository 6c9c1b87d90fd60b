"""Whose images are judged when, and what ends the judging."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.generation import judging as judging_module
from services.generation.images import ImageFormat, NotAccepted, StillImage
from services.generation.judging import Judging
from services.runtime.errors import Overloaded
from tests.integration.generation.harness import eventually
from tests.pictures import make_picture
from tests.stuck_judge import is_alive, judge_is_stuck

PICTURE = make_picture("PNG")


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    return judge_is_stuck(tmp_path, monkeypatch)


async def test_nobody_takes_all_places() -> None:
    judging = Judging()

    *own, refused, other = await asyncio.gather(
        *(judging.judge(user, PICTURE) for user in ("ada", "ada", "ada", "eve")),
        return_exceptions=True,
    )
    again = await judging.judge("ada", PICTURE)

    for image in (*own, other, again):
        assert isinstance(image, StillImage)
        assert (image.format, image.width_pixels, image.height_pixels) == (ImageFormat.PNG, 160, 96)
        assert image.content.startswith(b"\x89PNG")
    assert isinstance(refused, Overloaded)
    assert refused.retry_after_s > 0
    assert not judging._waiting


async def test_too_many_images_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging_module, "WAITING_MAX", 2)
    judging = Judging()

    outcomes = await asyncio.gather(
        *(judging.judge(f"user{n}", PICTURE) for n in range(3)), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [StillImage, StillImage, Overloaded]


async def test_what_is_no_image_is_refused_with_its_rule() -> None:
    with pytest.raises(NotAccepted, match="must be a JPEG, PNG or WebP image"):
        await Judging().judge("ada", b"GIF89a")


async def test_a_judge_that_crashes_takes_nobody_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    judging = Judging()
    with monkeypatch.context() as broken:
        broken.setattr(judging_module, "_COMMAND", (sys.executable, "-c", "import os; os.abort()"))
        with pytest.raises(NotAccepted, match="that can be read"):
            await judging.judge("ada", PICTURE)

    assert isinstance(await judging.judge("ada", PICTURE), StillImage)


async def test_an_image_that_takes_too_long_is_given_up(
    begun: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging_module, "JUDGED_S", 2.0)

    with pytest.raises(NotAccepted, match="takes too long"):
        await Judging().judge("ada", PICTURE)

    assert [process for process in begun() if is_alive(process)] == []


async def test_whoever_leaves_ends_the_judging_or_the_waiting_for_it(
    begun: Callable[[], list[int]],
) -> None:
    judging = Judging()
    first, second, third = (
        asyncio.create_task(judging.judge(user, PICTURE)) for user in ("ada", "ada", "eve")
    )
    await eventually(lambda: answered(begun()))

    second.cancel()
    first.cancel()
    await asyncio.wait([first, second])
    await eventually(lambda: answered(len(begun()) > 1))

    (ended, alive) = begun()
    assert (is_alive(ended), is_alive(alive)) == (False, True)
    third.cancel()
    await asyncio.wait([third])
    assert len(begun()) == 2
    assert not is_alive(alive)


async def answered(found: object) -> bool:
    return bool(found)
