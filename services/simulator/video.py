"""Draws videos that can be played and recognized."""

import colorsys
import io
import struct
import textwrap
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

from services.simulator.plan import stream

__all__ = ["UnreadableImage", "VideoOrder", "make_video"]

PAN_PIXELS = 96
"""How far the background moves during a video."""
ZOOM = 1.15
ENCODER = {
    "preset": "ultrafast",
    "crf": "38",
    # Costs little time beside the preset and saves half of the bytes.
    "x264-params": "cabac=1:8x8dct=1:aq-mode=1:deadzone-inter=32",
}
PROMPT_LENGTH_SHOWN = 240

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class UnreadableImage(Exception):
    """The input image is none that can be decoded."""


@dataclass(frozen=True, slots=True)
class VideoOrder:
    """Everything that a video is made from; equal orders give equal bytes."""

    path: Path
    """Where the finished file goes."""
    prediction_id: str
    prompt: str
    model: str
    size: tuple[int, int]
    """Width and height; with an image only their product counts, the shape is the image's."""
    frames: int
    frames_per_second: int
    seed: int
    image: bytes | None = None
    """An encoded picture that the video starts from."""
    stamp: Path | None = None
    """Folder of drawings to copy instead of drawing a video of its own."""


def make_video(order: VideoOrder) -> None:
    """Writes the video of `order`; the file appears whole or not at all."""
    part = order.path.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if order.stamp is not None and order.image is None:
        part.write_bytes(_stamped(order, order.stamp))
    else:
        _draw(order, part)
    part.replace(order.path)


def _stamped(order: VideoOrder, folder: Path) -> bytes:
    """Returns a shared drawing with a `free` box at its end, which makes each copy unique."""
    width, height = order.size
    base = folder / f"{width}x{height}-{order.frames}-{order.frames_per_second}.mp4"
    if not base.exists():
        shared = VideoOrder(
            path=base,
            prediction_id="simulated",
            prompt="simulated",
            model=order.model,
            size=order.size,
            frames=order.frames,
            frames_per_second=order.frames_per_second,
            seed=0,
        )
        make_video(shared)
    mark = f"{order.prediction_id}\n{order.prompt}".encode()
    return base.read_bytes() + struct.pack(">I4s", 8 + len(mark), b"free") + mark


def _draw(order: VideoOrder, path: Path) -> None:
    background = _Picture(order) if order.image is not None else _Gradient(order)
    width, height = background.size
    layers = _layers(order, background.size)
    # In-memory targets cannot be rewritten, so faststart needs a named file.
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata.update({"title": order.prediction_id, "comment": order.prompt})
        video = container.add_stream("libx264", rate=order.frames_per_second, options=ENCODER)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        # One thread: workers share the processor, and the bytes must not depend on its cores.
        video.codec_context.thread_count = 1
        counter_font = ImageFont.load_default(min(width, height) // 22)
        for number in range(order.frames):
            image = background.frame(number / max(1, order.frames - 1))
            for layer, corner in layers:
                image.paste(layer, corner, layer)
            _draw_counter(image, counter_font, number + 1, order.frames)
            # PyAV's own types leave this method out.
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


class _Gradient:
    """A slowly moving field of two colours that follow the seed."""

    def __init__(self, order: VideoOrder) -> None:
        self.size = order.size
        width, height = self.size
        hue = stream(order.seed, "colour").random()
        corners = [
            tuple(int(255 * part) for part in colorsys.hls_to_rgb((hue + turn) % 1, light, 0.55))
            for turn, light in ((0, 0.22), (0.12, 0.38), (0.2, 0.3), (0.32, 0.18))
        ]
        small = Image.new("RGB", (2, 2))
        small.putdata(corners)
        self._field = small.resize((width + PAN_PIXELS, height), Image.Resampling.BICUBIC)

    def frame(self, progress: float) -> Image.Image:
        """Returns the picture at `progress`, 0 to 1."""
        width, height = self.size
        # Whole pairs of pixels move cheaply: chroma is half as wide.
        left = int(progress * PAN_PIXELS) & ~1
        return self._field.crop((left, 0, left + width, height))


class _Picture:
    """The input image, slowly coming nearer."""

    def __init__(self, order: VideoOrder) -> None:
        try:
            with Image.open(io.BytesIO(order.image or b"")) as image:
                picture = image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UnreadableImage(f"Could not read image: {error}") from None
        self.size = _size_like(picture.size, order.size[0] * order.size[1])
        self._picture = picture.resize(self.size, Image.Resampling.LANCZOS)

    def frame(self, progress: float) -> Image.Image:
        """Returns the picture at `progress`, 0 to 1."""
        width, height = self.size
        scale = 1 / (1 + (ZOOM - 1) * progress)
        left, top = width * (1 - scale) / 2, height * (1 - scale) / 2
        return self._picture.resize(
            self.size, Image.Resampling.BILINEAR, (left, top, width - left, height - top)
        )


def _size_like(shape: tuple[int, int], area: int) -> tuple[int, int]:
    """Returns a size of about `area` pixels in the proportions of `shape`, in steps of 16."""
    ratio = max(0.25, min(4.0, shape[0] / shape[1]))
    height = (area / ratio) ** 0.5
    return max(16, round(height * ratio / 16) * 16), max(16, round(height / 16) * 16)


def _layers(order: VideoOrder, size: tuple[int, int]) -> list[tuple[Image.Image, tuple[int, int]]]:
    """Returns what stands still in front, and where: the prompt and what made the video."""
    width, height = size
    margin, short = height // 16, min(size)
    large, small = (ImageFont.load_default(short // part) for part in (13, 28))
    shown = textwrap.shorten(
        order.prompt[: 4 * PROMPT_LENGTH_SHOWN], PROMPT_LENGTH_SHOWN, placeholder=" …"
    )
    columns = max(8, int((width - 2 * margin) / (short // 13 * 0.52)))
    prompt = "\n".join(textwrap.wrap(shown, columns))
    about = f"{order.model}   {width}x{height}   seed {order.seed}"
    simulated, bottom = _text_layer("simulated", small), height - margin * 2
    # Small layers are pasted much faster than one of the full size.
    return [
        (_text_layer(prompt, large), (margin, margin)),
        (_text_layer(about, small), (margin, bottom)),
        (simulated, (width - margin - simulated.width, bottom)),
    ]


def _text_layer(text: str, font: _Font) -> Image.Image:
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    _, _, right, bottom = measure.multiline_textbbox((0, 0), text, font)
    layer = Image.new("RGBA", (int(right) + 1, int(bottom) + 1))
    ImageDraw.Draw(layer).multiline_text((0, 0), text, "white", font)
    return layer


def _draw_counter(image: Image.Image, font: _Font, number: int, frames: int) -> None:
    width, height = image.size
    margin = height // 16
    draw = ImageDraw.Draw(image)
    draw.text(
        (width - margin, height - margin * 3), f"{number}/{frames}", "white", font, anchor="rs"
    )
    draw.rectangle((0, height - 8, width * number // frames, height), "white")
