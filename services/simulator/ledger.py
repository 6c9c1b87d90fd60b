"""Works out what each prediction costs; pure.

A successful one costs what its model costs, by the second of its video or by the video. Where one
that did not succeed costs anything, it costs the time for which it had the machine.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from services.simulator.prediction import Prediction, Status, is_charged
from services.simulator.registry import Price

__all__ = ["Charge", "Ledger", "Total", "charge_of", "settle"]

MACHINE_MICRO_USD_PER_S = 1525
"""What a second of an H100 costs in Replicate's list of 2025, in millionths of a dollar."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one prediction costs; money is in millionths of a dollar."""

    prediction: str
    account: str
    group: str
    """The customer's name for its work, or what else its requests have in common."""
    model: str
    status: Status
    is_charged: bool
    unit: Literal["output_second", "video", "machine_second"] | None
    """None if it costs nothing."""
    quantity: float
    """In units; seconds of the machine are those at speed 1."""
    micro_usd: int


@dataclass(frozen=True, slots=True)
class Total:
    """A sum of charges."""

    predictions: int
    charged: int
    micro_usd: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All charges and their sums."""

    charges: tuple[Charge, ...]
    generations: Mapping[str, Total]
    """By group."""
    accounts: Mapping[str, Total]
    """By key of the account."""
    total: Total
    missing: int
    """Predictions that were forgotten to bound memory and are in no sum."""


def settle(
    predictions: Iterable[Prediction],
    prices: Mapping[str, Price],
    speed: float,
    failed_charged: bool,
    canceled_before_start_charged: bool,
    missing: int = 0,
) -> Ledger:
    """Returns what `predictions` cost, by the prices of their models."""
    charges = tuple(
        charge_of(one, prices[one.model], speed, failed_charged, canceled_before_start_charged)
        for one in predictions
    )
    return Ledger(
        charges=charges,
        generations=_totals((one.group, one) for one in charges),
        accounts=_totals((one.account, one) for one in charges),
        total=_total(charges),
        missing=missing,
    )


def charge_of(
    prediction: Prediction,
    price: Price,
    speed: float,
    failed_charged: bool,
    canceled_before_start_charged: bool,
) -> Charge:
    """Returns what one prediction costs; the two flags decide what nobody knows."""
    charged = is_charged(
        prediction, failed=failed_charged, canceled_before_start=canceled_before_start_charged
    )
    unit: Literal["output_second", "video", "machine_second"] | None = None
    quantity = each = 0.0
    if charged and prediction.status is Status.SUCCEEDED:
        unit, each = price.unit, price.micro_usd
        quantity = prediction.output_s if price.unit == "output_second" else 1.0
    elif charged:
        unit, each = "machine_second", MACHINE_MICRO_USD_PER_S
        quantity = _machine_s(prediction, speed)
    return Charge(
        prediction=prediction.id,
        account=prediction.account,
        group=prediction.group,
        model=prediction.model,
        status=prediction.status,
        is_charged=charged,
        unit=unit,
        quantity=round(quantity, 6),
        # What a float adds in its last digits is no part of a price.
        micro_usd=math.ceil(round(quantity * each, 3)),
    )


def _machine_s(prediction: Prediction, speed: float) -> float:
    """Returns for how long a prediction had the machine, at speed 1; booting counts."""
    if prediction.predict_s is not None:
        return prediction.predict_s
    assert prediction.completed_at is not None, "only what has ended is charged"
    return max(0.0, prediction.completed_at - prediction.created_at) * speed


def _totals(charges: Iterable[tuple[str, Charge]]) -> dict[str, Total]:
    groups: dict[str, list[Charge]] = {}
    for key, charge in charges:
        groups.setdefault(key, []).append(charge)
    return {key: _total(mine) for key, mine in groups.items()}


def _total(charges: Iterable[Charge]) -> Total:
    listed = list(charges)
    return Total(
        predictions=len(listed),
        charged=sum(one.is_charged for one in listed),
        micro_usd=sum(one.micro_usd for one in listed),
    )
