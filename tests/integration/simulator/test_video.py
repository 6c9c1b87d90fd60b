import hashlib
import io
import struct
from dataclasses import replace
from pathlib import Path

import av
import pytest

from services.simulator.video import VideoOrder, make_video


def order(path: Path, **more: object) -> VideoOrder:
    usual = VideoOrder(
        path=path / "output.mp4",
        prediction_id="a1b2c3d4e5f6g7h8i9j0k1l2m3",
        prompt="a red fox running through fresh snow, cinematic",
        model="wavespeedai/wan-2.1-t2v-480p",
        size=(832, 480),
        frames=81,
        frames_per_second=16,
        seed=42,
    )
    return replace(usual, **more)  # type: ignore[arg-type]


def boxes(content: bytes) -> list[str]:
    """Returns the kinds of the outermost boxes of an mp4 file."""
    kinds, at = [], 0
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        kinds.append(kind.decode())
        at += size
    assert at == len(content)
    return kinds


def made(an_order: VideoOrder) -> bytes:
    make_video(an_order)
    return an_order.path.read_bytes()


@pytest.mark.parametrize("size", [(832, 480), (480, 832), (1280, 720), (720, 1280)])
def test_a_video_is_what_was_ordered(tmp_path: Path, size: tuple[int, int]) -> None:
    content = made(order(tmp_path, size=size))

    with av.open(io.BytesIO(content), "r") as container:
        (stream,) = container.streams
        frames = list(container.decode(video=0))
        assert container.metadata["title"] == "a1b2c3d4e5f6g7h8i9j0k1l2m3"
        assert container.metadata["comment"].startswith("a red fox")
        assert container.duration == 5_062_500
        assert stream.codec_context.name == "h264"
    assert {(frame.width, frame.height, frame.format.name) for frame in frames} == {
        (*size, "yuv420p")
    }
    assert len(frames) == 81
    assert len({hashlib.sha256(bytes(frame.planes[0])).digest() for frame in frames}) == 81
    assert boxes(content).index("moov") < boxes(content).index("mdat")


def test_equal_orders_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    usual = order(tmp_path, frames=5)

    first = made(usual)

    assert made(replace(usual, path=tmp_path / "again.mp4")) == first
    assert made(replace(usual, prediction_id="z" * 26)) != first
    assert made(replace(usual, seed=43)) != first
    assert made(replace(usual, prompt="a blue whale")) != first


def test_frames_and_rate_follow_the_order(tmp_path: Path) -> None:
    content = made(order(tmp_path, frames=24, frames_per_second=24))

    with av.open(io.BytesIO(content), "r") as container:
        assert container.duration == 1_000_000
        assert container.streams.video[0].average_rate == 24


@pytest.mark.parametrize("prompt", ["", "狐狸" * 400, "x" * 5000, "nul \x00 and \n lines"])
def test_any_prompt_can_be_drawn(tmp_path: Path, prompt: str) -> None:
    assert boxes(made(order(tmp_path, frames=2, prompt=prompt)))[0] == "ftyp"


def test_stamps_share_a_drawing_and_differ(tmp_path: Path) -> None:
    usual = order(tmp_path, frames=5, stamp=tmp_path / "stamps")

    first = made(usual)
    second = made(replace(usual, path=tmp_path / "b.mp4", prediction_id="z" * 26))

    assert first != second
    assert boxes(first)[-1] == "free"
    assert first.endswith(f"{usual.prediction_id}\n{usual.prompt}".encode())
    with av.open(io.BytesIO(second), "r") as container:
        assert len(list(container.decode(video=0))) == 5
