"""Reads what the provider says about a prediction, wherever it says it.

The same function reads create answers, polls, list items and webhooks. Only `id` and `status` are
required; any other field of a wrong type counts as absent and is named in `oddities`, so a change
at the provider costs a log line and not a paid prediction.

https://replicate.com/docs/reference/http#predictions.get
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "FINAL_STATUSES",
    "NotAPrediction",
    "Prediction",
    "is_interruption",
    "parse_prediction",
    "printable",
    "read_prediction",
    "without_addresses",
]

ID_CHARACTERS_MAX = 64
STATUS_CHARACTERS_MAX = 64
ERROR_CHARACTERS_MAX = 500
ADDRESS_CHARACTERS_MAX = 4_096
LOG_TAIL_CHARACTERS = 4_000
_ADDRESS = re.compile(r"https?://\S+")
_PREDICT_SECONDS_MAX = 1e9

FINAL_STATUSES = frozenset({"succeeded", "failed", "canceled", "aborted"})
_RUNNING = "processing"

# Failures of the provider's machines, not of the model or its input: the same input may well
# succeed next time (https://replicate.com/docs/reference/error-codes).
_INTERRUPTIONS = re.compile(
    r"Prediction interrupted; please retry|Director: unexpected error|"
    r"\b(?:E1000|E6716|E8765|E9243|E9825|E9828)\b"
)

# The form that tqdm writes, and that the provider's own client reads: ` 37%|███▋   | 11/30 [00:1`.
_PROGRESS = re.compile(r"(\d{1,3})%\s*\|[^|\n]*\|\s*\d+/\d+")


class NotAPrediction(Exception):
    """The bytes are not a prediction."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said about a prediction at one moment."""

    job_id: str
    """The provider's id of it."""
    status: str
    """The provider's word; words that we do not know are kept, and are not final."""
    output_url: str | None = None
    """Address of the video, for an hour after the end."""
    error: str | None = None
    """Why it failed, in the provider's words, cut at 500 characters."""
    progress_percent: int | None = None
    """0 to 100, from the log's last progress line."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    """The echoed input; empty once it was removed."""
    predict_seconds: float | None = None
    """How long the model ran, which is what is billed."""
    callback_query: str | None = None
    """The query of the webhook address that was given at the create, where it is echoed."""
    data_removed: bool = False
    """Whether input and output were removed, as they are an hour after the end."""
    oddities: tuple[str, ...] = field(default=())
    """Names of fields that had an unexpected type."""

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in FINAL_STATUSES

    @property
    def seed(self) -> int | None:
        """The seed in the echoed input."""
        seed = self.input.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None

    @property
    def is_processing(self) -> bool:
        """Whether the model runs, as opposed to waiting or booting."""
        return self.status == _RUNNING


def parse_prediction(body: bytes) -> Prediction:
    """Returns what `body` says; raises NotAPrediction, and nothing else, if it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAPrediction("not JSON") from error
    return read_prediction(document)


def read_prediction(document: object) -> Prediction:
    """Returns what a JSON value says; raises NotAPrediction, and nothing else, if it is none."""
    if not isinstance(document, dict):
        raise NotAPrediction("not a JSON object")
    job_id, status = document.get("id"), document.get("status")
    if not isinstance(job_id, str) or not 1 <= len(job_id) <= ID_CHARACTERS_MAX:
        raise NotAPrediction("id is no string of 1 to 64 characters")
    if not (job_id.isprintable() and job_id.isascii()):
        raise NotAPrediction("id has characters that cannot be printed")
    if not isinstance(status, str) or not 1 <= len(status) <= STATUS_CHARACTERS_MAX:
        raise NotAPrediction("status is no string of 1 to 64 characters")
    fields = _Fields(document)
    logs = fields.text("logs")
    webhook = fields.text("webhook")
    return Prediction(
        job_id=job_id,
        status=printable(status),
        output_url=fields.address("output"),
        error=_error_text(document.get("error")),
        progress_percent=_progress(logs),
        created_at=fields.moment("created_at"),
        started_at=fields.moment("started_at"),
        input=fields.mapping("input"),
        predict_seconds=_predict_seconds(fields.mapping("metrics")),
        callback_query=_query(webhook),
        data_removed=document.get("data_removed") is True,
        oddities=tuple(fields.oddities),
    )


class _Fields:
    """Reads the fields of an object and notes those of an unexpected type."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.oddities: list[str] = []

    def text(self, name: str) -> str | None:
        value = self._document.get(name)
        if value is None or isinstance(value, str):
            return value
        self._odd(name)
        return None

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._document.get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self._odd(name)
        return {}

    def moment(self, name: str) -> datetime | None:
        value = self.text(name)
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value)
            # Near the ends of the calendar a time of another zone is none in UTC.
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        self._odd(name)
        return None

    def address(self, name: str) -> str | None:
        """Returns an address given as a string, or as the first string of a list."""
        value = self._document.get(name)
        if isinstance(value, list):
            value = next((item for item in value if isinstance(item, str)), None)
        if value is None:
            return None
        if not isinstance(value, str) or _query_of(value) is None:
            self._odd(name)
            return None
        return value

    def _odd(self, name: str) -> None:
        self.oddities.append(name)


def _error_text(value: object) -> str | None:
    """Returns the error as text: it is a string by the book, and anything in practice."""
    if value is None or value == "":
        return None
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:  # Writing nests a little deeper than reading did.
        text = "an error that is nested too deeply to be shown"
    # A signed address in it is nobody's business but ours and the provider's.
    return without_addresses(printable(text))[:ERROR_CHARACTERS_MAX]


def without_addresses(text: str) -> str:
    """Returns `text` without addresses, which may hold what proves that they are ours."""
    return _ADDRESS.sub("(address)", text)


def printable(text: str) -> str:
    """Returns `text` without what databases and terminals choke on."""
    return "".join(c if c.isprintable() else " " for c in text)


def _progress(logs: str | None) -> int | None:
    lines = _PROGRESS.findall((logs or "")[-LOG_TAIL_CHARACTERS:])
    return min(int(lines[-1]), 100) if lines else None


def _predict_seconds(metrics: Mapping[str, Any]) -> float | None:
    seconds = metrics.get("predict_time")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return float(seconds) if 0 <= seconds < _PREDICT_SECONDS_MAX else None


def is_interruption(prediction: Prediction) -> bool:
    """Tells whether a prediction failed for the provider's own reasons, so that another may not."""
    return prediction.status == "failed" and bool(_INTERRUPTIONS.search(prediction.error or ""))


def _query(address: str | None) -> str | None:
    return None if address is None else _query_of(address) or None


def _query_of(address: str) -> str | None:
    """Returns the query of an address; None if it is none."""
    plain = address.isascii() and address.isprintable()
    if not plain or len(address) > ADDRESS_CHARACTERS_MAX:
        return None
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return parts.query if parts.scheme and parts.netloc else None
