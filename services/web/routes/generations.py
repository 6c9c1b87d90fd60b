"""Shows a user's generations, and ends, repeats and deletes them."""

import re
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from services.client.generations import Kind, Status
from services.runtime.errors import NotFound, PreconditionFailed
from services.web.callers import SignedIn
from services.web.field_names import fields_named
from services.web.idempotency import PARAMETER, REPLAYED, WantedKey, is_repetition
from services.web.json_bodies import JsonOnly
from services.web.limits import CallRate, CreateRate
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.requests import DeleteBody, GenerationQuery, RetryBody
from services.web.resources import EXAMPLE_ID, DeletedGenerations, Generation, GenerationPage

__all__ = [
    "ACCEPTED_HEADERS",
    "accepted",
    "cancel_generation",
    "delete_generation",
    "delete_generations",
    "get_generation",
    "list_generations",
    "retry_generation",
    "router",
]

ACCEPTED_HEADERS = {
    "Location": {
        "description": "Where the generation can be had.",
        "schema": {"type": "string"},
    },
    REPLAYED: {
        "description": (
            "`true` if an earlier call with the same key had surely made it. Without it, this may "
            "be a repetition all the same: of a call at the same moment, for example."
        ),
        "schema": {"type": "string", "enum": ["true"]},
    },
}

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_Id = Annotated[str, Path(alias="generation_id", examples=[EXAMPLE_ID])]

router = APIRouter(prefix="/api/generations", tags=["generations"])


@router.get("", dependencies=[CallRate], responses=problems(401, 422, 429, 503, 504))
async def list_generations(
    wanted: Annotated[GenerationQuery, Query()], caller: SignedIn, parts: WiredParts
) -> GenerationPage:
    """Lists the caller's generations, newest first, without those that were deleted.

    Those that were refused for want of credits are left out too.
    """
    with fields_named(query="q"):
        page = await parts.generations.list(
            caller.user_id,
            wanted.page_size,
            wanted.page_token,
            status=None if wanted.status is None else Status(wanted.status),
            kind=None if wanted.kind is None else Kind(wanted.kind),
            query=wanted.q,
        )
    return GenerationPage.of(page)


@router.post(
    "/delete",
    dependencies=[JsonOnly, CallRate],
    responses=problems(400, 401, 403, 408, 413, 415, 422, 429, 503, 504),
)
async def delete_generations(
    body: DeleteBody, caller: SignedIn, parts: WiredParts
) -> DeletedGenerations:
    """Removes generations that have ended from the history, and their videos from storage.

    What is deleted already counts as deleted.
    """
    return DeletedGenerations.of(
        await parts.generations.delete(caller.user_id, body.generation_ids)
    )


@router.get(
    "/{generation_id}", dependencies=[CallRate], responses=problems(401, 404, 429, 503, 504)
)
async def get_generation(given: _Id, caller: SignedIn, parts: WiredParts) -> Generation:
    """Returns a generation as it is now, also one that was deleted."""
    return Generation.of(await parts.generations.get(caller.user_id, _known(given)))


@router.delete(
    "/{generation_id}",
    status_code=204,
    dependencies=[CallRate],
    responses=problems(401, 403, 404, 409, 429, 503, 504),
)
async def delete_generation(given: _Id, caller: SignedIn, parts: WiredParts) -> None:
    """Removes a generation that has ended from the history, and its video from storage.

    One that has not is refused with `GENERATION_UNFINISHED`: cancel it first. A repetition changes
    nothing.
    """
    generation_id = _known(given)
    deleted = await parts.generations.delete(caller.user_id, [generation_id])
    if deleted.unknown_ids:
        raise _not_found(generation_id)
    if deleted.unfinished_ids:
        raise PreconditionFailed(
            "GENERATION_UNFINISHED",
            "The generation has not ended; cancel it first.",
            generation_id=generation_id,
        )


@router.post(
    "/{generation_id}/cancel",
    dependencies=[CallRate],
    responses=problems(401, 403, 404, 409, 429, 503, 504),
)
async def cancel_generation(given: _Id, caller: SignedIn, parts: WiredParts) -> Generation:
    """Cancels a generation whose video does not exist yet.

    `cancel_refund_credits` says what is given back. The answer is the generation after the cancel,
    or after five seconds as far as it then is: it ends CANCELED unless the provider finishes first,
    in which case the video is there, and charged. Refused with `ALREADY_SUCCEEDED` or
    `GENERATION_ENDED` when there is nothing to cancel. A repetition changes nothing.
    """
    return Generation.of(await parts.generations.cancel(caller.user_id, _known(given)))


@router.post(
    "/{generation_id}/retry",
    status_code=202,
    dependencies=[JsonOnly, CreateRate],
    responses={
        202: {"headers": ACCEPTED_HEADERS},
        **problems(400, 401, 402, 403, 404, 408, 409, 413, 415, 422, 429, 503, 504),
    },
    openapi_extra={"parameters": [PARAMETER]},
)
async def retry_generation(
    given: _Id,
    caller: SignedIn,
    parts: WiredParts,
    key: WantedKey,
    response: Response,
    body: RetryBody | None = None,
) -> Generation:
    """Makes a generation that FAILED or was CANCELED again, as a new one with a price of its own.

    Others are refused with `NOT_RETRYABLE`, one whose image is gone with `IMAGE_REMOVED`.
    """
    generation_id = _known(given)
    is_again = await is_repetition(parts.generations, caller.user_id, key)
    generation = await parts.generations.retry(
        caller.user_id,
        generation_id,
        new_generation_id=key.generation_id,
        keep_seed=body is not None and body.keep_seed,
    )
    accepted(response, generation.generation_id, is_repetition=is_again)
    return Generation.of(generation)


def accepted(response: Response, generation_id: str, *, is_repetition: bool) -> None:
    """Has an answer say where a generation is, and whether an earlier call had made it."""
    response.headers["Location"] = f"{router.prefix}/{generation_id}"
    if is_repetition:
        response.headers[REPLAYED] = "true"


def _known(given: str) -> str:
    """Returns an id that a generation can have; nobody has one of another form."""
    if not _ID.fullmatch(given):
        raise _not_found(given[:64])
    return given


def _not_found(generation_id: str) -> NotFound:
    return NotFound(
        "GENERATION_NOT_FOUND", "There is no such generation.", generation_id=generation_id
    )
