"""Draws what will happen to a prediction, from the seed alone."""

import math
import random
import string
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.simulator.faults.actions import OutputShape

__all__ = ["Ending", "Plan", "draw_plan", "stream"]

ID_ALPHABET = string.ascii_lowercase + string.digits
ID_LENGTH = 26
SEED_MAX = 2**31 - 1

BOOT_S = (2.0, 8.0)
COLD_BOOT_S = 60.0
COLD_BOOT_CHANCE = 1 / 20
RUN_SPREAD = 0.15
SLOW_FACTOR = 4.0
JITTER_S_MAX = 0.05
# The durations of the models are those of their default, Balanced.
FAST_MODE_FACTORS = {"Off": 1.4, "Balanced": 1.0, "Fast": 0.7}


class Ending(StrEnum):
    """How a prediction is meant to end, if nobody interferes."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNSAFE = "unsafe"
    """Fails at the very end, because the safety check refuses the video."""
    STUCK = "stuck"
    """Starts and never finishes: only a cancel, its deadline or the time limit ends it."""
    STUCK_STARTING = "stuck_starting"
    """Never starts: only a cancel or its deadline ends it."""
    ABORT = "abort"
    """Ends before it starts."""


# What a person writes into a prompt to see a certain end; the first that is found counts.
ENDING_MARKERS = {
    "[abort]": Ending.ABORT,
    "[stuck]": Ending.STUCK,
    "[nsfw]": Ending.UNSAFE,
    "[fail]": Ending.FAILURE,
}
SLOW_MARKER = "[slow]"
SILENT_MARKER = "[nowebhook]"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a prediction's life that is drawn in advance; durations at speed 1."""

    prediction_id: str
    """26 lower-case letters and digits."""
    boot_s: float
    """Seconds in `starting`."""
    run_s: float
    """Seconds in `processing`, if it succeeds."""
    ending: Ending
    silent: bool
    """Whether no webhook is sent, whatever was asked for."""
    seed: int
    """Seed of the video; a drawn one is 0 to 2**31 - 1."""
    jitter_s: float
    """By how much `created_at` differs between the create answer and later reads."""
    error: str | None = None
    """What a planned failure says; None means the usual text."""
    output: OutputShape | None = None
    """Another shape of `output` than one address; None means the usual one."""


def stream(seed: int, purpose: str, *keys: object) -> random.Random:
    """Returns the generator of one `purpose` for one thing, named by `keys`.

    Each draw has a generator of its own, so that one more request or one more draw does not shift
    the others.
    """
    # Not for secrets of any worth: the whole stand-in is reproducible from its seed.
    return random.Random("|".join((str(seed), purpose, *map(str, keys))))  # noqa: S311


def draw_plan(
    seed: int, account: str, number: int, model_run_s: float, model_input: Mapping[str, Any]
) -> Plan:
    """Returns the plan of an account's `number`-th prediction."""
    prompt = str(model_input.get("prompt", "")).lower()
    boot = stream(seed, "boot", account, number)
    cold = boot.random() < COLD_BOOT_CHANCE
    warm_s = boot.uniform(*BOOT_S)
    spread = stream(seed, "run", account, number).uniform(1 - RUN_SPREAD, 1 + RUN_SPREAD)
    slow = SLOW_FACTOR if SLOW_MARKER in prompt else 1.0
    fast = FAST_MODE_FACTORS.get(str(model_input.get("fast_mode")), 1.0)
    drawn = stream(seed, "video", account, number).randint(0, SEED_MAX)
    return Plan(
        prediction_id="".join(
            stream(seed, "prediction", account, number).choices(ID_ALPHABET, k=ID_LENGTH)
        ),
        boot_s=COLD_BOOT_S if cold else warm_s,
        run_s=model_run_s * spread * slow * fast,
        ending=_ending(prompt),
        silent=SILENT_MARKER in prompt,
        seed=_given_seed(model_input.get("seed"), drawn),
        jitter_s=stream(seed, "jitter", account, number).uniform(0, JITTER_S_MAX),
    )


def _ending(prompt: str) -> Ending:
    for marker, ending in ENDING_MARKERS.items():
        if marker in prompt:
            return ending
    return Ending.SUCCESS


def _given_seed(given: object, drawn: int) -> int:
    """Returns the seed of the request, or the drawn one where none was given."""
    if isinstance(given, (int, float)) and math.isfinite(given):
        return int(given)
    return drawn
