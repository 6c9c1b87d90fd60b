"""Talks to Replicate through its own package, kept on a short leash by a guarded transport.

The package (1.0.7) was written for scripts: it waits for ever, repeats what must not be repeated,
sends the token to any host, and raises after a paid create because a field is missing. So what it
returns or raises is ignored; what counts is the `Exchange` that the guard records below it.

API: https://replicate.com/docs/reference/http
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import httpx
from replicate.client import Client

from services.generation.prediction import (
    NotAPrediction,
    Prediction,
    parse_prediction,
    printable,
)
from services.runtime.telemetry import get_logger

__all__ = [
    "Answer",
    "CreateRequest",
    "Created",
    "Deferred",
    "Found",
    "Missing",
    "NotSent",
    "Refused",
    "Replicate",
    "Unknown",
    "Unreachable",
]

CANCEL_AFTER_S_MIN = 5
CANCEL_AFTER_S_MAX = 1800
ANSWER_BYTES_MAX = 16 * 1024 * 1024
DETAIL_CHARACTERS_MAX = 500
RETRY_AFTER_S_DEFAULT = 10.0
RETRY_AFTER_S_MIN = 1.0
RETRY_AFTER_S_MAX = 120.0
REFUSED_STATUSES = frozenset({400, 403, 404, 405, 413, 415, 422})
PAUSED_S = 60.0
"""How long creates pause after 401 or 402, which an operator must see to."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """One create."""

    provider_model: str
    """`owner/name`."""
    input: Mapping[str, Any]
    webhook: str | None
    """Where the provider reports to; None where it could not reach us."""
    cancel_after_s: float
    """When the provider ends the prediction by itself, even if all our processes are dead."""
    send_before: float
    """Monotonic time after which not a byte is sent any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, for the record."""

    http_status: int | None = None
    body: bytes | None = None
    detail: str = ""
    """In words, for operators."""


@dataclass(frozen=True, slots=True)
class Created:
    """The prediction exists."""

    prediction: Prediction
    answer: Answer


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider will never take this input; nothing exists."""

    message: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Deferred:
    """The provider takes nothing now; nothing exists, and all creates pause for `pause_s`."""

    pause_s: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not a byte of the request was sent; nothing exists."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Unknown:
    """Whether a prediction exists is open."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Found:
    """The prediction as it is now."""

    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Missing:
    """The provider does not know the prediction."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No usable answer; ask again later."""

    detail: str


class _Phase(StrEnum):
    WAITING = "waiting"
    SENT = "sent"
    """The first byte of the request may have left."""
    ANSWERED = "answered"


@dataclass(slots=True)
class _Exchange:
    """What really passed between us and the provider; the guard fills it."""

    send_before: float | None = None
    cancel_after_s: float | None = None
    phase: _Phase = _Phase.WAITING
    status: int | None = None
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytes = b""
    problem: str = ""


_exchange: ContextVar[_Exchange] = ContextVar("exchange")


class _Late(Exception):
    """The time to send a create is over."""


class _Withheld(Exception):
    """An answer that the package would act on by itself, kept from it."""


class Replicate:
    """The provider, seen through one API token. Its methods raise nothing but CancelledError."""

    def __init__(self, token: str, base_url: str, call_s: float) -> None:
        self._call_s = call_s
        self._client = Client(
            api_token=token, base_url=base_url, transport=_Guard(httpx.URL(base_url))
        )

    async def create(
        self, request: CreateRequest
    ) -> Created | Refused | Deferred | NotSent | Unknown:
        """Submits a prediction, at most once: no layer below repeats it."""
        exchange = _Exchange(
            send_before=request.send_before,
            cancel_after_s=min(max(request.cancel_after_s, CANCEL_AFTER_S_MIN), CANCEL_AFTER_S_MAX),
        )
        options: dict[str, Any] = {}
        if request.webhook is not None:
            options["webhook"] = request.webhook
            # `start` brings the id of a lost answer within seconds.
            options["webhook_events_filter"] = ["start", "completed"]
        await self._exchange(
            exchange,
            lambda: self._client.models.predictions.async_create(
                request.provider_model, input=dict(request.input), **options
            ),
        )
        return _classify_create(exchange)

    async def get(self, job_id: str) -> Found | Missing | Unreachable:
        """Returns a prediction as it is now."""
        exchange = _Exchange()
        await self._exchange(exchange, lambda: self._client.predictions.async_get(job_id))
        return _classify_read(exchange)

    async def cancel(self, job_id: str) -> None:
        """Asks for the end of a prediction; what came of it, `get` tells."""
        exchange = _Exchange()
        await self._exchange(exchange, lambda: self._client.predictions.async_cancel(job_id))
        if exchange.status is None or exchange.status >= 300:
            logger.info("cancel not confirmed", job_id=job_id, status=exchange.status)

    async def close(self) -> None:
        """Closes all connections."""
        # The package has no way to close its client of its own.
        await self._client._async_client.aclose()  # noqa: SLF001

    async def _exchange(self, exchange: _Exchange, call: Callable[[], Awaitable[object]]) -> None:
        token = _exchange.set(exchange)
        try:
            # A server that sends a byte now and then resets every other timeout for ever.
            async with asyncio.timeout(self._call_s):
                await call()
        except Exception as error:  # noqa: BLE001  The package's opinion does not count.
            exchange.problem = exchange.problem or f"{type(error).__name__}: {error}"
        finally:
            _exchange.reset(token)


class _Guard(httpx.AsyncBaseTransport):
    """Sends requests by our rules and records what happened."""

    def __init__(self, base_url: httpx.URL) -> None:
        self._origin = (base_url.scheme, base_url.host, base_url.port)
        # A fresh connection for every create: one that went stale would make its outcome unknown.
        context = httpx.create_ssl_context()
        self._creates = httpx.AsyncHTTPTransport(
            verify=context, retries=0, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._others = httpx.AsyncHTTPTransport(
            verify=context,
            retries=0,
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _exchange.get()
        if (request.url.scheme, request.url.host, request.url.port) != self._origin:
            raise _Withheld(f"{request.url.host} is not the provider's API")
        if "Prefer" in request.headers:
            raise _Withheld("an open request is an answer to lose")
        request.extensions = {
            "timeout": httpx.Timeout(connect=5.0, write=10.0, read=20.0, pool=5.0).as_dict(),
            "trace": _tracer(exchange),
        }
        request.headers["Accept-Encoding"] = "identity"
        is_create = exchange.cancel_after_s is not None
        if is_create:
            request.headers["Cancel-After"] = f"{exchange.cancel_after_s:.0f}s"
        transport = self._creates if is_create else self._others
        response = await transport.handle_async_request(request)
        try:
            body = await _read_bounded(response)
        finally:
            await response.aclose()
        exchange.status, exchange.headers, exchange.body = (
            response.status_code,
            response.headers,
            body,
        )
        exchange.phase = _Phase.ANSWERED
        if response.status_code in (429, 503, 504):
            # The package would ask again by itself, and sleep for as long as it is told.
            raise _Withheld(f"HTTP {response.status_code}")
        content_type = response.headers.get("Content-Type", "application/json")
        return httpx.Response(
            response.status_code,
            headers={"Content-Type": content_type},
            content=body,
            request=request,
        )

    async def aclose(self) -> None:
        await self._creates.aclose()
        await self._others.aclose()


def _tracer(exchange: _Exchange) -> Callable[[str, Any], Awaitable[None]]:
    """Returns what httpcore tells of each step: here is the exact border between sent and not."""

    async def trace(name: str, _info: Any) -> None:
        if name == "http11.send_request_headers.started":
            if exchange.send_before is not None and time.monotonic() > exchange.send_before:
                raise _Late("too late to be sent")
            exchange.phase = _Phase.SENT

    return trace


async def _read_bounded(response: httpx.Response) -> bytes:
    parts, size = [], 0
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    async for part in stream:
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise _Withheld(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)


def _classify_create(
    exchange: _Exchange,
) -> Created | Refused | Deferred | NotSent | Unknown:
    answer = Answer(
        exchange.status,
        exchange.body or None,
        (_problem_detail(exchange) or exchange.problem)[:DETAIL_CHARACTERS_MAX],
    )
    if exchange.phase is _Phase.WAITING:
        return NotSent(answer)
    status = exchange.status
    if status is None:
        return Unknown(answer)
    if 200 <= status < 300:
        try:
            return Created(parse_prediction(exchange.body), answer)
        except NotAPrediction:
            return Unknown(answer)
    if not _has_problem_shape(exchange.body):
        return Unknown(answer)  # A proxy's page, which says nothing about what lies behind it.
    if status == 429:
        return Deferred(_retry_after_s(exchange), answer)
    if status in (401, 402):
        return Deferred(PAUSED_S, answer)
    if status in REFUSED_STATUSES:
        return Refused(_message_for_user(exchange), answer)
    return Unknown(answer)


def _classify_read(exchange: _Exchange) -> Found | Missing | Unreachable:
    if exchange.status is None:
        return Unreachable(exchange.problem)
    if exchange.status == 404 and _has_problem_shape(exchange.body):
        return Missing()
    if exchange.status == 200:
        try:
            prediction = parse_prediction(exchange.body)
        except NotAPrediction as error:
            return Unreachable(str(error))  # A page of some proxy, perhaps.
        if prediction.oddities:
            logger.warning("prediction has odd fields", fields=prediction.oddities)
        return Found(prediction)
    return Unreachable(f"HTTP {exchange.status}")


def _problem(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _has_problem_shape(body: bytes) -> bool:
    return isinstance(_problem(body).get("detail"), str)


def _problem_detail(exchange: _Exchange) -> str:
    detail = _problem(exchange.body).get("detail")
    return printable(detail) if isinstance(detail, str) else ""


def _message_for_user(exchange: _Exchange) -> str:
    detail = " ".join(_problem_detail(exchange).split()).removeprefix("- ")
    return f"The provider refused the job: {detail[: DETAIL_CHARACTERS_MAX - 80]}"


def _retry_after_s(exchange: _Exchange) -> float:
    """Returns how long to wait after a 429: the longest of all that says so, within reason."""
    waits = [_seconds(_problem(exchange.body).get("retry_after"))]
    waits.append(_header_seconds(exchange.headers))
    if found := re.search(r"~\s*(\d+(?:\.\d+)?)\s*s", _problem_detail(exchange)):
        waits.append(float(found[1]))
    said = max((wait for wait in waits if wait is not None), default=RETRY_AFTER_S_DEFAULT)
    return min(max(said, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds == seconds else None


def _header_seconds(headers: httpx.Headers) -> float | None:
    """Reads `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    try:
        until = parsedate_to_datetime(value)
        sent = parsedate_to_datetime(headers.get("Date", ""))
        return (until - sent).total_seconds()
    except (ValueError, OverflowError, TypeError):  # TypeError: only one of them has a zone.
        return None
