"""Reads create requests: body, version and headers; pure."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from services.simulator.prediction import EVENTS
from services.simulator.problems import (
    InvalidField,
    invalid_input,
    malformed,
    not_found,
    unknown_version,
    wrong_deadline,
)
from services.simulator.registry import Model, Registry, Version
from services.simulator.switches import SchemaGeneration
from services.simulator.validation import Schema

__all__ = [
    "Target",
    "cancel_after_s",
    "check_input",
    "check_webhook",
    "deployment_target",
    "model_target",
    "read_body",
    "version_target",
    "wait_s",
]

CANCEL_AFTER_S_MIN = 5.0
WAIT_S_MAX = 60
_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
_PREFER_WAIT = re.compile(r"wait(?:=(\d{1,3}))?", re.ASCII)


def _body_schema(**more: Any) -> Schema:
    """Returns the schema of a create body; it is closed, unlike the input inside."""
    properties = {
        "input": {"type": "object"},
        "webhook": {"type": "string", "format": "uri", "minLength": 1, "maxLength": 65536},
        "webhook_events_filter": {
            "type": "array",
            "items": {"type": "string", "enum": list(EVENTS)},
        },
        # Deprecated, without effect, and still accepted.
        "stream": {"type": "boolean"},
        **more,
    }
    return Schema(
        {
            "type": "object",
            "required": ["input", *more],
            "properties": properties,
            "additionalProperties": False,
        }
    )


_BODY = _body_schema()
_BODY_WITH_VERSION = _body_schema(version={"type": "string"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a create is to run."""

    model: Model
    version: Version
    shown: str
    """What the prediction says about its version."""
    deployment: str | None = None
    """`owner/name` of the deployment that it is asked of."""


def read_body(text: str, with_version: bool) -> dict[str, Any]:
    """Returns the body of a create; raises a Problem if it is none."""
    try:
        body = json.loads(text, parse_constant=_refuse_constant)
        # What could not be written again as UTF-8, such as half a surrogate pair, is refused too.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise malformed(400, "Invalid JSON", "The request body is not valid JSON") from None
    fields = (_BODY_WITH_VERSION if with_version else _BODY).invalid_fields(body)
    if fields:
        raise invalid_input(fields)
    assert isinstance(body, dict)
    return body


def model_target(
    registry: Registry, full_name: str, generation: SchemaGeneration = "current"
) -> Target:
    """Returns what a create by model runs; raises a Problem for an unknown model."""
    model = registry.find(full_name)
    if model is None:
        raise not_found()
    return Target(model, model.latest(generation), "hidden")


def deployment_target(target: Target) -> Target:
    """Returns what a create by deployment runs: each model is deployed under its own name."""
    version = f"dp-{target.version.id[:32]}"
    return replace(target, shown=version, deployment=target.model.full_name)


def version_target(
    registry: Registry, reference: str, generation: SchemaGeneration = "current"
) -> Target:
    """Returns what a create by version runs; raises a Problem for an unknown version."""
    found = registry.find_version(reference, generation)
    if found is None:
        raise unknown_version()
    model, version = found
    return Target(model, version, "hidden" if reference == model.full_name else version.id)


def check_input(target: Target, model_input: dict[str, Any]) -> None:
    """Raises a Problem if the model does not take the input."""
    fields = target.version.invalid_fields(model_input)
    if fields:
        raise invalid_input(fields)


def cancel_after_s(header: str | None) -> float | None:
    """Returns the seconds of a `Cancel-After` header, such as `1h30m45s`, `5m` or `300`.

    Raises a Problem if it is neither of these or below 5 s.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        seconds = float(text)
    elif text and (match := _DURATION.fullmatch(text)):
        hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = float(hours * 3600 + minutes * 60 + rest)
    else:
        raise wrong_deadline(f"{text!r} is not a duration such as 30s, 5m or 1h30m45s")
    if seconds < CANCEL_AFTER_S_MIN:
        raise wrong_deadline("the minimum is 5 seconds")
    return seconds


def check_webhook(address: str | None, http_taken: bool) -> None:
    """Raises a Problem for an `http:` address, if those are not taken."""
    if not http_taken and address is not None and not address.lower().startswith("https:"):
        raise invalid_input([InvalidField("format", "webhook", "Must be an HTTPS URL")])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def wait_s(prefer: str | None) -> int | None:
    """Returns for how long a `Prefer: wait` header keeps a create open, 1 to 60 seconds."""
    match = _PREFER_WAIT.fullmatch((prefer or "").strip())
    if match is None:
        return None
    return max(1, min(WAIT_S_MAX, int(match[1] or WAIT_S_MAX)))
