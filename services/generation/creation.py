"""Creates generations: each id once, whoever asks how often, and with its price reserved."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from services.generation.commands import Begin, Happen
from services.generation.history import History
from services.generation.settlement import Settlement
from services.generation.state import FailureCode, Generation, Request, Stage
from services.generation.store import Store
from services.runtime.errors import AlreadyExists, PreconditionFailed, Unavailable
from services.runtime.failpoints import failpoint
from services.runtime.shielding import Shielded
from services.runtime.tracing import current_traceparent

__all__ = ["Creation"]


class Creation:
    """Makes generations durable and reserves their price."""

    def __init__(
        self, store: Store, history: History, settlement: Settlement, shielded: Shielded
    ) -> None:
        self._store = store
        self._history = history
        self._settlement = settlement
        self._shielded = shielded

    async def create(
        self,
        user_id: str,
        generation_id: str,
        request: Request,
        price: Callable[[], Awaitable[int]],
        retry_of: str | None = None,
    ) -> Generation:
        """Returns the generation of an id, as it is now if the id is known.

        `price` is asked only for an id that is new, and raises what speaks against its generation.
        Raises AlreadyExists if the id was used for something else, PreconditionFailed if its price
        was refused, and Unavailable while that is open.
        """
        # The id before the catalog: what was accepted once is not refused because models changed.
        generation = await self._history.find_any(generation_id)
        if generation is None:
            price_credits = await price()
            begun = await self._store.begin(
                Begin(
                    generation_id, user_id, request, price_credits, retry_of, current_traceparent()
                )
            )
            failpoint("create.recorded")
            # Or the one that somebody created in the same moment.
            generation = begun.generation
        _check_same(generation, user_id, request, retry_of)
        if generation.stage is Stage.RESERVING:
            # Neither the reservation nor its record may be lost because the caller leaves.
            generation = await self._shielded.finish(self._reserve(generation))
        match generation.stage:
            case Stage.RESERVING:
                raise Unavailable(
                    "CREDITS_UNAVAILABLE",
                    "The price could not be reserved yet; repeat the call with the same id.",
                    generation_id=generation.generation_id,
                )
            case Stage.REJECTED:
                raise _refusal(generation)
            case _:
                return generation

    async def _reserve(self, generation: Generation) -> Generation:
        event = await self._settlement.reserve(generation)
        return await self._store.happen(Happen(generation.generation_id, event, generation.fence))


def _check_same(
    generation: Generation, user_id: str, request: Request, retry_of: str | None
) -> None:
    """Raises AlreadyExists if an id was used before for something else."""
    reused = "GENERATION_ID_REUSED"
    if generation.user_id != user_id:
        raise AlreadyExists(reused, "The generation id is taken; choose another.")
    before: Mapping[str, Any] = dataclasses.asdict(generation.request)
    wanted: Mapping[str, Any] = dataclasses.asdict(request)
    for field, value in {**wanted, "retry_of": retry_of}.items():
        was = generation.retry_of if field == "retry_of" else before[field]
        if was != value:
            raise AlreadyExists(
                reused,
                f"The generation id was used with another {field}.",
                field=field,
                was="" if was is None else was,
            )


def _refusal(generation: Generation) -> PreconditionFailed:
    """Returns the error that a generation was refused with, the same every time."""
    failure = generation.failure
    if failure is not None and failure.code is FailureCode.ACCOUNT_NOT_FOUND:
        return PreconditionFailed(
            failure.code, "The user has no account; open one first.", user_id=generation.user_id
        )
    available = generation.rejected_available or 0
    return PreconditionFailed(
        FailureCode.INSUFFICIENT_CREDITS,
        f"{generation.price_credits} credits are required, {available} are available.",
        required=generation.price_credits,
        available=available,
    )
