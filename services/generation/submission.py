"""Makes the attempt of a generation, submits it once, and tells the saga how that ended."""

import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from services.generation.catalog import SEED_MAX, Offer
from services.generation.claims import Attempt, Claims, NotOffered
from services.generation.commands import AttemptRecord
from services.generation.events import (
    Event,
    SubmitDeferred,
    SubmitRefused,
    Submitted,
    SubmitUnknown,
)
from services.generation.inputs import NoSuchParameter
from services.generation.replicate import (
    Answer,
    Created,
    CreateRequest,
    Deferred,
    NotSent,
    Refused,
    Replicate,
    Unknown,
)
from services.generation.state import Generation
from services.generation.uploads import ImageAddress, ImageAway, ImageGone, Uploads
from services.runtime.callback import Verdict, read_query, sign_query
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["Callbacks", "Submission"]

IMAGE_AWAY_S = 30.0
"""How long a generation lets others go first while its image cannot be had."""
"""After an image could not be had, so that its generation is not tried in a tight loop."""

_IMAGE_GONE = "The image is no longer stored; upload it again. You were not charged."

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Where the provider reports to."""

    public_url: str | None
    """The webhook service's address as the provider sees it; None where it has none."""
    keys: Sequence[bytes]
    """The first signs, all prove."""
    environment: str

    def address(self, generation_id: str, attempt: int) -> str | None:
        """Returns the address for an attempt, with its proof."""
        if self.public_url is None:
            return None
        query = sign_query(self.keys[0], self.environment, generation_id, attempt)
        return f"{self.public_url}?{query}"

    def attempt_in(self, query: str) -> tuple[str, int] | None:
        """Returns the generation and the attempt that an address of ours names; None if of none."""
        named = read_query(query, self.keys, self.environment)
        return (named.generation_id, named.attempt) if named.verdict is Verdict.GOOD else None


class Submission:
    """Submits attempts, and tells the gate of the whole fleet what came of them.

    `is_other_schema` tells whether a model takes something else than the schema of that digest.
    """

    def __init__(
        self,
        provider: Replicate,
        offer: Offer,
        callbacks: Callbacks,
        claims: Claims,
        uploads: Uploads,
        is_other_schema: Callable[[str, str], Awaitable[bool]],
    ) -> None:
        self._provider = provider
        self._offer = offer
        self._callbacks = callbacks
        self._claims = claims
        self._uploads = uploads
        self._is_other_schema = is_other_schema

    def prepare(self, generation: Generation) -> Attempt:
        """Returns the attempt of a generation; raises NotOffered if it can no longer be made."""
        chosen = generation.request.seed
        # Every create carries a seed of its own: by it an echoed prediction is told from another's.
        seed = secrets.randbelow(SEED_MAX + 1) if chosen is None else chosen
        try:
            variant = self._offer.catalog.variant_of(generation.request)
            model_input = variant.schema.build(generation.request, seed)
        except LookupError:
            raise NotOffered("This model is no longer offered. You were not charged.") from None
        except NoSuchParameter as error:
            raise NotOffered(
                f"This model no longer has the parameter {error}. You were not charged."
            ) from None
        return Attempt(
            generation_id=generation.generation_id,
            attempt=generation.attempt,
            provider_model=variant.provider_model,
            input=json.dumps(model_input, sort_keys=True),
            schema_sha256=variant.schema.sha256,
            seed=seed,
        )

    async def submit(
        self, generation: Generation, attempt: Attempt, now: datetime, send_before: float
    ) -> tuple[Event, AttemptRecord]:
        """Sends the create of `attempt`, unless the monotonic time `send_before` has passed."""
        number, model_input = attempt.attempt, json.loads(attempt.input)
        match await self._address(generation):
            case ImageAddress(url=url):
                model_input["image"] = url
            case ImageGone():
                record = AttemptRecord(number, "NOT_SENT", detail=_IMAGE_GONE)
                return SubmitRefused(number, _IMAGE_GONE), record
            case ImageAway(detail=detail):
                logger.warning(
                    "image not at hand", generation_id=attempt.generation_id, detail=detail
                )
                return SubmitDeferred(number, IMAGE_AWAY_S), AttemptRecord(
                    number, "NOT_SENT", detail=detail
                )
            case None:
                pass
            case unreachable_address:
                assert_never(unreachable_address)
        outcome = await self._provider.create(
            CreateRequest(
                provider_model=attempt.provider_model,
                input=model_input,
                webhook=self._callbacks.address(attempt.generation_id, attempt.attempt),
                cancel_after_s=(generation.deadline_at - now).total_seconds(),
                send_before=send_before,
            )
        )
        await self._tell_gate(outcome)
        match outcome:
            case Created(prediction=prediction, answer=answer):
                return Submitted(number, prediction), _record(number, "CREATED", answer)
            case Refused(answer=answer) as refused if await self._is_outdated(attempt, refused):
                # The same request is mapped anew, onto what the model takes now.
                return SubmitDeferred(number), _record(number, "REFUSED", answer)
            case Refused(message=message, answer=answer):
                return SubmitRefused(number, message), _record(number, "REFUSED", answer)
            case Deferred(answer=answer):
                return SubmitDeferred(number), _record(number, "REFUSED", answer)
            case NotSent(answer=answer):
                return SubmitDeferred(number), _record(number, "NOT_SENT", answer)
            case Unknown(answer=answer):
                logger.error(
                    "submit of unknown outcome",
                    generation_id=attempt.generation_id,
                    attempt=number,
                    detail=answer.detail,
                )
                return SubmitUnknown(number), _record(number, "UNKNOWN", answer)
            case unreachable:
                assert_never(unreachable)

    async def _address(self, generation: Generation) -> ImageAddress | ImageGone | ImageAway | None:
        """Returns where the provider finds the image to start from; None if there is none.

        The recorded input keeps the reference, since addresses do not last.
        """
        if not generation.request.image_uri:
            return None
        try:
            return await self._uploads.address(generation.request.image_uri)
        except ServiceError as error:  # The database.
            return ImageAway(error.reason)

    async def _is_outdated(self, attempt: Attempt, refused: Refused) -> bool:
        """Tells whether an input was refused because it was made for a schema that is no more."""
        return refused.is_invalid_input and await self._is_other_schema(
            attempt.provider_model, attempt.schema_sha256
        )

    async def _tell_gate(self, outcome: Created | Refused | Deferred | NotSent | Unknown) -> None:
        try:
            match outcome:
                case Created() | Refused():
                    await self._claims.note_answered()
                case Deferred(pause_s=pause_s, answer=answer):
                    log = logger.error if outcome.is_operators else logger.warning
                    log("creates paused", http_status=answer.http_status, detail=answer.detail)
                    await self._claims.pause_creates(pause_s, _why(answer))
                case NotSent(is_late=True):
                    pass  # We were too slow, which says nothing about the provider.
                case NotSent(answer=answer) | Unknown(answer=answer):
                    logger.warning("create had no answer", detail=answer.detail)
                    await self._claims.note_unanswered(_why(answer))
                case unreachable:
                    assert_never(unreachable)
        except ServiceError as error:
            # What came of the create is known all the same, and must not be lost.
            logger.warning("gate not told", reason=error.reason)


def _why(answer: Answer) -> str:
    """Returns in words for operators why creates are paused, and what to do about it."""
    match answer.http_status:
        case None:
            return f"The provider cannot be reached: {answer.detail}"
        case 401:
            return (
                f"The provider refuses the token; set another REPLICATE_API_TOKEN: {answer.detail}"
            )
        case 402:
            return f"The provider's account has no credit left; buy some: {answer.detail}"
        case status:
            return f"HTTP {status}: {answer.detail}"


def _record(attempt: int, state: str, answer: Answer) -> AttemptRecord:
    return AttemptRecord(attempt, state, answer.http_status, answer.body, answer.detail or None)
