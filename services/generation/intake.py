"""Decides what is taken on and at what price, and says so beforehand to those who ask."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from services.generation.admission import Admitted, BacklogFull, TooManyUnfinished, judge
from services.generation.allowance import too_many_unfinished
from services.generation.catalog import Offer
from services.generation.estimates import Eta, eta_of_new
from services.generation.history import History
from services.generation.queue import Queue
from services.generation.quotes import Terms, read_quote, sign_quote
from services.generation.requests import request_violations
from services.generation.settlement import Settlement
from services.generation.state import Request
from services.runtime.errors import (
    FieldViolation,
    InvalidRequest,
    Overloaded,
    PreconditionFailed,
)

__all__ = ["Intake", "IntakePolicy", "Quoted"]


@dataclass(frozen=True, slots=True)
class IntakePolicy:
    """How much is taken on."""

    unfinished_max: int
    """Unfinished generations of one user."""
    deadline_s: float
    """From the create of a generation to the end of waiting for it."""


@dataclass(frozen=True, slots=True)
class Quoted:
    """What a video would cost, and when it would be there."""

    price_credits: int
    available_credits: int
    queue_ahead: int
    eta: Eta | None
    token: str
    expires_at: datetime


class Intake:
    """The way in. `keys` sign quotes; the first is the present one.

    `image_violation` says what is wrong with a user's reference to an image, None for nothing.
    """

    def __init__(
        self,
        history: History,
        queue: Queue,
        offer: Offer,
        settlement: Settlement,
        image_violation: Callable[[str, str], Awaitable[FieldViolation | None]],
        keys: Sequence[bytes],
        policy: IntakePolicy,
    ) -> None:
        self._history = history
        self._queue = queue
        self._offer = offer
        self._settlement = settlement
        self._image_violation = image_violation
        self._keys = keys
        self._policy = policy

    async def quote(self, user_id: str, wanted: Request) -> Quoted:
        """Returns what `wanted` would cost; raises InvalidRequest if it cannot be made."""
        violations = await self._violations(user_id, wanted)
        if violations:
            raise InvalidRequest(violations)
        price_credits = self._offer.catalog.variant_of(wanted).price_credits
        available_credits = await self._settlement.available(user_id)
        line = await self._queue.line()
        now = await self._history.clock()
        token, quote = sign_quote(self._keys[0], _terms(user_id, wanted), price_credits, now)
        return Quoted(
            price_credits,
            available_credits,
            line.ready,
            eta_of_new(wanted.model, wanted.resolution, line),
            token,
            quote.expires_at,
        )

    async def admit(self, user_id: str, wanted: Request, quote_token: str = "") -> int:
        """Returns the price of `wanted`: that of the quote, or today's.

        Raises ServiceError if it cannot be made, or not at the quoted price any more, or not now.
        """
        price_credits = await self._price(user_id, wanted, quote_token)
        await self._check_room(user_id, wanted)
        return price_credits

    async def _price(self, user_id: str, wanted: Request, quote_token: str) -> int:
        violations = await self._violations(user_id, wanted)
        quote = read_quote(quote_token, self._keys, _terms(user_id, wanted))
        if quote_token and quote is None:
            rule = "must be what QuoteGeneration answered for the same user, model and resolution"
            violations.append(FieldViolation("quote_token", rule))
        if violations:
            raise InvalidRequest(violations)
        if quote is None:
            return self._offer.catalog.variant_of(wanted).price_credits
        if await self._history.clock() >= quote.expires_at:
            raise PreconditionFailed(
                "QUOTE_EXPIRED",
                "The quote no longer holds its price; ask for another.",
                expired=quote.expires_at.isoformat(),
            )
        return quote.price_credits

    async def _violations(self, user_id: str, wanted: Request) -> list[FieldViolation]:
        violations = list(request_violations(self._offer, wanted))
        if all(violation.field != "image_uri" for violation in violations):
            violation = await self._image_violation(user_id, wanted.image_uri)
            violations += [] if violation is None else [violation]
        return violations

    async def _check_room(self, user_id: str, wanted: Request) -> None:
        limit = self._policy.unfinished_max
        line = await self._queue.line()
        # The store has the last word, since many may ask at once; to refuse here costs no write.
        unfinished = await self._queue.unfinished(user_id, limit)
        admission = judge(
            line, (wanted.model, wanted.resolution), unfinished, limit, self._policy.deadline_s
        )
        match admission:
            case Admitted():
                return
            case BacklogFull(retry_after_s=retry_after_s):
                raise Overloaded(
                    "BACKLOG_FULL",
                    "More waits than could be made in time; come back later.",
                    retry_after_s,
                )
            case TooManyUnfinished(limit=limit):
                raise too_many_unfinished(limit)
            case unreachable:
                assert_never(unreachable)


def _terms(user_id: str, wanted: Request) -> Terms:
    return Terms(user_id, wanted.kind, wanted.model, wanted.resolution)
