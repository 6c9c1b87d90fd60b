"""Tells who somebody is, by the one verifier that is configured, and signs people in."""

from dataclasses import dataclass
from typing import Any

import httpx

from services.runtime.telemetry import get_logger
from services.web.development import person_named
from services.web.keys import KeysAway
from services.web.sessions import Person
from services.web.tokens import BadToken, Proven, TokenVerifier

__all__ = ["Identity", "SignInAway", "SignInRefused", "Supabase"]

SUPABASE_S_MAX = 5.0
WRONG_STATUSES = (400, 401, 403, 404, 422)

logger = get_logger(__name__)


class SignInRefused(Exception):
    """What somebody gave does not prove who they are."""


class SignInAway(Exception):
    """Whoever vouches for people cannot be asked now."""


@dataclass(frozen=True, slots=True)
class Supabase:
    """Where passwords are proven."""

    url: str
    """Without `/auth`."""
    anon_key: str
    """What it lets apps in with."""
    http: httpx.AsyncClient


class Identity:
    """Who somebody is, as far as the configured verifier knows."""

    def __init__(
        self,
        verifier: TokenVerifier,
        *,
        believes_names: bool = False,
        supabase: Supabase | None = None,
    ) -> None:
        """Believes names in development only, and passwords if there is a `supabase`."""
        self._verifier = verifier
        self._believes_names = believes_names
        self._supabase = supabase

    @property
    def methods(self) -> tuple[str, ...]:
        """How people can sign in."""
        if self._believes_names:
            return ("name",)
        return ("password", "access_token") if self._supabase is not None else ("access_token",)

    async def verify(self, token: str) -> Proven:
        """Returns what an access token proves; raises BadToken or SignInAway."""
        try:
            return await self._verifier.verify(token)
        except KeysAway:
            raise SignInAway from None

    def by_name(self, name: str) -> Person | None:
        """Returns who goes by a name, in development; None if nobody can."""
        assert self._believes_names, "names are believed in development only"
        return person_named(name)

    async def by_password(self, email: str, password: str) -> Person:
        """Returns whose password it is; raises SignInRefused or SignInAway."""
        assert self._supabase is not None, "passwords are proven elsewhere"
        try:
            return (await self.verify(await _ask(self._supabase, email, password))).person
        except BadToken as error:
            # What Supabase signed itself must be good, or one of us is set up wrongly.
            logger.exception("a token fresh from Supabase is not accepted", cause=str(error))
            raise SignInAway from None

    async def by_access_token(self, token: str) -> Person:
        """Returns whom a token is about; raises SignInRefused or SignInAway."""
        try:
            return (await self.verify(token)).person
        except BadToken as error:
            logger.debug("token not accepted", cause=str(error))
            raise SignInRefused from None


async def _ask(supabase: Supabase, email: str, password: str) -> str:
    """Returns the access token that Supabase gives for a password."""
    try:
        response = await supabase.http.post(
            f"{supabase.url}/auth/v1/token",
            params={"grant_type": "password"},
            headers={"apikey": supabase.anon_key},
            json={"email": email, "password": password},
            timeout=SUPABASE_S_MAX,
        )
        if response.status_code in WRONG_STATUSES:
            raise SignInRefused
        answer: Any = response.json() if response.status_code == httpx.codes.OK else None
        return str(answer["access_token"])
    except (httpx.HTTPError, ValueError, TypeError, KeyError) as error:
        # Nothing of it holds the password: neither the address nor the answer.
        logger.warning("Supabase did not answer a sign-in", cause=type(error).__name__)
        raise SignInAway from None
