"""Looks into video files: whether they are any, how long they run, and what they show."""

import io
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

__all__ = ["BrokenVideo", "Video", "inspect_video"]

THUMBNAIL_WIDTH_PIXELS_MAX = 480
FRAME_PIXELS_MAX = 4096 * 2304
"""Of a frame that is decoded; the largest model makes 1280 by 720."""
PACKETS_MAX = 64
"""How many are read in search of the first frame."""
JPEG_QUALITY = 80
BOX_HEAD_BYTES = 8
SECONDS_MAX = 24 * 3600.0


class BrokenVideo(Exception):
    """A file that is no video, or is damaged so that it cannot be opened."""


@dataclass(frozen=True, slots=True)
class Video:
    """What a video file holds."""

    seconds: float | None
    """How long it runs; None if it does not say."""
    thumbnail: bytes | None
    """Its first frame as a JPEG of at most 480 pixels' width; None if that cannot be had."""


def inspect_video(file: Path) -> Video:
    """Returns what the MP4 `file` holds; raises BrokenVideo.

    Reads its tables and its first frame, whatever its size.
    """
    _check_boxes(file)
    try:
        # No other demuxer than that of MP4 sees the file.
        with av.open(str(file), format="mp4") as container:
            if not container.streams.video:
                raise BrokenVideo("there are no pictures in it")
            stream = container.streams.video[0]
            return Video(_seconds(container, stream), _thumbnail(container, stream))
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise BrokenVideo(str(error).partition(":")[0]) from error


def _check_boxes(file: Path) -> None:
    """Raises BrokenVideo if the file ends within one of the boxes that an MP4 is a row of.

    FFmpeg would show what there is of it. ISO/IEC 14496-12, section 4.2.
    """
    size_bytes, place = file.stat().st_size, 0
    with file.open("rb") as content:
        while place < size_bytes:
            content.seek(place)
            head = content.read(16)
            length = int.from_bytes(head[:4])
            if length == 1:  # The length is a large one, and stands behind the name.
                length = int.from_bytes(head[8:16])
            elif length == 0:  # The last box goes on to the end.
                return
            if length < BOX_HEAD_BYTES or place + length > size_bytes:
                raise BrokenVideo("it ends too early")
            place += length


def _seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    else:
        return None
    return round(seconds, 3) if 0 < seconds < SECONDS_MAX else None


def _thumbnail(container: InputContainer, stream: VideoStream) -> bytes | None:
    """Returns the first frame, made small; a video without one is one all the same."""
    if stream.width * stream.height > FRAME_PIXELS_MAX:
        return None
    # A process has several of these under way; one frame is not worth threads of its own.
    stream.thread_type = "NONE"
    try:
        packets = islice(container.demux(stream), PACKETS_MAX)
        frame = next(frame for packet in packets for frame in packet.decode())
        width = min(frame.width, THUMBNAIL_WIDTH_PIXELS_MAX)
        height = max(1, round(frame.height * width / frame.width))
        small = frame.reformat(width=width, height=height, format="rgb24").to_image()  # type: ignore[no-untyped-call]
        encoded = io.BytesIO()
        small.save(encoded, "JPEG", quality=JPEG_QUALITY)
    except (av.FFmpegError, StopIteration, ValueError, OSError):
        return None
    return encoded.getvalue()
