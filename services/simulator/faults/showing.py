"""Carries faults out at predictions as answers show them; pure."""

from collections.abc import Callable
from typing import Any, assert_never

from services.simulator.faults.actions import (
    DataRemovedEarly,
    NoVersion,
    NullModel,
    OmitFromList,
    OmitWebhook,
    ShownAction,
    Stale,
    UnknownFields,
    UnknownStatus,
)
from services.simulator.prediction import Prediction, as_of

__all__ = ["shown"]

UNKNOWN_FIELDS: dict[str, Any] = {
    "priority": "high",
    "queue": {"position": 3, "eta": None},
    "regions": ["eu-1", 2, None],
}
REMOVED_DATA: dict[str, Any] = {"input": {}, "output": None, "logs": "", "data_removed": True}


def shown(
    prediction: Prediction,
    answer: Callable[[Prediction], dict[str, Any]],
    action: ShownAction | None,
    now: float,
) -> dict[str, Any] | None:
    """Returns what an answer shows of a prediction; None if it is to seem not to be there."""
    match action:
        case None:
            return answer(prediction)
        case UnknownStatus():
            return {**answer(prediction), "status": action.status}
        case NullModel():
            return {**answer(prediction), "model": None}
        case NoVersion():
            return _without(answer(prediction), "version")
        case UnknownFields():
            return {**answer(prediction), **UNKNOWN_FIELDS}
        case OmitWebhook():
            return _without(answer(prediction), "webhook", "webhook_events_filter")
        case DataRemovedEarly():
            return {**answer(prediction), **REMOVED_DATA}
        case Stale():
            earlier = as_of(prediction, now - action.age_s)
            return None if earlier is None else answer(earlier)
        case OmitFromList():
            return None
        case _:
            assert_never(action)


def _without(answer: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in keys}
