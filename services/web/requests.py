"""What the API is asked: bodies and queries, with the bounds that hold whatever the catalog says.

What a model accepts, the generation service knows, and says in its own words.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.web.resources import EXAMPLE_ID

__all__ = [
    "CreateBody",
    "DeleteBody",
    "GenerationQuery",
    "ImageToVideoBody",
    "QuoteBody",
    "RetryBody",
    "TransactionQuery",
]

TEXT_CHARACTERS_MAX = 2000
"""Room for the white space around a prompt."""
WORD_CHARACTERS_MAX = 64
URI_CHARACTERS_MAX = 2048
TOKEN_CHARACTERS_MAX = 512
QUERY_CHARACTERS_MAX = 100
SEED_MAX = 2**31 - 1
DELETED_MAX = 100
PAGE_SIZE_MAX = 100
VERSION_MAX = 2**62

Word = Annotated[str, Field(min_length=1, max_length=WORD_CHARACTERS_MAX)]
GenerationId = Annotated[
    str, Field(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", examples=[EXAMPLE_ID])
]
PageToken = Annotated[str, Field(max_length=TOKEN_CHARACTERS_MAX)]
Kind = Literal["TEXT_TO_VIDEO", "IMAGE_TO_VIDEO"]
Prompt = Annotated[
    str,
    Field(
        min_length=1,
        max_length=TEXT_CHARACTERS_MAX,
        examples=["A red fox runs through fresh snow"],
    ),
]


class _Body(BaseModel):
    # Numbers are numbers, and a field that is not known is refused.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )


class _Wish(_Body):
    prompt: Prompt
    """What the video shows: 10 to 500 characters without the white space around it, or whatever
    `GET /api/models` says."""
    model: Annotated[Word, Field(examples=["t2v-14B"])]
    """A model of `GET /api/models`."""
    resolution: Annotated[Word, Field(examples=["720p"])]
    """A resolution of that model."""
    negative_prompt: Annotated[str, Field(max_length=TEXT_CHARACTERS_MAX)] = ""
    """What the video shall not show: at most 500 characters."""
    aspect_ratio: Annotated[
        str, Field(max_length=WORD_CHARACTERS_MAX, examples=["16:9", "9:16"])
    ] = ""
    """`16:9` or `9:16`; empty takes the model's default."""
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] | None = None
    """The seed of the model's randomness; left out, one is drawn."""


class CreateBody(_Wish):
    """Asks for a video from a prompt."""

    quote_token: PageToken = ""
    """What a quote for the same model and resolution answered: its price holds."""


class ImageToVideoBody(CreateBody):
    """Asks for a video from a prompt and an image."""

    image_uri: Annotated[
        str,
        Field(min_length=1, max_length=URI_CHARACTERS_MAX, examples=[f"upload:{EXAMPLE_ID}"]),
    ]
    """What an upload answered, or an https address, which is handed to the provider."""


class QuoteBody(_Wish):
    """Asks what a video would cost."""

    kind: Kind
    """What to make."""
    image_uri: Annotated[
        str, Field(max_length=URI_CHARACTERS_MAX, examples=["", f"upload:{EXAMPLE_ID}"])
    ] = ""
    """The image to start from, for image to video only."""


class DeleteBody(_Body):
    """Asks to delete generations."""

    generation_ids: Annotated[list[GenerationId], Field(min_length=1, max_length=DELETED_MAX)]
    """Which."""


class RetryBody(_Body):
    """Says how to make a generation again."""

    keep_seed: bool = False
    """Whether to take the seed that it last ran with; else one that was not chosen is drawn anew.
    """


class _Query(BaseModel):
    # Not strict: what stands in an address is text.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class GenerationQuery(_Query):
    """Says which part of a history is wanted."""

    status: Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELED"] | None = None
    """Only those of this status."""
    kind: Kind | None = None
    """Only those of this kind."""
    q: Annotated[str, Field(max_length=QUERY_CHARACTERS_MAX)] = ""
    """Only those whose prompt contains this."""
    page_size: Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)] = 24
    """How many at the most."""
    page_token: PageToken = ""
    """The `next_page_token` of the page before, asked for with the same filter."""


class TransactionQuery(_Query):
    """Says which part of a statement is wanted, and how it is written."""

    format: Literal["json", "csv"] = "json"
    """`json`: a page; `csv`: all of it as a file, without pages."""
    page_size: Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX)] | None = None
    """How many at the most; left out, 24."""
    page_token: PageToken = ""
    """The `next_page_token` of the page before, asked for with the same `after_version`."""
    after_version: Annotated[int, Field(ge=0, le=VERSION_MAX)] = 0
    """Only those with a greater version: what came since."""
