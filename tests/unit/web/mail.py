"""Generations and balances as the services tell of them, for tests of how they are passed on."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from services.client.credits import Balance
from services.client.generations import Generation, Kind, Stage, Status

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)

_QUEUED = Generation(
    user_id="ada",
    generation_id="0198c7a4-5e1e-7c11-8d2f-6a1f0c3b9e55",
    kind=Kind.TEXT_TO_VIDEO,
    model="t2v-14B",
    resolution="480p",
    prompt="a red fox",
    negative_prompt="",
    image_uri="",
    aspect_ratio="",
    seed=None,
    status=Status.QUEUED,
    stage=Stage.READY,
    progress_percent=0,
    error=None,
    cost_credits=10,
    charged_credits=0,
    job_id="",
    attempt=0,
    video_uri="",
    created_at=NOW,
    submitted_at=None,
    started_at=None,
    finished_at=None,
    updated_at=NOW,
    version=1,
    queue_position=1,
    eta=None,
    thumbnail_uri="",
    video_seconds=None,
    retry_of="",
    cancel_refund_credits=10,
    deleted_at=None,
    media_removed_at=None,
)


def generation(generation_id: str, version: int = 1, **changes: Any) -> Generation:
    return replace(_QUEUED, generation_id=generation_id, version=version, **changes)


def balance(version: int) -> Balance:
    return Balance("ada", 100 - version, version, version, NOW)
