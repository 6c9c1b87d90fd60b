"""Translates between rows of `generations` and the values that the saga works with."""

from typing import Any

from sqlalchemy import RowMapping

from services.generation.state import (
    Failure,
    FailureCode,
    Generation,
    Kind,
    Output,
    Request,
    Stage,
)

__all__ = ["generation_of", "values_of"]

_REQUEST_FIELDS = (
    "model",
    "resolution",
    "prompt",
    "negative_prompt",
    "image_uri",
    "aspect_ratio",
    "seed",
)
_PLAIN_FIELDS = (
    "generation_id",
    "user_id",
    "price_credits",
    "stage_since",
    "due_at",
    "fence",
    "claims",
    "claimed_by",
    "park_reason",
    "uncertain_since",
    "not_before",
    "resubmissions",
    "erase_at",
    "erased_at",
    "refund_percent",
    "retry_of",
    "deleted_at",
    "created_at",
    "deadline_at",
    "updated_at",
    "version",
    "failures",
    "defects",
    "attempt",
    "job_id",
    "provider_status",
    "provider_ended_at",
    "missing",
    "progress_percent",
    "output_url",
    "rejected_available",
    "charged_credits",
    "submitted_at",
    "started_at",
    "finished_at",
    "traceparent",
)


def generation_of(row: RowMapping) -> Generation:
    """Returns the generation that a row holds."""
    output = None
    if row["output_key"] is not None:
        output = Output(
            row["output_key"],
            row["output_size_bytes"],
            row["output_sha256"],
            row["video_seconds"],
            row["thumbnail_key"],
        )
    failure = None
    if row["failure_code"] is not None:
        failure = Failure(FailureCode(row["failure_code"]), row["failure_message"])
    return Generation(
        request=Request(kind=Kind(row["kind"]), **{name: row[name] for name in _REQUEST_FIELDS}),
        stage=Stage(row["stage"]),
        output=output,
        failure=failure,
        parked_from=None if row["parked_from"] is None else Stage(row["parked_from"]),
        **{name: row[name] for name in _PLAIN_FIELDS},
    )


def values_of(generation: Generation) -> dict[str, Any]:
    """Returns the row that holds a generation."""
    output, failure = generation.output, generation.failure
    return {
        **{name: getattr(generation, name) for name in _PLAIN_FIELDS},
        **{name: getattr(generation.request, name) for name in _REQUEST_FIELDS},
        "kind": generation.request.kind.value,
        "stage": generation.stage.value,
        "parked_from": generation.parked_from.value if generation.parked_from else None,
        "output_key": output.key if output else None,
        "output_size_bytes": output.size_bytes if output else None,
        "output_sha256": output.sha256 if output else None,
        "video_seconds": output.video_seconds if output else None,
        "thumbnail_key": output.thumbnail_key if output else None,
        "failure_code": failure.code.value if failure else None,
        "failure_message": failure.message if failure else None,
    }
