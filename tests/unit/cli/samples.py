"""Values that the tests of the command line begin with."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from services.client.credits import Balance, Transaction, TransactionType
from services.client.generations import Generation, Kind, Stage, Status

__all__ = ["GENERATION_ID", "balance", "generation", "paid_record", "transaction"]

GENERATION_ID = "01890000-0000-7000-8000-000000000001"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def transaction(version: int, kind: TransactionType, **changes: Any) -> Transaction:
    blank = Transaction("ann", version, kind, 0, 0, 0, 0, "", "", "", NOON)
    return replace(blank, **changes)


def paid_record() -> list[Transaction]:
    """The whole record of a user who paid 10 of 100 credits for a video."""
    own = {"reservation_id": GENERATION_ID}
    return [
        transaction(1, TransactionType.BONUS, credits=100, available_after=100),
        transaction(
            2,
            TransactionType.RESERVATION,
            credits=-10,
            reserved_change=10,
            available_after=90,
            reserved_after=10,
            **own,
        ),
        transaction(3, TransactionType.DEDUCTION, reserved_change=-10, available_after=90, **own),
    ]


def balance(available: int = 90, reserved: int = 0, version: int = 3) -> Balance:
    return Balance("ann", available, reserved, version, NOON)


def generation(**changes: Any) -> Generation:
    completed = Generation(
        user_id="ann",
        generation_id=GENERATION_ID,
        kind=Kind.TEXT_TO_VIDEO,
        model="t2v-14B",
        resolution="480p",
        prompt="a red fox in the snow",
        negative_prompt="",
        image_uri="",
        aspect_ratio="",
        seed=None,
        status=Status.COMPLETED,
        stage=Stage.COMPLETED,
        progress_percent=100,
        error=None,
        cost_credits=10,
        charged_credits=10,
        job_id="j0b",
        attempt=1,
        video_uri="file:///media/video.mp4",
        created_at=NOON,
        submitted_at=NOON,
        started_at=NOON,
        finished_at=NOON,
        updated_at=NOON,
        version=7,
        queue_position=None,
        eta=None,
        thumbnail_uri="",
        video_seconds=5.1,
        retry_of="",
        cancel_refund_credits=None,
        deleted_at=None,
        media_removed_at=None,
    )
    return replace(completed, **changes)
