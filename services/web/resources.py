"""What the API answers, as its callers see it: of the services' answers what concerns a user."""

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from services.client import history, ledger, offers

__all__ = [
    "Balance",
    "DeletedGenerations",
    "Eta",
    "Generation",
    "GenerationFailure",
    "GenerationPage",
    "Image",
    "ImageRules",
    "Model",
    "ModelResolution",
    "Models",
    "Quote",
    "Resource",
    "Transaction",
    "TransactionPage",
]

EXAMPLE_ID = "0198c7a4-5e1e-7c11-8d2f-6a1f0c3b9e55"
EXAMPLE_TIME = "2026-07-01T12:00:00Z"


def _in_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


Moment = Annotated[
    datetime,
    PlainSerializer(_in_utc, return_type=str),
    Field(
        json_schema_extra={"type": "string", "format": "date-time", "examples": [EXAMPLE_TIME]},
    ),
]
"""A time in UTC, as RFC 3339 has it, with Z."""


class Resource(BaseModel):
    """What an answer consists of: every field is always there, null if there is nothing to say."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class GenerationFailure(Resource):
    """Why there is no video."""

    code: history.GenerationErrorCode
    """The kind of failure, for programs."""
    message: str
    """A sentence for people."""

    @classmethod
    def of(cls, error: history.GenerationError | None) -> Self | None:
        """Returns the resource of an error."""
        return None if error is None else cls(code=error.code, message=error.message)


class Eta(Resource):
    """When something will be done, going by how long the like took lately."""

    likely_time: Moment
    """Half of the like took less."""
    latest_time: Moment
    """Nine of ten took less."""

    @classmethod
    def of(cls, eta: history.Eta | None) -> Self | None:
        """Returns the resource of an ETA."""
        return None if eta is None else cls(likely_time=eta.likely_at, latest_time=eta.latest_at)


class Generation(Resource):
    """A video being made, or made."""

    generation_id: Annotated[str, Field(examples=[EXAMPLE_ID])]
    """Its id: a UUID."""
    kind: history.Kind
    """What it makes."""
    model: Annotated[str, Field(examples=["t2v-14B"])]
    """The model that was asked for."""
    resolution: Annotated[str, Field(examples=["720p"])]
    """The size of the video."""
    prompt: Annotated[str, Field(examples=["A red fox runs through fresh snow"])]
    """What the video shows."""
    negative_prompt: str
    """What the video shall not show; empty if nothing was said."""
    image_uri: str
    """The image that it starts from; empty for text to video."""
    aspect_ratio: Annotated[str, Field(examples=["16:9"])]
    """Empty if the model's default was taken."""
    seed: int | None
    """The seed that was asked for; null if it was left open."""
    status: history.Status
    """How far it is; it is COMPLETED, FAILED or CANCELED only when the money is settled."""
    stage: history.Stage
    """What is being done about it, finer than the status."""
    progress_percent: Annotated[int, Field(ge=0, le=100)]
    """How far the model is; 100 only when COMPLETED."""
    error: GenerationFailure | None
    """Why there is no video; null unless it FAILED or was CANCELED."""
    cost_credits: Annotated[int, Field(examples=[20])]
    """The price, fixed when it was created."""
    charged_credits: int
    """What was charged: 0 until COMPLETED, or what a cancel did not give back."""
    attempt: int
    """How often it was submitted."""
    video_uri: str
    """Where the video can be had for the next hour; empty until COMPLETED. Get the generation again
    for an address that works longer."""
    thumbnail_uri: str
    """Where a still of the video can be had; empty if there is none."""
    video_seconds: float | None
    """How long the video runs; null until it is stored."""
    queue_position: int | None
    """Its place among those that wait here, from 1 on; null if it does not wait here."""
    eta: Eta | None
    """When the video will be there; null if that cannot be said, or no longer matters."""
    retry_of: str
    """The generation that this one makes again; empty if none."""
    cancel_refund_credits: int | None
    """What a cancel now gives back; null if it cannot be canceled any more."""
    create_time: Moment
    """When it was created."""
    submit_time: Moment | None
    """When the provider had it; null until then."""
    start_time: Moment | None
    """When the model began to work; null until known."""
    finish_time: Moment | None
    """When it ended; null until then."""
    update_time: Moment
    """When it last changed visibly."""
    delete_time: Moment | None
    """When it was deleted from the history; null if it was not."""
    media_remove_time: Moment | None
    """When its video was removed from storage; null if it was not."""
    version: int
    """Counts its visible changes: of two answers the one with the greater version is the newer."""

    @classmethod
    def of(cls, generation: history.Generation) -> Self:
        """Returns the resource of a generation."""
        return cls(
            generation_id=generation.generation_id,
            kind=generation.kind,
            model=generation.model,
            resolution=generation.resolution,
            prompt=generation.prompt,
            negative_prompt=generation.negative_prompt,
            image_uri=generation.image_uri,
            aspect_ratio=generation.aspect_ratio,
            seed=generation.seed,
            status=generation.status,
            stage=generation.stage,
            progress_percent=generation.progress_percent,
            error=GenerationFailure.of(generation.error),
            cost_credits=generation.cost_credits,
            charged_credits=generation.charged_credits,
            attempt=generation.attempt,
            video_uri=generation.video_uri,
            thumbnail_uri=generation.thumbnail_uri,
            video_seconds=generation.video_seconds,
            queue_position=generation.queue_position,
            eta=Eta.of(generation.eta),
            retry_of=generation.retry_of,
            cancel_refund_credits=generation.cancel_refund_credits,
            create_time=generation.created_at,
            submit_time=generation.submitted_at,
            start_time=generation.started_at,
            finish_time=generation.finished_at,
            update_time=generation.updated_at,
            delete_time=generation.deleted_at,
            media_remove_time=generation.media_removed_at,
            version=generation.version,
        )


class GenerationPage(Resource):
    """A part of a history, newest first."""

    generations: list[Generation]
    """The generations of this page, which may be fewer than asked for."""
    next_page_token: str
    """Asks for the next page, with the same filter; empty at the end."""

    @classmethod
    def of(cls, page: history.GenerationPage) -> Self:
        """Returns the resource of a page."""
        return cls(
            generations=[Generation.of(generation) for generation in page.generations],
            next_page_token=page.next_page_token,
        )


class DeletedGenerations(Resource):
    """What became of a wish to delete generations."""

    deleted_ids: list[str]
    """Those that are deleted now, or were before."""
    unfinished_ids: list[str]
    """Those that have not ended, and so stay: cancel them first."""
    unknown_ids: list[str]
    """Those that the caller does not have."""

    @classmethod
    def of(cls, deleted: history.DeletedGenerations) -> Self:
        """Returns the resource of what was deleted."""
        return cls(
            deleted_ids=list(deleted.deleted_ids),
            unfinished_ids=list(deleted.unfinished_ids),
            unknown_ids=list(deleted.unknown_ids),
        )


class Quote(Resource):
    """What a video would cost, and when it would be there."""

    cost_credits: Annotated[int, Field(examples=[20])]
    """The price."""
    available_credits: int
    """What the caller has available now."""
    available_after_credits: int
    """What would be left; negative by as much as is missing."""
    queue_ahead: int
    """How many generations wait before it."""
    eta: Eta | None
    """When the video would be there if it was created now; null if that cannot be said."""
    quote_token: str
    """Holds the price for five minutes if handed to the create."""
    expire_time: Moment
    """Until when it does."""

    @classmethod
    def of(cls, quote: offers.Quote) -> Self:
        """Returns the resource of a quote."""
        return cls(
            cost_credits=quote.cost_credits,
            available_credits=quote.available_credits,
            available_after_credits=quote.available_after_credits,
            queue_ahead=quote.queue_ahead,
            eta=Eta.of(quote.eta),
            quote_token=quote.quote_token,
            expire_time=quote.expires_at,
        )


class ModelResolution(Resource):
    """A size of video that a model makes."""

    resolution: Annotated[str, Field(examples=["720p"])]
    """What to ask for."""
    price_credits: Annotated[int, Field(examples=[20])]
    """The price of one video."""
    parameters: Annotated[list[str], Field(examples=[["negative_prompt", "aspect_ratio", "seed"]])]
    """Optional parameters that can be set."""


class Model(Resource):
    """A model that can be asked for."""

    model: Annotated[str, Field(examples=["t2v-14B"])]
    """What to ask for."""
    display_name: str
    """A name for people."""
    kind: history.Kind
    """What it makes."""
    prompt_characters_min: int
    """Least number of characters in a prompt, without white space around it."""
    prompt_characters_max: int
    """Greatest number of them."""
    resolutions: list[ModelResolution]
    """Its sizes of video, cheapest first."""

    @classmethod
    def of(cls, model: offers.Model) -> Self:
        """Returns the resource of a model."""
        return cls(
            model=model.model,
            display_name=model.display_name,
            kind=model.kind,
            prompt_characters_min=model.prompt_characters_min,
            prompt_characters_max=model.prompt_characters_max,
            resolutions=[
                ModelResolution(
                    resolution=one.resolution,
                    price_credits=one.price_credits,
                    parameters=list(one.parameters),
                )
                for one in model.resolutions
            ],
        )


class ImageRules(Resource):
    """Which images can be uploaded."""

    size_bytes_max: int
    """The size of the largest file."""
    content_types: list[str]
    """What it may be, judged by its content."""


class Models(Resource):
    """What can be asked for."""

    models: list[Model]
    """In the order in which to offer them."""
    image: ImageRules
    """Which images a video can start from."""


class Image(Resource):
    """A stored image to start videos from."""

    image_uri: Annotated[str, Field(examples=[f"upload:{EXAMPLE_ID}"])]
    """To be handed to the create."""
    content_type: Annotated[str, Field(examples=["image/jpeg"])]
    """What it is stored as."""
    size_bytes: int
    """Size of the stored file."""
    width_pixels: int
    """Its width."""
    height_pixels: int
    """Its height."""
    expire_time: Moment
    """When it is removed unless a generation uses it."""

    @classmethod
    def of(cls, image: offers.UploadedImage) -> Self:
        """Returns the resource of an image."""
        return cls(
            image_uri=image.image_uri,
            content_type=image.content_type,
            size_bytes=image.size_bytes,
            width_pixels=image.width_pixels,
            height_pixels=image.height_pixels,
            expire_time=image.expires_at,
        )


class Balance(Resource):
    """What the caller has."""

    available_credits: int
    """Credits that can be spent now."""
    reserved_credits: int
    """Credits set aside for generations that have not ended."""
    version: int
    """How many transactions led to it: of two balances the greater version is the newer."""
    update_time: Moment | None
    """When it last changed; null if it never did."""

    @classmethod
    def of(cls, balance: ledger.Balance) -> Self:
        """Returns the resource of a balance."""
        return cls(
            available_credits=balance.available_credits,
            reserved_credits=balance.reserved_credits,
            version=balance.version,
            update_time=balance.updated_at,
        )


class Transaction(Resource):
    """One movement of credits."""

    version: int
    """Its place in the account's record: 1, 2, 3 and so on."""
    type: ledger.TransactionType
    """Why credits moved."""
    credits: int
    """Signed change of the available credits."""
    reserved_change: int
    """Signed change of the reserved credits."""
    available_after: int
    """Available credits after it."""
    reserved_after: int
    """Reserved credits after it."""
    generation_id: str
    """The generation that it is about; empty if it is about none."""
    description: str
    """What it was for, in words."""
    create_time: Moment
    """When it was written."""

    @classmethod
    def of(cls, transaction: ledger.Transaction) -> Self:
        """Returns the resource of a transaction."""
        return cls(
            version=transaction.version,
            type=transaction.type,
            credits=transaction.credits,
            reserved_change=transaction.reserved_change,
            available_after=transaction.available_after,
            reserved_after=transaction.reserved_after,
            generation_id=transaction.reservation_id,
            description=transaction.description,
            create_time=transaction.created_at,
        )


class TransactionPage(Resource):
    """A part of a statement, newest first."""

    transactions: list[Transaction]
    """The transactions of this page."""
    next_page_token: str
    """Asks for the next page, with the same `after_version`; empty at the end."""

    @classmethod
    def of(cls, page: ledger.TransactionPage) -> Self:
        """Returns the resource of a page."""
        return cls(
            transactions=[Transaction.of(transaction) for transaction in page.transactions],
            next_page_token=page.next_page_token,
        )
