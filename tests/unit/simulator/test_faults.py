import itertools
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from services.simulator.accounts import account_key
from services.simulator.faults.action import Action, Operation
from services.simulator.faults.actions import (
    CreateThenDrop,
    Drop,
    Fail,
    Jump,
    Skew,
    Status,
    Throttle,
)
from services.simulator.faults.engine import FaultEngine
from services.simulator.faults.fault import (
    ANSWER,
    ATTEMPT,
    CANCEL,
    EVENT,
    FILE,
    LIFE,
    LIST,
    SHOWN,
    WORLD,
    AnyAction,
    Fault,
    Match,
    Subject,
)
from services.simulator.faults.profiles import Profile, profile_faults
from services.simulator.faults.webhook_actions import DropWebhook, DuplicateWebhook

CREATE = Subject(
    Operation.CREATE, account_key("r8_one"), model="owner/name", generation="g1", prediction=None
)
COMPLETED = Subject(
    Operation.WEBHOOK, account_key("r8_one"), "owner/name", "g1", "p1", event="completed"
)


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def engine_with(*faults: Fault, seed: int = 1, clock: Time | None = None) -> FaultEngine:
    engine = FaultEngine(seed, clock or Time())
    for fault in faults:
        engine.add(fault)
    return engine


def fired(engine: FaultEngine, times: int, subject: Subject = CREATE) -> list[AnyAction | None]:
    return [engine.fire(subject, ANSWER) for _ in range(times)]


def test_each_action_belongs_to_a_group_and_has_a_name_of_its_own() -> None:
    grouped = {
        one
        for group in (ANSWER, SHOWN, LIST, CANCEL, LIFE, FILE, EVENT, ATTEMPT, WORLD)
        for one in group.types
    }
    kinds = [one.model_fields["kind"].default for one in get_args(AnyAction)]

    assert grouped == set(get_args(AnyAction)) == set(Action.__subclasses__())
    assert len(set(kinds)) == len(kinds) == 70


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        (Match(), True),
        (Match(operation=Operation.WEBHOOK), True),
        (Match(model="owner/name"), True),
        (Match(model="owner/other"), False),
        (Match(token="r8_one"), True),
        (Match(token="r8_two"), False),
        (Match(generation="g1"), True),
        (Match(generation="g2"), False),
        (Match(prediction="p1"), True),
        (Match(prediction="p2"), False),
        (Match(event="completed"), True),
        (Match(event="start"), False),
        (Match(generation="g1", event="start"), False),
    ],
    ids=str,
)
def test_a_fault_fires_where_all_that_it_names_is_so(match: Match, matches: bool) -> None:
    engine = engine_with(Fault(match=match, action=DropWebhook()))

    assert (engine.fire(COMPLETED, EVENT) is not None) == matches


def test_a_fault_fires_at_its_own_operations_only() -> None:
    engine = engine_with(Fault(action=CreateThenDrop()), Fault(action=Fail()))

    assert engine.fire(Subject(Operation.GET, "a"), ANSWER) is None
    assert engine.fire(CREATE, SHOWN) is None
    assert engine.fire(CREATE, ANSWER) == CreateThenDrop()


def test_faults_are_tried_in_order_and_each_fires_as_often_as_told() -> None:
    engine = engine_with(
        Fault(action=Status(status=402)), Fault(action=Throttle(), times=2), Fault(action=Drop())
    )

    kinds = [one and one.kind for one in fired(engine, 5)]

    assert kinds == ["status", "throttle", "throttle", "drop", None]
    assert [(one.fault, one.kind, one.generation) for one in engine.firings] == [
        (1, "status", "g1"),
        (2, "throttle", "g1"),
        (2, "throttle", "g1"),
        (3, "drop", "g1"),
    ]
    assert [(one.seen, one.fired) for one in engine] == [(1, 1), (2, 2), (1, 1)]


def test_faults_that_are_over_make_room_and_others_do_not() -> None:
    clock = Time()
    engine = engine_with(Fault(action=Drop()), Fault(action=Fail()), clock=clock)
    engine.add(Fault(action=Skew(skew_s=1.0), times=None, lasts_s=60.0))
    engine.fire(CREATE, ANSWER)
    assert engine.has_room(4)
    assert [one.number for one in engine] == [1, 2, 3], "there was room, so all are still shown"

    assert engine.has_room(3)
    assert [one.number for one in engine] == [2, 3]
    assert not engine.has_room(2)
    clock.now += 60
    assert engine.has_room(2)
    assert [one.number for one in engine] == [2]
    assert engine.add(Fault(action=Drop())).number == 4, "a number is given once"


def test_the_nth_time_is_counted_among_what_matches() -> None:
    engine = engine_with(Fault(match=Match(nth=3, generation="g1"), action=Drop(), times=None))
    other = Subject(Operation.CREATE, "a", generation="g2")

    assert engine.fire(other, ANSWER) is None
    assert [one is not None for one in fired(engine, 5)] == [False, False, True, False, False]


def test_a_fault_ends_after_its_time() -> None:
    clock = Time()
    engine = engine_with(Fault(action=Drop(), times=None, lasts_s=5), clock=clock)

    assert fired(engine, 1) == [Drop()]
    clock.now += 5
    assert fired(engine, 1) == [None]


def test_a_removed_fault_fires_no_more_and_numbers_go_on() -> None:
    engine = engine_with(Fault(action=Drop()), Fault(action=Throttle()))

    assert engine.remove(1)
    assert not engine.remove(1)
    assert fired(engine, 1) == [Throttle()]
    engine.remove_all()
    assert engine.add(Fault(action=Drop())).number == 3
    engine.clear()
    assert list(engine.firings) == []
    assert engine.add(Fault(action=Drop())).number == 1


def test_all_faults_of_the_world_fire_together() -> None:
    engine = engine_with(Fault(action=Skew(skew_s=9)), Fault(action=Jump(jump_s=5)))

    assert engine.fire_all(CREATE, WORLD) == [Skew(skew_s=9), Jump(jump_s=5)]
    assert engine.fire_all(CREATE, WORLD) == []


def test_the_same_seed_plans_the_same_faults() -> None:
    def plan(seed: int) -> list[AnyAction | None]:
        return fired(engine_with(*profile_faults(Profile.STORM), seed=seed), 300)

    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


def test_one_fault_more_does_not_shift_what_another_draws() -> None:
    half = Fault(match=Match(probability=0.5), action=DropWebhook(), times=None)
    unmet = Fault(match=Match(generation="g2"), action=DuplicateWebhook(), times=None)

    def draws(*faults: Fault) -> list[bool]:
        engine = engine_with(*faults)
        return [engine.fire(COMPLETED, EVENT) is not None for _ in range(100)]

    assert draws(half) == draws(half, unmet)


def shares(profile: Profile, subject: Subject, group: Any) -> dict[str, float]:
    engine, count = engine_with(*profile_faults(profile)), 10_000
    kinds = sorted(
        action.kind for _ in range(count) if (action := engine.fire(subject, group)) is not None
    )
    return {kind: len(list(same)) / count for kind, same in itertools.groupby(kinds)}


def test_flaky_has_the_rates_that_it_promises() -> None:
    creates = shares(Profile.FLAKY, CREATE, ANSWER)
    events = shares(Profile.FLAKY, COMPLETED, EVENT)

    assert creates == {
        "throttle": pytest.approx(0.02, abs=0.006),
        "create_then_hang": pytest.approx(0.03, abs=0.007),
    }
    # A third of those that are not lost.
    assert events == {
        "drop_webhook": pytest.approx(0.15, abs=0.015),
        "duplicate_webhook": pytest.approx(0.85 / 3, abs=0.02),
    }


def test_a_storm_spoils_a_quarter_of_the_creates_and_half_of_the_events() -> None:
    assert 0.20 < sum(shares(Profile.STORM, CREATE, ANSWER).values()) < 0.28
    assert 0.5 < sum(shares(Profile.STORM, COMPLETED, EVENT).values()) < 0.75


def test_an_outage_lets_nothing_through_until_it_ends() -> None:
    clock = Time()
    engine = engine_with(*profile_faults(Profile.OUTAGE, lasts_s=30), clock=clock)

    assert {one and one.kind for one in fired(engine, 50)} == {"status", "drop"}
    assert engine.fire(COMPLETED, EVENT) == DropWebhook()
    clock.now += 30
    assert fired(engine, 5) == [None] * 5


@pytest.mark.parametrize("profile", [Profile.CALM, Profile.LOW_CREDIT])
def test_some_weathers_have_no_faults(profile: Profile) -> None:
    assert profile_faults(profile) == []


@pytest.mark.parametrize(
    ("fault", "field", "rule"),
    [
        ({"action": {"kind": "drop", "s": 5}}, ("action", "drop", "s"), "Extra inputs"),
        ({"action": {"kind": "hail"}}, ("action",), "'hail' found using 'kind'"),
        ({"action": {}}, ("action",), "Unable to extract tag using discriminator 'kind'"),
        ({"action": {"kind": "status"}}, ("action", "status", "status"), "Field required"),
        (
            {"action": {"kind": "create_then_hang", "hang_s": 0}},
            ("action", "create_then_hang", "hang_s"),
            "greater than 0",
        ),
        ({"action": {"kind": "drop"}, "times": 0}, ("times",), "greater than or equal to 1"),
        (
            {"action": {"kind": "drop"}, "match": {"probability": 1.5}},
            ("match", "probability"),
            "less than or equal to 1",
        ),
        (
            {"action": {"kind": "drop"}, "match": {"color": "red"}},
            ("match", "color"),
            "Extra inputs",
        ),
        (
            {"action": {"kind": "create_late"}, "match": {"operation": "get"}},
            (),
            "create_late cannot fire at operation get, only at: create",
        ),
        (
            {"action": {"kind": "fail"}, "match": {"event": "start"}},
            (),
            "fail cannot fire at an event",
        ),
    ],
)
def test_a_wrong_fault_is_refused_by_field_and_rule(
    fault: dict[str, Any], field: tuple[str, ...], rule: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Fault.model_validate(fault)

    (error,) = caught.value.errors()
    assert error["loc"] == field
    assert rule in error["msg"]
