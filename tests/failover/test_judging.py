"""The judge of a failover finds what is lost, and measures what callers saw."""

from dataclasses import replace

from tests.failover.judging import Acknowledged, Event, lost_of, outages_of

TOLD = Acknowledged(
    "ada", "reserve:r", "RESERVATION", at=100.0, waited_s=0.1, tries=1, was_replayed=False
)


def told(at: float, waited_s: float = 0.1, tries: int = 1) -> Acknowledged:
    return replace(TOLD, at=at, waited_s=waited_s, tries=tries)


def test_what_is_in_the_ledger_is_not_lost() -> None:
    assert lost_of([TOLD], {("ada", "reserve:r", "RESERVATION")}) == []


def test_an_acknowledged_movement_that_is_not_in_the_ledger_is_lost() -> None:
    assert lost_of([TOLD], {("bob", "reserve:r", "RESERVATION")}) == [TOLD]


def test_a_movement_of_another_type_under_the_same_key_is_not_the_one_that_was_told() -> None:
    commit = replace(TOLD, key="resolve:r", type="DEDUCTION")

    assert lost_of([commit], {("ada", "resolve:r", "REFUND")}) == [commit]


def test_an_outage_lasts_from_the_last_write_before_to_the_first_after() -> None:
    writes = [told(at) for at in (1.0, 9.5, 10.2, 29.7, 30.0, 70.0)]

    outage = outages_of([Event("killed", begun_at=10.0, whole_at=40.0)], writes)[0]

    assert outage.lasted_s == 40.0, "the silence that had not ended when the cluster was whole"


def test_silences_elsewhere_are_not_an_events() -> None:
    writes = [told(at) for at in (1.0, 50.0, 51.0, 61.0, 62.0, 63.0)]

    outage = outages_of([Event("killed", begun_at=52.0, whole_at=62.5)], writes)[0]

    assert outage.lasted_s == 10.0


def test_an_outage_that_nobody_saw_the_end_of_is_endless() -> None:
    outage = outages_of([Event("killed", begun_at=10.0, whole_at=40.0)], [told(9.0)])[0]

    assert outage.lasted_s == float("inf")


def test_who_asked_again_is_counted_and_whose_answer_was_lost() -> None:
    writes = [
        told(5.0),
        told(12.0, waited_s=3.0, tries=4),
        replace(told(13.0, waited_s=4.0, tries=2), was_replayed=True),
    ]

    outage = outages_of([Event("killed", begun_at=10.0, whole_at=20.0)], writes)[0]

    assert (outage.waited_s_max, outage.repeated, outage.replayed) == (4.0, 2, 1)
