"""Carries faults out in the life of a prediction; pure but for one file that it reads."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from services.simulator.faults.actions import (
    Abort,
    Fail,
    LifeAction,
    OutputShape,
    SlowBoot,
    StuckStarting,
    SucceedWith,
)
from services.simulator.plan import Ending, Plan

__all__ = ["afflicted", "shaped_output"]

FOREIGN_HOST = "https://files.example"
UNENCRYPTED_HOST = "http://replicate.delivery"


def afflicted(plan: Plan, action: LifeAction | None) -> Plan:
    """Returns the plan of a life with the fault that fired at its beginning."""
    match action:
        case None:
            return plan
        case StuckStarting():
            return replace(plan, ending=Ending.STUCK_STARTING)
        case SlowBoot():
            return replace(plan, boot_s=action.boot_s)
        case Fail():
            return replace(plan, ending=Ending.FAILURE, error=action.error)
        case SucceedWith():
            return replace(plan, ending=Ending.SUCCESS, output=action.output)
        case Abort():
            return replace(plan, ending=Ending.ABORT)
        case _:
            assert_never(action)


def shaped_output(shape: OutputShape | None, address: str, video: Path) -> str | list[str] | None:
    """Returns `output` in the shape that a fault wants; `video` is what `address` leads to."""
    path = "/" + address.split("/", 3)[-1]
    match shape:
        case None:
            return address
        case "null":
            return None
        case "empty_list":
            return []
        case "list":
            return [address]
        case "data_url":
            return "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()
        case "http_url":
            return UNENCRYPTED_HOST + path
        case "foreign_host":
            return FOREIGN_HOST + path
        case _:
            assert_never(shape)
