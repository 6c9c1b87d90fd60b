"""Talks to Replicate through its own package, and judges by what passed on the wire.

The package (1.0.7) was written for scripts: it raises after a paid create because a field is
missing. So what it returns or raises is ignored; what counts is the `Exchange` that the transport
below it records.

API: https://replicate.com/docs/reference/http
"""

import contextlib
import io
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
from replicate.client import Client

from services.generation.answers import (
    address_in,
    clock_ahead_s,
    cursor_of,
    has_problem_shape,
    invalid_fields,
    moment_of,
    object_in,
    problem_detail,
    retry_after_s,
)
from services.generation.failures import explain_refusal
from services.generation.prediction import (
    NotAPrediction,
    Prediction,
    parse_prediction,
    read_prediction,
)
from services.generation.transport import Exchange, GuardedTransport, Phase, observe
from services.runtime.telemetry import get_logger
from services.runtime.tracing import CallSpan, Kind, spanning

__all__ = [
    "Answer",
    "CreateRequest",
    "Created",
    "Deferred",
    "Found",
    "Listed",
    "Missing",
    "NotSent",
    "Refused",
    "Replicate",
    "Schemas",
    "Unknown",
    "Unreachable",
    "Uploaded",
]

CANCEL_AFTER_S_MIN = 5
CANCEL_AFTER_S_MAX = 1800
DETAIL_CHARACTERS_MAX = 500
REFUSED_STATUSES = frozenset({400, 403, 404, 405, 413, 415, 422})
FILE_LIFE = timedelta(hours=24)
"""How long an uploaded file is kept unless its answer says."""

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
    """Why, and what to change, for the user."""
    answer: Answer

    @property
    def is_invalid_input(self) -> bool:
        """Whether it is the input that is wrong, so that our copy of its schema may be old."""
        return self.answer.http_status == 422


@dataclass(frozen=True, slots=True)
class Deferred:
    """The provider takes nothing now, so all creates pause; nothing exists."""

    pause_s: float | None
    """For how long; None = until an operator has seen to it, as after 401 and 402."""
    answer: Answer

    @property
    def is_operators(self) -> bool:
        """Whether it will not pass by itself: the token is refused, or there is no credit left."""
        return self.pause_s is None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not a byte of the request was sent; nothing exists."""

    answer: Answer
    is_late: bool = False
    """Whether we were too slow to send it, as opposed to not getting through."""


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
    """The provider does not know what was asked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of the account's predictions, newest first."""

    predictions: tuple[Prediction, ...]
    next_cursor: str | None
    """Leads to the page of older ones; None at the end, or where the page leads elsewhere."""
    clock_ahead_s: float
    """How far the provider's clock is ahead of this machine's, in seconds; 0 if it is not told."""
    complete: bool
    """Whether all of it could be read, so that what is not on it is not there."""


@dataclass(frozen=True, slots=True)
class Schemas:
    """What a model publishes about itself, whether or not it makes sense."""

    schemas: Mapping[str, Any]
    """Its `components.schemas`."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that the provider keeps for us."""

    url: str
    """What an input may refer to."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No usable answer; ask again later."""

    detail: str


class Replicate:
    """The provider, seen through one API token. Its methods raise nothing but CancelledError."""

    def __init__(
        self,
        token: str,
        base_url: str,
        call_s: float,
        requested: Callable[[str, str], None] = lambda _operation, _outcome: None,
    ) -> None:
        """Takes what is told of every request what it was for, and how it ended."""
        self._call_s = call_s
        self._requested = requested
        self._base_url = httpx.URL(base_url)
        self._client = Client(
            api_token=token, base_url=base_url, transport=GuardedTransport(self._base_url)
        )

    async def create(
        self, request: CreateRequest
    ) -> Created | Refused | Deferred | NotSent | Unknown:
        """Submits a prediction, at most once: no layer below repeats it."""
        exchange = Exchange(
            send_before=request.send_before,
            cancel_after_s=min(max(request.cancel_after_s, CANCEL_AFTER_S_MIN), CANCEL_AFTER_S_MAX),
        )
        options: dict[str, Any] = {}
        if request.webhook is not None:
            options["webhook"] = request.webhook
            # `start` brings the id of a lost answer within seconds.
            options["webhook_events_filter"] = ["start", "completed"]
        await self._observe(
            "create",
            exchange,
            lambda: self._client.models.predictions.async_create(
                request.provider_model, input=dict(request.input), **options
            ),
        )
        return _classify_create(exchange)

    async def get(self, job_id: str) -> Found | Missing | Unreachable:
        """Returns a prediction as it is now."""
        exchange = Exchange()
        call = self._client.predictions.async_get
        await self._observe("get", exchange, lambda: call(job_id))
        return _classify_read(exchange)

    async def list_since(self, since: datetime, cursor: str | None = None) -> Listed | Unreachable:
        """Returns predictions created at `since` or later: the newest, or those behind `cursor`.

        `cursor` is the `next_cursor` of the page before. How many pages to read is the caller's
        choice. https://replicate.com/docs/reference/http#predictions.list
        """
        moment = f"{since.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"
        first = f"/v1/predictions?{urlencode({'created_after': moment})}"
        exchange = Exchange()
        call = self._client.predictions.async_list
        await self._observe("list", exchange, lambda: call(cursor or first))
        return _classify_list(exchange, self._base_url)

    async def model_schemas(self, provider_model: str) -> Schemas | Missing | Unreachable:
        """Returns what `owner/name` publishes; Missing also if it has no version to publish for.

        https://replicate.com/docs/reference/http#models.get
        """
        exchange = Exchange()
        call = self._client.models.async_get
        await self._observe("model", exchange, lambda: call(provider_model))
        return _classify_model(exchange)

    async def upload_file(
        self, name: str, content: bytes, content_type: str
    ) -> Uploaded | Unreachable:
        """Hands a file of less than 100 MB to the provider, for inputs to refer to.

        A repetition makes another copy, which expires like the first.
        """
        exchange = Exchange()
        call = self._client.files.async_create
        await self._observe(
            "upload",
            exchange,
            lambda: call(io.BytesIO(content), filename=name, content_type=content_type),
        )
        return _classify_upload(exchange)

    async def cancel(self, job_id: str) -> None:
        """Asks for the end of a prediction; what came of it, `get` tells."""
        exchange = Exchange()
        call = self._client.predictions.async_cancel
        await self._observe("cancel", exchange, lambda: call(job_id))
        if exchange.status is None or exchange.status >= 300:
            logger.info("cancel not confirmed", job_id=job_id, status=exchange.status)

    async def _observe(
        self, operation: str, exchange: Exchange, call: Callable[[], Awaitable[object]]
    ) -> None:
        # What is only read is read every other second.
        is_told = operation in ("create", "cancel", "upload")
        with _span(operation) if is_told else contextlib.nullcontext() as span:
            await observe(exchange, call, self._call_s)
            outcome = _outcome_of(exchange)
            if span is not None and exchange.status is not None:
                span.tell(http__response__status_code=exchange.status)
            if span is not None and outcome != "ok":
                span.fail(outcome)
        self._requested(operation, outcome)

    async def close(self) -> None:
        """Closes all connections."""
        # The package has no way to close its client of its own.
        await self._client._async_client.aclose()  # noqa: SLF001


def _span(operation: str) -> AbstractContextManager[CallSpan]:
    return spanning(f"provider {operation}", kind=Kind.CLIENT)


def _outcome_of(exchange: Exchange) -> str:
    """Returns in a word how a request ended."""
    status = exchange.status
    if status is None:
        return "not_sent" if exchange.phase is Phase.WAITING else "unanswered"
    if status == 429:
        return "throttled"
    if status >= 500:
        return "failed"
    return "ok" if status < 300 else "refused"


def _classify_create(
    exchange: Exchange,
) -> Created | Refused | Deferred | NotSent | Unknown:
    answer = Answer(
        exchange.status,
        exchange.body or None,
        (problem_detail(exchange) or exchange.problem)[:DETAIL_CHARACTERS_MAX],
    )
    if exchange.phase is Phase.WAITING:
        return NotSent(answer, exchange.is_late)
    status = exchange.status
    if status is None:
        return Unknown(answer)
    if 200 <= status < 300:
        try:
            return Created(parse_prediction(exchange.body), answer)
        except NotAPrediction:
            return Unknown(answer)
    if not has_problem_shape(exchange.body):
        return Unknown(answer)  # A proxy's page, which says nothing about what lies behind it.
    if status == 429:
        return Deferred(retry_after_s(exchange), answer)
    if status in (401, 402):
        return Deferred(None, answer)
    if status in REFUSED_STATUSES:
        return Refused(explain_refusal(status, invalid_fields(exchange)), answer)
    return Unknown(answer)


def _classify_read(exchange: Exchange) -> Found | Missing | Unreachable:
    if exchange.status is None:
        return Unreachable(exchange.problem)
    if exchange.status == 404 and has_problem_shape(exchange.body):
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


def _classify_list(exchange: Exchange, base_url: httpx.URL) -> Listed | Unreachable:
    document = object_in(exchange.body)
    results = document.get("results")
    if exchange.status != 200 or not isinstance(results, list):
        return _unreachable(exchange)
    found, unreadable = [], 0
    for result in results:
        try:
            found.append(read_prediction(result))
        except NotAPrediction:
            unreadable += 1
    following = document.get("next")
    cursor = cursor_of(following, base_url)
    complete = not unreadable and (cursor is not None or following is None)
    if not complete:
        logger.warning("list not complete", unreadable=unreadable, has_cursor=cursor is not None)
    return Listed(tuple(found), cursor, clock_ahead_s(exchange), complete)


def _classify_model(exchange: Exchange) -> Schemas | Missing | Unreachable:
    if exchange.status == 404 and has_problem_shape(exchange.body):
        return Missing()
    document = object_in(exchange.body)
    if exchange.status != 200 or "latest_version" not in document:
        return _unreachable(exchange)
    if document["latest_version"] is None:
        return Missing()
    part: Any = document["latest_version"]
    for name in ("openapi_schema", "components", "schemas"):
        part = part.get(name) if isinstance(part, dict) else None
    return Schemas(part) if isinstance(part, dict) else _unreachable(exchange)


def _classify_upload(exchange: Exchange) -> Uploaded | Unreachable:
    document = object_in(exchange.body)
    urls = document.get("urls")
    url = address_in(urls.get("get")) if isinstance(urls, dict) else None
    if exchange.status not in (200, 201) or exchange.received_at is None or url is None:
        return _unreachable(exchange)
    return Uploaded(url, moment_of(document.get("expires_at")) or exchange.received_at + FILE_LIFE)


def _unreachable(exchange: Exchange) -> Unreachable:
    if exchange.status is None:
        return Unreachable(exchange.problem)
    detail = problem_detail(exchange)
    if 200 <= exchange.status < 300:
        detail = "the answer has another form"
    return Unreachable(f"HTTP {exchange.status}{detail and ': '}{detail}"[:DETAIL_CHARACTERS_MAX])
