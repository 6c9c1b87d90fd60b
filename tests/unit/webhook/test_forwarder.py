from datetime import UTC, datetime

import grpc
import pytest
from reelworks.generation.v1 import prediction_event_pb2

from services.webhook.forwarder import Answer, settlement_of
from services.webhook.inbox import ClaimedEvent
from services.webhook.tables import State

Disposition = prediction_event_pb2.DeliverPredictionEventResponse.Disposition
Code = grpc.StatusCode


def event(tries: int = 1, refusals: int = 0) -> ClaimedEvent:
    now = datetime.now(UTC)
    return ClaimedEvent(7, "msg_1", "", 0, now, b"{}", tries, refusals, now)


@pytest.mark.parametrize(
    ("disposition", "state", "name"),
    [
        (Disposition.APPLIED, State.DELIVERED, "APPLIED"),
        (Disposition.DUPLICATE, State.DELIVERED, "DUPLICATE"),
        (Disposition.STALE, State.DELIVERED, "STALE"),
        (Disposition.ORPHAN, State.DELIVERED, "ORPHAN"),
        (Disposition.UNMATCHED, State.DELIVERED, "UNMATCHED"),
        (Disposition.UNREADABLE, State.DEAD, "UNREADABLE"),
        (99, State.DELIVERED, "99"),
    ],
)
def test_ok_ends_an_event_whatever_came_of_it(disposition: int, state: State, name: str) -> None:
    settlement = settlement_of(event(), Answer(Code.OK, disposition), 0.2)

    assert (settlement.state, settlement.disposition) == (state, name)


REFUSALS_MAX = {
    Code.INVALID_ARGUMENT: 5,
    Code.OUT_OF_RANGE: 5,
    Code.FAILED_PRECONDITION: 5,
    Code.INTERNAL: 20,
    Code.UNKNOWN: 20,
}


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_every_failure_is_tried_again_as_often_as_the_table_says(code: grpc.StatusCode) -> None:
    refusals_max = REFUSALS_MAX.get(code)

    for earlier in range(40):
        settlement = settlement_of(event(earlier + 1, earlier), Answer(code, detail="why"), 0.2)
        dead = refusals_max is not None and earlier + 1 >= refusals_max
        assert settlement.state is (State.DEAD if dead else State.PENDING)
        assert settlement.refused == (refusals_max is not None)
        assert settlement.error == f"{code.name}: why"


def test_an_outage_before_does_not_count_towards_dead() -> None:
    settlement = settlement_of(event(tries=1000, refusals=0), Answer(Code.INTERNAL), 0.2)

    assert settlement.state is State.PENDING


def test_the_pause_doubles_from_a_fifth_of_a_second_to_half_a_minute() -> None:
    pauses = [
        settlement_of(event(tries), Answer(Code.UNAVAILABLE), 0.2).delay_s
        for tries in (1, 2, 3, 8, 9, 10_000)
    ]

    assert pauses == pytest.approx([0.2, 0.4, 0.8, 25.6, 30, 30])


def test_jitter_spreads_the_pauses_and_never_beyond_the_longest() -> None:
    answer = Answer(Code.UNAVAILABLE)

    assert settlement_of(event(1), answer, 0.16).delay_s == pytest.approx(0.16)
    assert settlement_of(event(3), answer, 0.24).delay_s == pytest.approx(0.96)
    assert settlement_of(event(50), answer, 0.24).delay_s == 30
