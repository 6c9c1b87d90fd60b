"""Sends webhooks, signed and repeated as Replicate does."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from aiohttp import ClientError, ClientSession, ClientTimeout
from multidict import CIMultiDict
from yarl import URL

from services.runtime.telemetry import get_logger
from services.simulator.accounts import Account, Accounts
from services.simulator.conditions import Conditions
from services.simulator.faults.fault import ATTEMPT, Subject
from services.simulator.faults.mangling import Letter, Outgoing, outgoing
from services.simulator.prediction import Attempt

__all__ = ["Delivery", "WebhookSender"]

ATTEMPT_TIMEOUT_S = 5.0
RETRY_OFFSETS_S = (1.0, 3.0, 7.0, 15.0, 31.0, 60.0)
"""When a final webhook is sent again, in seconds after its first attempt, at speed 1."""
SLOW_PARTS = 50
"""In how many parts a slow body goes."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to a customer."""

    subject: Subject
    """What a fault can tell it by."""
    prediction_id: str
    event: str
    webhook_id: str
    """`msg_` and 27 characters; a repetition carries the same."""
    address: str
    """As the customer gave it; no character of it is changed."""
    body: bytes
    account: Account
    """Whose secrets sign it."""
    final: bool
    """Whether the prediction has ended; only then a failed attempt is repeated."""


class WebhookSender:
    """Delivers events and reports every attempt."""

    def __init__(
        self,
        session: ClientSession,
        allowed_hosts: frozenset[str],
        speed: float,
        accounts: Accounts,
        conditions: Conditions,
        strike: Callable[[Subject], object],
        report: Callable[[str, Attempt, bool], None],
    ) -> None:
        """Takes what carries out the faults of the world, and what is told of attempts.

        `report` gets the prediction, the attempt and whether it was the last one.
        """
        self._session = session
        self._allowed_hosts = allowed_hosts
        self._speed = speed
        self._accounts = accounts
        self._conditions = conditions
        self._strike = strike
        self._report = report

    async def deliver(self, delivery: Delivery) -> None:
        """Sends an event until it is answered with 2xx or lost."""
        begun_at = time.time()
        retries = RETRY_OFFSETS_S if delivery.final else ()
        for offset_s in (*retries, None):
            attempt = await self._attempt(delivery)
            lost = not _worth_repeating(attempt) or offset_s is None
            self._report(delivery.prediction_id, attempt, lost and delivery.final)
            _log.info(
                "webhook",
                prediction=delivery.prediction_id,
                webhook_event=delivery.event,
                status=attempt.status,
                failure=attempt.failure,
            )
            if lost or offset_s is None:
                return
            await asyncio.sleep(max(0.0, begun_at + offset_s / self._speed - time.time()))

    def lose(self, delivery: Delivery, fault: str) -> None:
        """Reports an event that a fault keeps from ever being sent."""
        attempt = Attempt(
            delivery.event, delivery.webhook_id, time.time(), None, "never sent", fault
        )
        self._report(delivery.prediction_id, attempt, delivery.final)

    async def _attempt(self, delivery: Delivery) -> Attempt:
        sent_at = time.time()
        status: int | None = None
        failure: str | None = None
        self._strike(delivery.subject)
        action = self._conditions.faults.fire(delivery.subject, ATTEMPT)
        request = outgoing(self._letter(delivery), action)
        try:
            # Encoded already: the query carries a signature and must arrive as it is.
            url = URL(request.address, encoded=True)
            if (url.host or "").lower() not in self._allowed_hosts:
                failure = f"host {url.host} is not allowed"
            else:
                status = await self._send(url, request)
        except TimeoutError:
            failure = f"no answer within {ATTEMPT_TIMEOUT_S:g} s"
        except (ClientError, OSError, ValueError) as error:
            failure = str(error) or type(error).__name__
        fault = None if action is None else action.kind
        return Attempt(
            delivery.event, delivery.webhook_id, sent_at, status, failure, fault, time.time()
        )

    def _letter(self, delivery: Delivery) -> Letter:
        clock = self._conditions.clock
        return Letter(
            webhook_id=delivery.webhook_id,
            address=delivery.address,
            body=delivery.body,
            secrets=self._accounts.secrets(delivery.account, clock.now()),
            at_s=int(clock.shown()),
        )

    async def _send(self, url: URL, request: Outgoing) -> int:
        headers = CIMultiDict(request.headers)
        parts = 1
        if request.body_s:
            headers["Content-Length"] = str(len(request.body))
            parts = SLOW_PARTS
        in_parts = request.in_chunks or parts > 1
        async with self._session.request(
            request.method,
            url,
            data=_parts(request.body, parts, request.body_s) if in_parts else request.body,
            headers=headers,
            allow_redirects=False,
            timeout=ClientTimeout(total=ATTEMPT_TIMEOUT_S + request.body_s),
        ) as response:
            return response.status


async def _parts(body: bytes, count: int, duration_s: float) -> AsyncIterator[bytes]:
    """Yields `body` in `count` parts, spread over a time."""
    step = max(1, -(-len(body) // count))
    for start in range(0, len(body), step):
        await asyncio.sleep(duration_s / count)
        yield body[start : start + step]


def _worth_repeating(attempt: Attempt) -> bool:
    """Returns whether an attempt failed in a way that Replicate repeats; redirects are lost."""
    if attempt.status is None:
        return True
    return attempt.status >= 400
