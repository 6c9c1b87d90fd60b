"""Makes the attempt of a generation, submits it once, and tells the saga how that ended."""

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from services.generation.catalog import SEED_MAX, Catalog
from services.generation.claims import Attempt, NotOffered
from services.generation.commands import AttemptRecord
from services.generation.events import (
    Event,
    SubmitDeferred,
    SubmitRefused,
    Submitted,
    SubmitUnknown,
)
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
from services.runtime.callback import sign_query
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["Callbacks", "Submission"]

NOT_SENT_PAUSE_S_MAX = 30.0

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Where the provider reports to."""

    public_url: str | None
    """The webhook service's address as the provider sees it; None where it has none."""
    key: bytes
    environment: str

    def address(self, generation_id: str, attempt: int) -> str | None:
        """Returns the address for an attempt, with its proof."""
        if self.public_url is None:
            return None
        query = sign_query(self.key, self.environment, generation_id, attempt)
        return f"{self.public_url}?{query}"


class Submission:
    """Submits attempts; `pause_creates` closes the gate for the whole fleet."""

    def __init__(
        self,
        provider: Replicate,
        catalog: Catalog,
        callbacks: Callbacks,
        pause_creates: Callable[[float, str], Awaitable[None]],
    ) -> None:
        self._provider = provider
        self._catalog = catalog
        self._callbacks = callbacks
        self._pause_creates = pause_creates
        self._not_sent_in_a_row = 0

    def prepare(self, generation: Generation) -> Attempt:
        """Returns the attempt of a generation; raises NotOffered if the catalog lost its model."""
        try:
            variant = self._catalog.variant_of(generation.request)
        except LookupError:
            raise NotOffered("This model is no longer offered. You were not charged.") from None
        chosen = generation.request.seed
        # Every create carries a seed of its own: by it an echoed prediction is told from another's.
        seed = secrets.randbelow(SEED_MAX + 1) if chosen is None else chosen
        return Attempt(
            generation_id=generation.generation_id,
            attempt=generation.attempt,
            provider_model=variant.provider_model,
            input=json.dumps(variant.build_input(generation.request, seed), sort_keys=True),
            schema_sha256=variant.schema_sha256,
            seed=seed,
        )

    async def submit(
        self, generation: Generation, attempt: Attempt, now: datetime, send_before: float
    ) -> tuple[Event, AttemptRecord]:
        """Sends the create of `attempt`, unless the monotonic time `send_before` has passed."""
        outcome = await self._provider.create(
            CreateRequest(
                provider_model=attempt.provider_model,
                input=json.loads(attempt.input),
                webhook=self._callbacks.address(attempt.generation_id, attempt.attempt),
                cancel_after_s=(generation.deadline_at - now).total_seconds(),
                send_before=send_before,
            )
        )
        number = attempt.attempt
        if not isinstance(outcome, NotSent):
            self._not_sent_in_a_row = 0
        match outcome:
            case Created(prediction=prediction, answer=answer):
                return Submitted(number, prediction), _record(number, "CREATED", answer)
            case Refused(message=message, answer=answer):
                return SubmitRefused(number, message), _record(number, "REFUSED", answer)
            case Deferred(pause_s=pause_s, answer=answer):
                await self._pause(pause_s, answer)
                return SubmitDeferred(number), _record(number, "REFUSED", answer)
            case NotSent(answer=answer):
                self._not_sent_in_a_row += 1
                pause_s = min(0.5 * 2 ** min(self._not_sent_in_a_row, 10), NOT_SENT_PAUSE_S_MAX)
                await self._pause(pause_s, answer)
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

    async def _pause(self, seconds: float, answer: Answer) -> None:
        logger.warning(
            "creates paused", seconds=seconds, http_status=answer.http_status, detail=answer.detail
        )
        try:
            await self._pause_creates(seconds, answer.detail)
        except ServiceError as error:
            # That nothing was created is known all the same, and must not be lost.
            logger.warning("creates not paused", reason=error.reason)


def _record(attempt: int, state: str, answer: Answer) -> AttemptRecord:
    return AttemptRecord(attempt, state, answer.http_status, answer.body, answer.detail or None)
