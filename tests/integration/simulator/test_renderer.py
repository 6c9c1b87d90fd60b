import asyncio
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from services.simulator.renderer import Renderer
from services.simulator.video import UnreadableImage, VideoOrder


def order(path: Path, image: bytes | None = None) -> VideoOrder:
    return VideoOrder(path, "a" * 26, "a lake", "owner/name", (480, 832), 5, 16, 1, image)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    others = set(multiprocessing.active_children())
    with Renderer() as renderer:
        await renderer.make(order(tmp_path / "before.mp4"))
        for worker in set(multiprocessing.active_children()) - others:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)

        await asyncio.gather(
            *(renderer.make(order(tmp_path / f"after{number}.mp4")) for number in range(3))
        )

    contents = files(tmp_path)
    assert set(contents) == {"before.mp4", "after0.mp4", "after1.mp4", "after2.mp4"}
    assert len(set(contents.values())) == 1


async def test_an_unreadable_image_is_told_across_processes(
    renderer: Renderer, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableImage, match="Could not read image"):
        await renderer.make(order(tmp_path / "output.mp4", image=b"no picture"))

    assert files(tmp_path) == {}
