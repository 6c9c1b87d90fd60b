"""Says on whose behalf a request is: by a token, or by the page's session."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from structlog.contextvars import bind_contextvars

from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger
from services.web.headers import add_header
from services.web.hosts import is_own_origin
from services.web.identity import SignInAway
from services.web.parts import Parts, WiredParts
from services.web.problems import Refused, problem
from services.web.sessions import Person
from services.web.tokens import BadToken

__all__ = ["CSRF_HEADER", "Caller", "SignedIn", "refuse_foreign_pages", "sign_in_away", "signed_in"]

CSRF_HEADER = "X-Reelworks"
CSRF_VALUE = "1"
READS = ("GET", "HEAD")
RETRY_S = 2.0

logger = get_logger(__name__)

# It only says in openapi.json that there are tokens; what they prove is found out below.
_BEARER = HTTPBearer(
    auto_error=False, description="An access token. The page has a session in a cookie instead."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    user_id: str
    """The id of their account."""
    name: str
    """What to call them."""
    email: str
    """Empty if unknown."""
    is_admin: bool
    """Whether they may do what operators may."""
    by_cookie: bool
    """Whether the page's session proves it, rather than a token."""
    expires_at: datetime
    """Until when it is proven."""


async def signed_in(
    request: Request,
    parts: WiredParts,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> Caller:
    """Returns who asks; refuses who proves nothing, and writes of foreign pages.

    Whoever is seen for the first time has an account then.
    """
    given = request.headers.getlist("authorization")
    caller = await _by_token(parts, given) if given else _by_cookie(request, parts)
    bind_contextvars(user_id=caller.user_id)
    try:
        await parts.accounts.open(caller.user_id)
    except ServiceError as error:
        logger.warning("account not opened", reason=error.reason, cause=error.message)
        raise Refused(
            problem(
                503,
                "ACCOUNT_UNAVAILABLE",
                "Your account cannot be reached for a moment; repeat the request.",
                retry_after_s=RETRY_S,
            )
        ) from None
    return caller


SignedIn = Annotated[Caller, Depends(signed_in)]
"""The caller, for a handler of somebody signed in."""


def refuse_foreign_pages(request: Request, parts: Parts) -> None:
    """Refuses a request that another site's page has a browser send.

    Browsers say so, and no page can keep them from it; what is no browser says nothing.
    """
    origin = request.headers.get("origin")
    is_foreign = request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    # Older browsers, and all on plain http, say no more than the origin.
    if is_foreign or (
        origin is not None and not is_own_origin(request, origin, parts.settings.public_url)
    ):
        raise Refused(problem(403, "FOREIGN_PAGE", "Another site's page may not do this."))


def sign_in_away() -> Refused:
    """Returns the refusal of who cannot be told apart now."""
    detail = "Nobody can be signed in for a moment; repeat the request."
    return Refused(problem(503, "SIGN_IN_UNAVAILABLE", detail, retry_after_s=RETRY_S))


async def _by_token(parts: Parts, given: list[str]) -> Caller:
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer":
        raise _unauthenticated("The header `Authorization` must be one: `Bearer` and a token.")
    try:
        proven = await parts.identity.verify(token.strip())
    except BadToken as error:
        logger.debug("token not accepted", cause=str(error))
        raise _unauthenticated("The access token is not accepted; it may have expired.") from None
    except SignInAway:
        raise sign_in_away() from None
    return _caller(proven.person, proven.expires_at, by_cookie=False)


def _by_cookie(request: Request, parts: Parts) -> Caller:
    sessions, now = parts.sessions, datetime.now(UTC)
    value = request.cookies.get(sessions.cookie_name)
    if value is None:
        raise _unauthenticated("Sign in, or send an access token.")
    session = sessions.read(value, now)
    if session is None:
        add_header(request, "Set-Cookie", sessions.farewell())
        raise _unauthenticated("The session is over; sign in again.")
    if request.method not in READS:
        refuse_foreign_pages(request, parts)
        if request.headers.get(CSRF_HEADER) != CSRF_VALUE:
            rule = f"needs the header `{CSRF_HEADER}: {CSRF_VALUE}`"
            detail = f"A request that changes something {rule}."
            raise Refused(problem(403, "CSRF_HEADER_MISSING", detail))
    renewed = sessions.renewed(session, now)
    if renewed is not None:
        add_header(request, "Set-Cookie", sessions.cookie(renewed, now))
        session = renewed
    return _caller(session.person, session.expires_at, by_cookie=True)


def _caller(person: Person, expires_at: datetime, *, by_cookie: bool) -> Caller:
    return Caller(
        user_id=person.user_id,
        name=person.name,
        email=person.email,
        is_admin=person.is_admin,
        by_cookie=by_cookie,
        expires_at=expires_at,
    )


def _unauthenticated(detail: str) -> Refused:
    return Refused(problem(401, "UNAUTHENTICATED", detail), {"WWW-Authenticate": "Bearer"})
