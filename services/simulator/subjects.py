"""Tells what a request is about, so that a fault can be aimed at it and the journal name it."""

import json
from urllib.parse import parse_qs, urlsplit

from services.simulator.faults.action import Operation
from services.simulator.faults.fault import Subject
from services.simulator.prediction import Prediction

__all__ = ["generation_of", "subject_of_create", "subject_of_prediction"]


def generation_of(webhook: object) -> str | None:
    """Returns the customer's own name for its work: `g` in the query of the webhook address."""
    if not isinstance(webhook, str):
        return None
    try:
        return parse_qs(urlsplit(webhook).query).get("g", [None])[0]
    except ValueError:
        return None


def subject_of_create(account: str, model: str | None, text: bytes) -> Subject:
    """Returns the subject of a create, however wrong its body is.

    Without `model` the body's `version` says it, if it is a model's name.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    given = body if isinstance(body, dict) else {}
    version = given.get("version")
    if model is None and isinstance(version, str):
        model = version.partition(":")[0]
    return Subject(
        Operation.CREATE, account, model=model, generation=generation_of(given.get("webhook"))
    )


def subject_of_prediction(
    operation: Operation, prediction: Prediction, event: str | None = None
) -> Subject:
    """Returns the subject of whatever is done with a prediction."""
    return Subject(
        operation,
        prediction.account,
        model=prediction.model,
        generation=generation_of(prediction.webhook),
        prediction=prediction.id,
        event=event,
    )
