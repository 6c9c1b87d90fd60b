from dataclasses import replace

import pytest

from services.simulator.ledger import charge_of, settle
from services.simulator.plan import Ending, Plan
from services.simulator.prediction import Prediction, Status
from services.simulator.registry import Price, load_registry

BY_VIDEO = Price("video", 200_000)
BY_SECOND = Price("output_second", 90_000)


def prediction(status: Status, **more: object) -> Prediction:
    one = Prediction(
        id="p1",
        account="one",
        number=1,
        model="owner/name",
        version_id="v",
        shown_version="hidden",
        input={},
        request="",
        prefer=None,
        webhook=None,
        events=frozenset(),
        created_at=100.0,
        deadline=None,
        plan=Plan("p1", 1, 5, Ending.SUCCESS, silent=False, seed=1, jitter_s=0),
        group="g1",
        output_s=81 / 16,
        status=status,
    )
    return replace(one, **more)  # type: ignore[arg-type]


RAN = {"started_at": 101.0, "completed_at": 105.0, "predict_s": 39.5}
UNSTARTED = {"completed_at": 102.5}
COSTS = [
    # status, times, failed charged, canceled before start charged, unit, quantity, micro dollars
    (Status.STARTING, {}, True, True, None, 0, 0),
    (Status.PROCESSING, {"started_at": 101.0}, True, True, None, 0, 0),
    (Status.SUCCEEDED, RAN, False, False, "output_second", 5.0625, 455_625),
    (Status.FAILED, RAN, False, False, None, 0, 0),
    (Status.FAILED, RAN, True, False, "machine_second", 39.5, 60_238),
    (Status.CANCELED, RAN, False, False, "machine_second", 39.5, 60_238),
    (Status.CANCELED, UNSTARTED, False, False, None, 0, 0),
    (Status.CANCELED, UNSTARTED, False, True, "machine_second", 25.0, 38_125),
    (Status.ABORTED, UNSTARTED, True, True, None, 0, 0),
]


@pytest.mark.parametrize(
    ("status", "times", "failed", "before_start", "unit", "quantity", "micro_usd"), COSTS
)
def test_what_each_end_costs(
    status: Status,
    times: dict[str, float],
    failed: bool,
    before_start: bool,
    unit: str | None,
    quantity: float,
    micro_usd: int,
) -> None:
    charge = charge_of(prediction(status, **times), BY_SECOND, 10, failed, before_start)

    assert (charge.unit, charge.quantity, charge.micro_usd) == (unit, quantity, micro_usd)
    assert charge.is_charged == (unit is not None)


def test_some_models_cost_by_the_video() -> None:
    charge = charge_of(prediction(Status.SUCCEEDED, **RAN), BY_VIDEO, 10, False, False)

    assert (charge.unit, charge.quantity, charge.micro_usd) == ("video", 1, 200_000)


def test_sums_are_those_of_generations_and_accounts() -> None:
    predictions = [
        prediction(Status.SUCCEEDED, **RAN),
        prediction(Status.FAILED, id="p2", **RAN),
        prediction(Status.SUCCEEDED, id="p3", group="g2", **RAN),
        prediction(Status.SUCCEEDED, id="p4", account="two", model="owner/other", **RAN),
    ]
    prices = {"owner/name": BY_SECOND, "owner/other": BY_VIDEO}

    ledger = settle(predictions, prices, 10, False, False, missing=3)

    each = 455_625
    assert [one.micro_usd for one in ledger.charges] == [each, 0, each, 200_000]
    totals = {**ledger.generations, **ledger.accounts, "": ledger.total}
    sums = {key: (one.predictions, one.charged, one.micro_usd) for key, one in totals.items()}
    assert sums == {
        "g1": (3, 2, each + 200_000),
        "g2": (1, 1, each),
        "one": (3, 2, 2 * each),
        "two": (1, 1, 200_000),
        "": (4, 3, 2 * each + 200_000),
    }
    assert ledger.missing == 3


def test_the_catalog_has_the_prices_of_replicate() -> None:
    prices = {model.name: (model.price.unit, model.price.micro_usd) for model in load_registry()}

    assert prices == {
        "wan-2.1-1.3b": ("video", 200_000),
        "wan-2.1-t2v-480p": ("output_second", 80_000),
        "wan-2.1-t2v-720p": ("output_second", 240_000),
        "wan-2.1-i2v-480p": ("output_second", 90_000),
        "wan-2.1-i2v-720p": ("output_second", 250_000),
    }
