"""Images and videos for tests, made anew each time."""

import io
from pathlib import Path
from typing import Any

import av
from PIL import Image

__all__ = ["make_picture", "make_video"]


def make_picture(
    picture_format: str = "PNG", size: tuple[int, int] = (160, 96), **options: Any
) -> bytes:
    """Returns an image file: its upper left quarter is red, the rest blue."""
    picture = Image.new("RGB", size, "blue")
    picture.paste(Image.new("RGB", (size[0] // 2, size[1] // 2), "red"))
    content = io.BytesIO()
    picture.save(content, picture_format, **options)
    return content.getvalue()


def make_video(file: Path, frames: int = 32, size: tuple[int, int] = (832, 480)) -> bytes:
    """Writes an MP4 of 16 frames a second, and returns its bytes."""
    with av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = Image.new("RGB", size, (number * 7 % 256, 100, 200))
            frame = av.VideoFrame.from_image(picture)  # type: ignore[no-untyped-call]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.read_bytes()
