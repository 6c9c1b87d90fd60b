"""Says to users why the provider made no video, and what they can do about it; pure.

Its own words name machines, codes and parameters that no user has seen; those are for operators.
https://replicate.com/docs/reference/error-codes
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from services.generation.prediction import Prediction, is_interruption, printable, without_addresses
from services.generation.state import Failure, FailureCode

__all__ = ["Fault", "InvalidField", "explain_failure", "explain_refusal", "fault_of"]

NAME_CHARACTERS_MAX = 30
RULE_CHARACTERS_MAX = 90
FIELDS_MAX = 3
"""Fields that are named; whoever mends these is told of the next."""

_FAILED = "The model failed. You were not charged; try again, or change the prompt."
_INTERRUPTED = "The provider's machines failed. You were not charged; try again."
_ENDED = {
    "succeeded": "The model made no video. You were not charged; try again.",
    "canceled": "The provider stopped the job. You were not charged; try again.",
    "aborted": "The provider never started the job. You were not charged; try again.",
}
_UNSAFE = (
    "The provider's safety filter refused it. You were not charged; change the prompt or the image."
)
_OUT_OF_MEMORY = (
    "The model ran out of memory. You were not charged; choose a lower resolution, or a smaller "
    "image."
)
_NO_IMAGE = (
    "The provider could not load the image. You were not charged; see that its address opens "
    "without a login, or upload the image."
)
_TIMED_OUT = "The model took too long. You were not charged; try again."
_KNOWN = {
    r"\bE005\b|\bNSFW\b|flagged as sensitive|\bsafety\b": _UNSAFE,
    r"\bE1001\b|out of memory|\bOOM\b": _OUT_OF_MEMORY,
    r"\b(?:fetch|load|open|download|read|identify)\w*\b.{0,40}\bimage\b": _NO_IMAGE,
    r"\bimage\b.{0,40}\b(?:fetched|loaded|downloaded|truncated|not found)": _NO_IMAGE,
    r"\bclient error\b.{0,40}\bfor url\b": _NO_IMAGE,
    r"timed?[ -]?out|deadline exceeded": _TIMED_OUT,
}
_SENTENCES = tuple(
    (re.compile(words, re.IGNORECASE), sentence) for words, sentence in _KNOWN.items()
)

_CHANGES = {
    "prompt": "change the prompt",
    "negative_prompt": "change the negative prompt",
    "image": "use another image",
    "seed": "choose another seed",
    "aspect_ratio": "choose another aspect ratio",
    "resolution": "choose another resolution",
    "size": "choose another resolution or aspect ratio",
}
"""What a user can change about a model's parameter; of the others a model decides."""
_REFUSED = {
    403: "The provider does not allow this model. You were not charged; choose another model.",
    404: "The provider does not have this model. You were not charged; choose another model.",
    413: "The provider finds the input too large. You were not charged; shorten the prompt, or use "
    "a smaller image.",
}
_NOT_TAKEN = "The provider refused the input. You were not charged; change the prompt or the image."


class Fault(StrEnum):
    """Whose fault it is that there is no video."""

    USER = "user"
    PROVIDER = "provider"
    OURS = "ours"


@dataclass(frozen=True, slots=True)
class InvalidField:
    """A parameter that a model does not take as it is."""

    name: str
    """As the model calls it; '' if the provider names none."""
    rule: str
    """What is wrong with it, in the provider's words."""


def explain_failure(prediction: Prediction) -> str:
    """Returns why a prediction that ended left no video, and what its user can do."""
    error = prediction.error or ""
    if is_interruption(prediction):
        return _INTERRUPTED
    for words, sentence in _SENTENCES:
        if words.search(error):
            return sentence
    return _ENDED.get(prediction.status, _FAILED)


def fault_of(failure: Failure) -> Fault:
    """Returns whose fault a failure is; what nobody can tell is ours."""
    match failure.code:
        case (
            FailureCode.INPUT_REJECTED
            | FailureCode.INSUFFICIENT_CREDITS
            | FailureCode.ACCOUNT_NOT_FOUND
            | FailureCode.CANCELED
        ):
            return Fault.USER
        case FailureCode.MODEL_FAILED:
            return Fault.USER if failure.message in (_UNSAFE, _NO_IMAGE) else Fault.PROVIDER
        case FailureCode.MODEL_TIMED_OUT:
            return Fault.PROVIDER
        case (
            FailureCode.RESERVE_TIMEOUT
            | FailureCode.QUEUE_TIMEOUT
            | FailureCode.SUBMIT_UNCERTAIN
            | FailureCode.OUTPUT_LOST
        ):
            return Fault.OURS
        case unreachable:
            assert_never(unreachable)


def explain_refusal(http_status: int, fields: Sequence[InvalidField] = ()) -> str:
    """Returns why the provider did not take an input, and what its user can change.

    The same input is refused again, so no refusal says to try again.
    """
    if not fields:
        return _REFUSED.get(http_status, _NOT_TAKEN)
    rules = "; ".join(_rule(field) for field in fields[:FIELDS_MAX])
    changes = list(dict.fromkeys(_CHANGES.get(field.name, "") for field in fields[:FIELDS_MAX]))
    change = ", ".join(one for one in changes if one) or "choose another model or resolution"
    return f"The provider refused the input: {rules}. You were not charged; {change}."


def _rule(field: InvalidField) -> str:
    rule = " ".join(without_addresses(printable(field.rule)).split()).rstrip(".")
    rule = rule[:RULE_CHARACTERS_MAX]
    name = printable(field.name)[:NAME_CHARACTERS_MAX]
    return f"{name}: {rule}" if name and name not in rule else rule
