"""Sends webhooks, signed and repeated as Replicate does."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import ClientError, ClientSession, ClientTimeout
from yarl import URL

from services.runtime.telemetry import get_logger
from services.simulator.prediction import Attempt
from services.simulator.signature import signature_headers

__all__ = ["Delivery", "WebhookSender"]

ATTEMPT_TIMEOUT_S = 5.0
RETRY_OFFSETS_S = (1.0, 3.0, 7.0, 15.0, 31.0, 60.0)
"""When a final webhook is sent again, in seconds after its first attempt, at speed 1."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to a customer."""

    prediction_id: str
    event: str
    webhook_id: str
    """`msg_` and 27 characters; a repetition carries the same."""
    address: str
    """As the customer gave it; no character of it is changed."""
    body: bytes
    secrets: tuple[str, ...]
    """Secrets that are active now; each gives one signature."""
    final: bool
    """Whether the prediction has ended; only then a failed attempt is repeated."""


class WebhookSender:
    """Delivers events and reports every attempt."""

    def __init__(
        self,
        session: ClientSession,
        allowed_hosts: frozenset[str],
        speed: float,
        report: Callable[[str, Attempt, bool], None],
    ) -> None:
        """Takes `report`, which is told prediction, attempt and whether it was the last one."""
        self._session = session
        self._allowed_hosts = allowed_hosts
        self._speed = speed
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

    async def _attempt(self, delivery: Delivery) -> Attempt:
        sent_at = time.time()
        status: int | None = None
        failure: str | None = None
        try:
            # Encoded already: the query carries a signature and must arrive as it is.
            url = URL(delivery.address, encoded=True)
            if (url.host or "").lower() not in self._allowed_hosts:
                failure = f"host {url.host} is not allowed"
            else:
                status = await self._post(url, delivery, int(sent_at))
        except TimeoutError:
            failure = f"no answer within {ATTEMPT_TIMEOUT_S:g} s"
        except (ClientError, OSError, ValueError) as error:
            failure = str(error) or type(error).__name__
        return Attempt(delivery.event, delivery.webhook_id, sent_at, status, failure)

    async def _post(self, url: URL, delivery: Delivery, sent_at_s: int) -> int:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Replicate/1.0 (simulator)",
            **signature_headers(delivery.webhook_id, sent_at_s, delivery.body, delivery.secrets),
        }
        async with self._session.post(
            url,
            data=delivery.body,
            headers=headers,
            allow_redirects=False,
            timeout=ClientTimeout(total=ATTEMPT_TIMEOUT_S),
        ) as response:
            return response.status


def _worth_repeating(attempt: Attempt) -> bool:
    """Returns whether an attempt failed in a way that Replicate repeats; redirects are lost."""
    if attempt.status is None:
        return True
    return attempt.status >= 400
