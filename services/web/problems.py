"""Says what is refused, as RFC 9457 has it: what services refuse, and what web itself does."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus

__all__ = [
    "MEDIA_TYPE",
    "FieldProblem",
    "Problem",
    "Refused",
    "Repeatable",
    "ServiceFailure",
    "body_of",
    "headers_of",
    "invalid",
    "pointer_of",
    "problem",
    "problem_of",
]

MEDIA_TYPE = "application/problem+json"
RETRY_S = 1.0
RETRY_SPREAD_S = 4.0
"""Those who are sent away together come back spread over so long."""
INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS"
INTERNAL_FAILURE = "INTERNAL_FAILURE"
KEY_REUSED = "GENERATION_ID_REUSED"
ERRORS_MAX = 32

_TITLES: Mapping[int, str] = {413: "Content Too Large", 422: "Unprocessable Content"}
"""As RFC 9110 says; Python's names for them depend on its version."""
_MEMBERS = ("type", "title", "status", "detail", "code", "trace_id", "errors", "retry_after_s")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBERS = ("required", "available", "shortfall", "limit", "committed")
"""Metadata that are numbers; others may look like one, as an id does."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of a request."""

    pointer: str
    """JSON pointer to the field, such as `/prompt`; empty: the whole body."""
    detail: str
    """What it must be."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request is not answered as it wished."""

    status: int
    """Of the HTTP answer."""
    code: str
    """Stable name for programs."""
    title: str
    """What the status says, in words."""
    detail: str
    """What happened, for people."""
    errors: tuple[FieldProblem, ...] = ()
    """All fields that are wrong."""
    metadata: Mapping[str, str | int] = field(default_factory=dict)
    """What explains `code` to programs."""
    retry_after_s: float | None = None
    """When to come back; None: the same request has the same answer."""


class Repeatable(Enum):
    """How a request can be repeated whose outcome is open."""

    FREELY = auto()
    """Done twice, it is as if it were done once."""
    BY_KEY = auto()
    """With the same key, by which it is known."""
    NOT = auto()
    """It has no key; done twice, it would be paid twice."""


class Refused(Exception):
    """A request that web itself refuses."""

    def __init__(self, refusal: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refusal.detail)
        self.problem = refusal
        """Why."""
        self.headers = dict(headers or {})
        """What the answer carries besides."""


@dataclass(frozen=True, slots=True)
class ServiceFailure:
    """What a service answered in place of what was asked, as plain values."""

    status: str
    """Name of the gRPC status."""
    reason: str
    """The service's name for it; empty if none was given."""
    message: str
    """Its words; gRPC's own without a reason."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What explains the reason."""
    violations: tuple[tuple[str, str], ...] = ()
    """Path of each wrong field, as `a.b[2]`, and what it must be."""
    retry_after_s: float | None = None
    """When to come back, if the service says."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table: what a gRPC status is in HTTP."""

    status: int
    code: str
    """Where the service names no reason."""
    detail: str
    """Where it has no words of its own."""


_AWAY = _Row(503, "UNAVAILABLE", "A part of the service is away for a moment; repeat the request.")
_FAILED = _Row(500, INTERNAL_FAILURE, "The service failed.")
_TABLE: Mapping[str, _Row] = {
    "INVALID_ARGUMENT": _Row(422, "INVALID_FIELD", "The request is malformed."),
    "NOT_FOUND": _Row(404, "NOT_FOUND", "There is no such thing."),
    "ALREADY_EXISTS": _Row(409, "ALREADY_EXISTS", "It exists already, with other content."),
    "FAILED_PRECONDITION": _Row(409, "FAILED_PRECONDITION", "It cannot be done as things are."),
    "RESOURCE_EXHAUSTED": _Row(429, "OVERLOADED", "There is too much to do; come back later."),
    "UNAVAILABLE": _AWAY,
    "ABORTED": _AWAY,
    "CANCELLED": _AWAY,
    "DEADLINE_EXCEEDED": _Row(504, "DEADLINE_EXCEEDED", "It took too long; repeat the request."),
}
"""Every other status is our fault: a service that does not know us, too, is set up wrongly."""


_OPEN: Mapping[Repeatable, str] = {
    Repeatable.BY_KEY: "Whether it was done is not known. Repeat it with the same Idempotency-Key.",
    Repeatable.NOT: (
        "Whether it was done is not known. List your generations before you repeat it, and send an "
        "Idempotency-Key, with which it can be repeated safely."
    ),
}
"""What is said of a create whose outcome is open; services speak of ids, which callers have not."""


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: tuple[FieldProblem, ...] = (),
    metadata: Mapping[str, str | int] | None = None,
    retry_after_s: float | None = None,
) -> Problem:
    """Returns a problem whose title is the phrase of its status."""
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    return Problem(status, code, title, detail, errors, metadata or {}, retry_after_s)


def invalid(*errors: FieldProblem, code: str = "INVALID_FIELD") -> Problem:
    """Returns the problem of malformed fields."""
    detail = "; ".join(f"{e.pointer.strip('/') or 'The body'} {e.detail}" for e in errors)
    return problem(422, code, detail, errors=errors[:ERRORS_MAX])


def problem_of(
    failure: ServiceFailure, jitter: float, repeatable: Repeatable = Repeatable.FREELY
) -> Problem:
    """Returns what a service's failure is to whoever asked web; `jitter` is 0 up to 1."""
    row = _TABLE.get(failure.status, _FAILED)
    if row is _FAILED:  # What went wrong inside is in the log, and nobody else's to know.
        return problem(row.status, row.code, row.detail)
    status, code, metadata = row.status, failure.reason or row.code, _metadata(failure)
    # Without a reason the words are gRPC's own, about addresses and such.
    told = failure.reason or failure.violations
    detail = failure.message if told and failure.message else row.detail
    retry_after_s = failure.retry_after_s
    if failure.status == "FAILED_PRECONDITION" and code == INSUFFICIENT_CREDITS:
        status = 402
    if status == 504:
        detail = row.detail
    if status == 503 and retry_after_s is None:
        retry_after_s = RETRY_S + RETRY_SPREAD_S * jitter
    if status in (503, 504) and repeatable is not Repeatable.FREELY:
        detail = _OPEN[repeatable]
        if repeatable is Repeatable.NOT:
            retry_after_s = None  # Programs would repeat it without reading this.
    if code == KEY_REUSED:
        other = f", whose `{metadata['field']}` differs" if "field" in metadata else ""
        detail = f"This Idempotency-Key was used for another wish{other}; choose a new one."
    if status == 429 and retry_after_s is None:
        retry_after_s = RETRY_S
    errors = tuple(FieldProblem(pointer_of(path), rule) for path, rule in failure.violations)
    return problem(
        status,
        code,
        detail,
        errors=errors[:ERRORS_MAX],
        metadata=metadata,
        retry_after_s=retry_after_s,
    )


def pointer_of(path: str) -> str:
    """Returns the JSON pointer of a field's path: `a.b[2]` is `/a/b/2`."""
    parts = [part for part in re.split(r"[.\[\]]", path) if part]
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def body_of(refusal: Problem, trace_id: str) -> dict[str, object]:
    """Returns the members of the JSON that tells of a problem."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
        "trace_id": trace_id,
    }
    if refusal.errors:
        body["errors"] = [
            {"pointer": error.pointer, "detail": error.detail} for error in refusal.errors
        ]
    body |= {name: value for name, value in refusal.metadata.items() if name not in _MEMBERS}
    if refusal.retry_after_s is not None:
        body["retry_after_s"] = round(refusal.retry_after_s, 3)
    return body


def headers_of(refusal: Problem) -> dict[str, str]:
    """Returns the headers that an answer with a problem needs."""
    if refusal.retry_after_s is None:
        return {}
    return {"Retry-After": str(max(1, math.ceil(refusal.retry_after_s)))}


def _metadata(failure: ServiceFailure) -> dict[str, str | int]:
    metadata: dict[str, str | int] = {}
    for name, value in failure.metadata.items():
        is_number = name in _NUMBERS and _WHOLE_NUMBER.fullmatch(value)
        metadata[name] = int(value) if is_number else value
    required, available = metadata.get("required"), metadata.get("available")
    if (
        failure.reason == INSUFFICIENT_CREDITS
        and isinstance(required, int)
        and isinstance(available, int)
    ):
        metadata.setdefault("shortfall", max(0, required - available))
    return metadata
