"""Writes what the API and the webhooks say about things, in Replicate's shapes; pure."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from services.simulator.accounts import Account
from services.simulator.addresses import Addresses
from services.simulator.plan import Ending, stream
from services.simulator.prediction import (
    EVENTS,
    FAILURE_SHARE,
    FINAL,
    Prediction,
    Status,
    is_charged,
    run_elapsed_s,
)
from services.simulator.progress import Run, log_text
from services.simulator.registry import Model, Version
from services.simulator.switches import Switches
from services.simulator.uploads import Upload

__all__ = [
    "View",
    "account_answer",
    "created_answer",
    "file_answer",
    "model_answer",
    "prediction_answer",
    "truth_answer",
    "version_answer",
]

STEPS_WITHOUT_SCHEMA = 30


@dataclass(frozen=True, slots=True)
class View:
    """How predictions are shown now."""

    addresses: Addresses
    speed: float
    now: float
    skew_s: float
    """By how much the moments that are shown are wrong."""
    webhook_echoed: bool
    """Whether `webhook` and its filter are shown."""
    model_aliased: bool = False
    """Whether `model` is shown under an internal name."""

    def model(self, model: str) -> str:
        """Returns the name of a model as answers show it."""
        return f"replicate-internal/{model.replace('/', '-')}" if self.model_aliased else model

    def moment(self, moment: float) -> str:
        """Returns a moment as reads show it."""
        return _microseconds(moment + self.skew_s)


def created_answer(prediction: Prediction, view: View) -> dict[str, Any]:
    """Returns the answer to a create, which lacks what later reads have."""
    answer: dict[str, Any] = {
        "id": prediction.id,
        "model": view.model(prediction.model),
        "version": prediction.shown_version,
        "input": _shuffled(prediction),
        "logs": "",
        "error": None,
        "data_removed": False,
        "source": "api",
        "status": prediction.status,
        "created_at": _nanoseconds(prediction.created_at + view.skew_s),
        "urls": _urls(prediction, view.addresses),
    }
    if prediction.deployment is not None:
        answer["deployment"] = prediction.deployment
    if prediction.deadline is not None:
        answer["deadline"] = view.moment(prediction.deadline)
    return answer


def prediction_answer(
    prediction: Prediction, version: Version, output: object, view: View
) -> dict[str, Any]:
    """Returns a prediction as a read, a list or a webhook shows it."""
    removed = prediction.data_removed
    answer: dict[str, Any] = {
        "id": prediction.id,
        "model": view.model(prediction.model),
        "version": prediction.shown_version,
        "input": _shuffled(prediction),
        "logs": "" if removed else _logs(prediction, version, view),
        "output": None if removed else output,
        "data_removed": removed,
        "error": prediction.error,
        "source": "api",
        "status": prediction.status,
        "created_at": view.moment(prediction.read_created_at),
        "started_at": prediction.started_at and view.moment(prediction.started_at),
        "completed_at": prediction.completed_at and view.moment(prediction.completed_at),
        "metrics": _metrics(prediction),
        "urls": _urls(prediction, view.addresses),
    }
    if prediction.deployment is not None:
        answer["deployment"] = prediction.deployment
    if prediction.deadline is not None:
        answer["deadline"] = view.moment(prediction.deadline)
    if prediction.webhook is not None and view.webhook_echoed:
        answer["webhook"] = prediction.webhook
        answer["webhook_events_filter"] = [one for one in EVENTS if one in prediction.events]
    return answer


def truth_answer(prediction: Prediction, switches: Switches) -> dict[str, Any]:
    """Returns what really is and was with a prediction, for whoever judges the product."""
    truth = asdict(prediction)
    truth["events"] = sorted(prediction.events)
    truth["charged"] = is_charged(
        prediction,
        failed=switches.failed_charged,
        canceled_before_start=switches.canceled_before_start_charged,
    )
    return truth


def model_answer(model: Model, latest: Version | None) -> dict[str, Any]:
    """Returns a model with its latest version, or without it."""
    return {
        "url": f"https://replicate.com/{model.full_name}",
        "owner": model.owner,
        "name": model.name,
        "description": model.about["description"],
        "visibility": "public",
        "is_official": True,
        "github_url": model.about["github_url"],
        "paper_url": model.about["paper_url"],
        "license_url": model.about["license_url"],
        "created_at": model.about["created_at"],
        "run_count": 1,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": latest and version_answer(latest),
    }


def version_answer(version: Version) -> dict[str, Any]:
    """Returns a version of a model with the schema of its input."""
    return {
        "id": version.id,
        "created_at": version.created_at,
        "cog_version": version.cog_version,
        "openapi_schema": {
            "openapi": "3.0.2",
            "info": {"title": "Cog", "version": "0.1.0"},
            "paths": {},
            "components": {"schemas": version.schemas},
        },
    }


def file_answer(upload: Upload, view: View) -> dict[str, Any]:
    """Returns what is known about an uploaded file."""
    return {
        "id": upload.id,
        "name": upload.name,
        "content_type": upload.content_type,
        "size": upload.size_bytes,
        "etag": upload.md5,
        "checksums": {"sha256": upload.sha256, "md5": upload.md5},
        "metadata": upload.metadata,
        "created_at": _milliseconds(upload.created_at + view.skew_s),
        "expires_at": _milliseconds(upload.expires_at + view.skew_s),
        "urls": {"get": view.addresses.upload(upload.id)},
    }


def account_answer(account: Account) -> dict[str, Any]:
    """Returns who an account is."""
    return {
        "type": "user",
        "username": account.username,
        "name": "Simulated account",
        "github_url": None,
    }


def _shuffled(prediction: Prediction) -> dict[str, Any]:
    """Returns the input with its keys in another order, since Replicate does not keep it."""
    keys = list(prediction.input)
    stream(prediction.plan.seed, "key order", prediction.id).shuffle(keys)
    return {key: prediction.input[key] for key in keys}


def _logs(prediction: Prediction, version: Version, view: View) -> str:
    if prediction.started_at is None:
        return ""
    plan = prediction.plan
    steps = int(version.value(prediction.input, "sample_steps", STEPS_WITHOUT_SCHEMA))
    elapsed_s = run_elapsed_s(prediction, view.now, view.speed)
    if plan.ending is Ending.STUCK:
        elapsed_s = min(elapsed_s, plan.run_s * FAILURE_SHARE)
    run = Run(plan.seed, steps, plan.run_s)
    return log_text(run, elapsed_s, finished=prediction.status is Status.SUCCEEDED)


def _metrics(prediction: Prediction) -> dict[str, float]:
    """Returns the durations of a finished prediction as they were at speed 1."""
    if prediction.status not in FINAL or prediction.predict_s is None:
        return {}
    return {
        "predict_time": round(prediction.predict_s, 6),
        "total_time": round(prediction.plan.boot_s + prediction.predict_s, 6),
    }


def _urls(prediction: Prediction, addresses: Addresses) -> dict[str, str]:
    address = addresses.prediction(prediction.id)
    return {"cancel": f"{address}/cancel", "get": address}


def _nanoseconds(moment: float) -> str:
    return f"{_at(moment):%Y-%m-%dT%H:%M:%S}.{int(moment % 1 * 1_000_000_000):09d}Z"


def _microseconds(moment: float) -> str:
    return f"{_at(moment):%Y-%m-%dT%H:%M:%S.%f}Z"


def _milliseconds(moment: float) -> str:
    return f"{_at(moment):%Y-%m-%dT%H:%M:%S}.{int(moment % 1 * 1000):03d}Z"


def _at(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)
