"""Everything that answers requests, wired; handlers get it by `WiredParts`."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from services.client.credits import CreditsClient
from services.client.generations import GenerationClient
from services.runtime.storage import Storage
from services.web.accounts import Accounts
from services.web.hub import Hub
from services.web.identity import Identity
from services.web.image_places import ImagePlaces
from services.web.metrics import WebMetrics
from services.web.rates import Limits
from services.web.sessions import Sessions
from services.web.settings import WebSettings

__all__ = ["Parts", "WiredParts", "parts_of"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a web service."""

    settings: WebSettings
    """What it was told."""
    credits: CreditsClient
    """The money of users."""
    generations: GenerationClient
    """The work of users."""
    identity: Identity
    """Tells who a token is about, and signs people in."""
    sessions: Sessions
    """The page's signed cookie."""
    accounts: Accounts
    """Who has an account."""
    limits: Limits
    """How often who may do what."""
    hub: Hub
    """What happens to whom, live."""
    storage: Storage | None
    """The local folder of media; None: they are elsewhere."""
    media_keys: tuple[bytes, ...]
    """What addresses of media are signed with."""
    draining: asyncio.Event
    """Set when the process leaves: what has no end of its own ends then."""
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set some time before: balancers should look away, requests are still answered."""
    metrics: WebMetrics = field(default_factory=WebMetrics)
    """What is measured of all this."""
    image_places: ImagePlaces = field(default_factory=ImagePlaces)
    """How many images are taken at once."""


async def parts_of(connection: HTTPConnection) -> Parts:
    """Returns the parts that the app of a request was made with."""
    # Asynchronous, though nothing is awaited: FastAPI runs what is not in a thread.
    parts: Parts = connection.app.state.parts
    return parts


WiredParts = Annotated[Parts, Depends(parts_of)]
"""The parts, for a handler."""
