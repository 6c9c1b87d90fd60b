"""Says whether this replica runs, and whether requests should be sent to it."""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from services.web.parts import WiredParts

__all__ = ["router"]

router = APIRouter(
    prefix="/healthz", include_in_schema=False, default_response_class=PlainTextResponse
)


@router.get("/startup")
async def startup() -> PlainTextResponse:
    """Answers once the process has started."""
    return PlainTextResponse("started\n")


@router.get("/live")
async def live() -> PlainTextResponse:
    """Answers while the process works at all; whether others do is not its life."""
    return PlainTextResponse("live\n")


@router.get("/ready")
async def ready(parts: WiredParts) -> PlainTextResponse:
    """Answers 200 while the process does not leave.

    Services that are away do not count: all replicas would be unready at once, and what can still
    be done, as to show the page, would be done no more.
    """
    if parts.leaving.is_set() or parts.draining.is_set():
        return PlainTextResponse("leaving\n", 503)
    return PlainTextResponse("ready\n")
