"""What is ordered on a command line, and how it is asked for."""

from dataclasses import dataclass
from pathlib import Path

import typer

from services.client.generations import Generation, GenerationClient, Kind, Quote

__all__ = ["Order", "ask_price", "create", "read_image", "read_kind"]

IMAGE_BYTES_MAX = 10 * 1024 * 1024
TEXT_MODEL, IMAGE_MODEL = "t2v-14B", "i2v-14B"


@dataclass(frozen=True, slots=True)
class Order:
    """A video that somebody wants."""

    user_id: str
    """Who wants it, and pays."""
    kind: Kind | None
    """What to make; None takes what the model makes."""
    model: str
    """A model of the catalog; empty takes the best for what there is to start from."""
    resolution: str
    """Its size."""
    prompt: str
    """What it shows."""
    negative_prompt: str
    """What it shall not show; empty if nothing is said."""
    image_uri: str
    """https address of the image to start from; empty if there is none."""
    image: bytes | None
    """The image itself, to be uploaded; None if there is none."""
    aspect_ratio: str
    """Its shape; empty takes the model's."""
    seed: int | None
    """The seed of the model's randomness; None leaves the choice open."""


def read_kind(text: str) -> Kind | None:
    """Returns the kind that somebody typed, None for nothing."""
    if not text:
        return None
    kind = next((k for k in Kind if k == text.upper().replace("-", "_")), Kind.UNKNOWN)
    if kind is Kind.UNKNOWN:
        raise typer.BadParameter(
            f"{text} is none of text-to-video, image-to-video", param_hint="--kind"
        )
    return kind


def read_image(path: Path | None, image_uri: str) -> bytes | None:
    """Returns the content of an image file, None without one; whether it is one, services judge."""
    if path is None:
        return None
    if image_uri:
        raise typer.BadParameter(
            "and --image-uri are two images: give one of the two", param_hint="--image"
        )
    try:
        if path.stat().st_size > IMAGE_BYTES_MAX:
            raise typer.BadParameter(f"{path} has more than 10 MiB", param_hint="--image")
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--image") from None


async def ask_price(generations: GenerationClient, order: Order) -> Quote:
    """Returns what an order would cost; its image is uploaded for that."""
    model, kind, image_uri = await _prepare(generations, order)
    return await generations.quote(
        order.user_id,
        kind,
        model,
        order.resolution,
        order.prompt,
        negative_prompt=order.negative_prompt,
        image_uri=image_uri,
        aspect_ratio=order.aspect_ratio,
        seed=order.seed,
    )


async def create(generations: GenerationClient, order: Order, generation_id: str) -> Generation:
    """Places an order under an id, by which it can be repeated; its image is uploaded before."""
    model, kind, image_uri = await _prepare(generations, order)
    return await generations.create(
        order.user_id,
        kind,
        model,
        order.resolution,
        order.prompt,
        negative_prompt=order.negative_prompt,
        image_uri=image_uri,
        aspect_ratio=order.aspect_ratio,
        seed=order.seed,
        generation_id=generation_id,
    )


async def _prepare(generations: GenerationClient, order: Order) -> tuple[str, Kind, str]:
    """Returns the model, the kind and the image's address that an order leads to."""
    starts_from_image = order.image is not None or bool(order.image_uri)
    model = order.model or (IMAGE_MODEL if starts_from_image else TEXT_MODEL)
    kind = order.kind
    if kind is None:
        known = await generations.list_models()
        # For a model that there is not, any kind will do: the service says so.
        kind = next((m.kind for m in known if m.model == model), Kind.TEXT_TO_VIDEO)
    if order.image is None:
        return model, kind, order.image_uri
    # The same image gets the same address, so that a repeated order is the same order.
    uploaded = await generations.upload_image(order.user_id, order.image)
    return model, kind, uploaded.image_uri
