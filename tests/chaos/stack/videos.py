"""Makes small videos that say whose they are."""

from pathlib import Path

import av

SIDE = 64


def video_of(path: Path, title: str) -> Path:
    """A small video of that title."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w", format="mp4") as container:
        container.metadata.update({"title": title})
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for packet in stream.encode(av.VideoFrame(SIDE, SIDE, "yuv420p")):
            container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
