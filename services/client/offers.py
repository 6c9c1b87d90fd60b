"""What the generation service offers: models, prices, and images to start from."""

from dataclasses import dataclass
from datetime import datetime

from reelworks.generation.v1 import generation_pb2

from services.client.history import Eta, Kind, eta_of
from services.client.wire import moment, named

__all__ = [
    "Model",
    "ModelResolution",
    "Quote",
    "UploadedImage",
    "image_of",
    "model_of",
    "quote_of",
]


@dataclass(frozen=True, slots=True)
class ModelResolution:
    """A size of video that a model makes."""

    resolution: str
    """`480p` or `720p`."""
    price_credits: int
    """The price of one video."""
    parameters: tuple[str, ...]
    """Optional parameters that can be set."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for."""

    model: str
    """The id to ask for."""
    display_name: str
    """A name for people."""
    kind: Kind
    """What it makes."""
    resolutions: tuple[ModelResolution, ...]
    """Its sizes of video, cheapest first."""
    prompt_characters_min: int
    """Least number of characters in a prompt."""
    prompt_characters_max: int
    """Greatest number of characters in a prompt."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What a video would cost, and when it would be there."""

    cost_credits: int
    """The price."""
    available_credits: int
    """What the user has available now."""
    available_after_credits: int
    """What would be left; negative by as much as is missing."""
    queue_ahead: int
    """How many generations wait to be submitted before it."""
    eta: Eta | None
    """When the video would be there if it was created now; None if that cannot be said."""
    quote_token: str
    """Holds the price if handed to the create."""
    expires_at: datetime
    """Until when it does."""


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """A stored image to start a video from."""

    image_uri: str
    """To be handed to the create: `upload:` and an id."""
    content_type: str
    """What it is stored as: `image/jpeg`, `image/png` or `image/webp`."""
    size_bytes: int
    """Size of the stored file."""
    width_pixels: int
    """Its width."""
    height_pixels: int
    """Its height."""
    expires_at: datetime
    """When it is removed unless a generation uses it."""


def model_of(message: generation_pb2.Model) -> Model:
    """Returns the model that a message holds."""
    return Model(
        model=message.model,
        display_name=message.display_name,
        kind=named(Kind, generation_pb2.Generation.Kind, message.kind),
        resolutions=tuple(
            ModelResolution(r.resolution, r.price_credits, tuple(r.parameters))
            for r in message.resolutions
        ),
        prompt_characters_min=message.prompt_characters_min,
        prompt_characters_max=message.prompt_characters_max,
    )


def quote_of(message: generation_pb2.QuoteGenerationResponse) -> Quote:
    """Returns the quote that a message holds."""
    return Quote(
        cost_credits=message.cost_credits,
        available_credits=message.available_credits,
        available_after_credits=message.available_after_credits,
        queue_ahead=message.queue_ahead,
        eta=eta_of(message),
        quote_token=message.quote_token,
        expires_at=moment(message.expire_time),
    )


def image_of(message: generation_pb2.UploadImageResponse) -> UploadedImage:
    """Returns the stored image that a message tells of."""
    return UploadedImage(
        image_uri=message.image_uri,
        content_type=message.content_type,
        size_bytes=message.size_bytes,
        width_pixels=message.width_pixels,
        height_pixels=message.height_pixels,
        expires_at=moment(message.expire_time),
    )
