"""Says what a video would cost."""

from fastapi import APIRouter

from services.client.generations import Kind
from services.web.callers import SignedIn
from services.web.json_bodies import JsonOnly
from services.web.limits import CallRate
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.requests import QuoteBody
from services.web.resources import Quote

__all__ = ["quote_generation", "router"]

router = APIRouter(prefix="/api", tags=["generations"])


@router.post(
    "/quotes",
    dependencies=[JsonOnly, CallRate],
    responses=problems(400, 401, 403, 408, 413, 415, 422, 429, 503, 504),
)
async def quote_generation(body: QuoteBody, caller: SignedIn, parts: WiredParts) -> Quote:
    """Says what a video would cost and when it would be there, without creating anything.

    Credits that are too few are no error here. Hand the `quote_token` to the create, and the price
    holds for five minutes.
    """
    quote = await parts.generations.quote(
        caller.user_id,
        Kind(body.kind),
        body.model,
        body.resolution,
        body.prompt,
        negative_prompt=body.negative_prompt,
        image_uri=body.image_uri,
        aspect_ratio=body.aspect_ratio,
        seed=body.seed,
    )
    return Quote.of(quote)
