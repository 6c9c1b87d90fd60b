"""Tells what a request is about, so that a fault can be aimed at it and the journal name it."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from services.simulator.entries import Asked
from services.simulator.faults.action import Operation
from services.simulator.faults.fault import Subject
from services.simulator.prediction import Prediction

__all__ = [
    "asked_in",
    "generation_of",
    "group_of",
    "read_ask",
    "subject_of_create",
    "subject_of_prediction",
]


def generation_of(webhook: object) -> str | None:
    """Returns the customer's own name for its work: `g` in the query of the webhook address."""
    if not isinstance(webhook, str):
        return None
    try:
        return parse_qs(urlsplit(webhook).query).get("g", [None])[0]
    except ValueError:
        return None


def group_of(webhook: object, model_input: object) -> str:
    """Returns what a create belongs to, as far as a stranger can tell; empty if nothing tells.

    That is the customer's own name for its work, in the webhook address or else in the image's,
    else the address of the image without its query, else the seed.
    """
    given = model_input if isinstance(model_input, dict) else {}
    image, seed = given.get("image"), given.get("seed")
    named = generation_of(webhook) or generation_of(image)
    if named:
        return named
    if isinstance(image, str) and not image.startswith("data:"):
        return f"image {image.partition('?')[0]}"
    return "" if _whole(seed) is None else f"seed {seed}"


def read_ask(text: bytes) -> dict[str, Any]:
    """Returns the body of a create, however wrong it is; empty if it is no JSON object."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def asked_in(body: dict[str, Any]) -> Asked:
    """Returns what a create asks for."""
    model_input, webhook = body.get("input"), body.get("webhook")
    seed = model_input.get("seed") if isinstance(model_input, dict) else None
    return Asked(
        group=group_of(webhook, model_input),
        seed=_whole(seed),
        webhook=webhook if isinstance(webhook, str) else None,
    )


def subject_of_create(account: str, model: str | None, body: dict[str, Any]) -> Subject:
    """Returns the subject of a create.

    Without `model` the body's `version` says it, if it is a model's name.
    """
    version = body.get("version")
    if model is None and isinstance(version, str):
        model = version.partition(":")[0]
    return Subject(
        Operation.CREATE, account, model=model, generation=generation_of(body.get("webhook"))
    )


def _whole(seed: object) -> int | None:
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


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
