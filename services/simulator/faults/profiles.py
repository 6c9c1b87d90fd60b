"""Whole weathers of faults under one word."""

from enum import StrEnum
from typing import assert_never

from services.simulator.faults.action import Operation
from services.simulator.faults.actions import (
    CreateLate,
    CreateThenDrop,
    CreateThenHang,
    CreateThenStatus,
    Drop,
    Fail,
    ListLag,
    SlowBoot,
    Stale,
    Status,
    Throttle,
    Truncate,
)
from services.simulator.faults.fault import AnyAction, Fault, Match
from services.simulator.faults.webhook_actions import (
    BadSignature,
    DelayWebhook,
    DropWebhook,
    DuplicateWebhook,
    Reorder,
)

__all__ = ["Profile", "profile_faults"]


Chance = tuple[float, Operation | None, AnyAction]
"""Probability, place (None where the action has one only) and action."""


class Profile(StrEnum):
    """The weathers."""

    CALM = "calm"
    """No faults."""
    FLAKY = "flaky"
    """A bad day: some creates throttled, some answers lost, many webhooks lost or doubled."""
    STORM = "storm"
    """Everything at once: a quarter of the creates goes wrong, half of the webhooks."""
    OUTAGE = "outage"
    """No call is answered, no file given and no webhook sent."""
    LOW_CREDIT = "low_credit"
    """No faults, but 6 creates a minute, one at a time."""


def profile_faults(profile: Profile, lasts_s: float | None = None) -> list[Fault]:
    """Returns the faults of `profile`, which end after `lasts_s`, or never."""
    match profile:
        case Profile.CALM | Profile.LOW_CREDIT:
            chances: list[Chance] = []
        case Profile.FLAKY:
            chances = [
                (0.02, Operation.CREATE, Throttle()),
                (0.03, Operation.CREATE, CreateThenHang()),
                (0.15, None, DropWebhook()),
                (1 / 3, None, DuplicateWebhook()),
            ]
        case Profile.STORM:
            chances = _storm()
        case Profile.OUTAGE:
            # Half of the calls find a proxy that stands before nothing, half not even that.
            chances = [
                (0.5, None, Status(status=503, html=True)),
                (1.0, None, Drop()),
                (1.0, None, DropWebhook()),
            ]
        case _:
            assert_never(profile)
    return [
        Fault(
            match=Match(operation=operation, probability=chance),
            action=action,
            times=None,
            lasts_s=lasts_s,
        )
        for chance, operation, action in chances
    ]


def _storm() -> list[Chance]:
    return [
        (0.10, Operation.CREATE, Throttle()),
        (0.05, Operation.CREATE, CreateThenDrop()),
        (0.05, Operation.CREATE, CreateThenHang(hang_s=30)),
        (0.03, Operation.CREATE, CreateThenStatus(status=502, html=True)),
        (0.02, Operation.CREATE, CreateLate()),
        (0.05, Operation.GET, Status(status=503)),
        (0.05, Operation.GET, Stale(age_s=2)),
        (0.05, Operation.LIST, Status(status=500)),
        (0.20, Operation.LIST, ListLag()),
        (0.05, Operation.CANCEL, Status(status=500)),
        (0.05, None, Fail()),
        (0.05, None, SlowBoot(boot_s=300)),
        (0.30, None, DropWebhook()),
        (1 / 3, None, DuplicateWebhook()),
        (0.20, None, DelayWebhook(delay_s=3)),
        (0.10, None, Reorder()),
        (0.10, None, BadSignature()),
        (0.05, Operation.FILE, Truncate()),
        (0.05, Operation.FILE, Status(status=503)),
    ]
