"""A run in which all was well, of one generation; each test spoils something of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.evidence import Call, Evidence, Limits, Made

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
G, JOB, KEY = "g1", "job1", "outputs/g1.mp4"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def generation(**changes: Any) -> dict[str, Any]:
    return {
        "generation_id": G, "user_id": "ada", "stage": "COMPLETED", "job_id": JOB, "due_at": None,
        "deadline_at": at(60), "finished_at": at(3), "price_credits": 10, "charged_credits": 10,
        "refund_percent": None, "output_key": KEY, "output_size_bytes": 5, "resubmissions": 0,
    } | changes  # fmt: skip


def attempt(number: int = 1, begun_s: float = 0, **changes: Any) -> dict[str, Any]:
    return {
        "generation_id": G, "attempt": number, "created_at": at(begun_s), "settled_at": at(1),
        "send_before": at(begun_s + 1), "state": "CREATED", "http_status": 201,
    } | changes  # fmt: skip


def booked(job_id: str = JOB, **changes: Any) -> dict[str, Any]:
    return {
        "generation_id": G, "job_id": job_id, "role": "ADOPTED", "status": "succeeded",
        "ended_at": at(2), "first_seen_at": at(0.2), "due_at": None,
    } | changes  # fmt: skip


def moves(*wanted: str) -> list[dict[str, Any]]:
    found = []
    for number, move in enumerate(wanted):
        from_stage, event, to_stage = move.split()
        found.append(
            {"generation_id": G, "fence": number, "event": event}
            | {"from_stage": from_stage, "to_stage": to_stage}
        )
    return found


PATH = (
    "RESERVING Reserved READY",
    "READY SubmitClaimed SUBMITTING",
    "SUBMITTING Submitted RUNNING",
    "RUNNING PredictionSeen ARCHIVING",
    "ARCHIVING OutputStored COMMITTING",
    "COMMITTING Committed COMPLETED",
)
MADE = Made(JOB, G, 1, "succeeded", is_charged=True, created_at=at(0.1), ended_at=at(2))


def call(begun_s: float = 0.1, path: str = "/v1/models/a/b/predictions", **changes: Any) -> Call:
    usual = Call(at(begun_s), at(begun_s + 0.1), "api", "POST", path, 201, G, JOB, has_token=True)
    return replace(usual, **changes)


GOOD = Evidence(
    read_at=at(10),
    limits=Limits(),
    generations={G: generation()},
    attempts=[attempt()],
    predictions=[booked()],
    transitions=moves(*PATH),
    made=[MADE],
    calls=[call()],
    reservations={G: ("COMMITTED", 10)},
    file_sizes={KEY: 5},
)
