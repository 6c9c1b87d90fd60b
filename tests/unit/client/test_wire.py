"""The client's plain values stand for everything that the wire can carry."""

from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from reelworks.credits.v1 import credits_pb2
from reelworks.generation.v1 import generation_pb2

from services.client.credits import ReservationState, TransactionType
from services.client.generations import GenerationErrorCode, Kind, Stage, Status
from services.client.wire import moment, moment_if_set, named, named_on_wire, timestamp

GENERATION = generation_pb2.Generation


@pytest.mark.parametrize(
    ("plain", "wire", "prefix"),
    [
        (TransactionType, credits_pb2.Transaction.Type, ""),
        (ReservationState, credits_pb2.Reservation.State, ""),
        (Kind, GENERATION.Kind, ""),
        (Status, GENERATION.Status, ""),
        (Stage, GENERATION.Stage, "STAGE_"),
        (GenerationErrorCode, GENERATION.Error.Code, ""),
    ],
)
def test_every_value_of_the_contract_has_a_name_of_its_own(
    plain: type[StrEnum], wire: object, prefix: str
) -> None:
    numbers = wire.values()  # type: ignore[attr-defined]

    names = [named(plain, wire, number, prefix) for number in numbers]  # type: ignore[arg-type]

    assert sorted(names) == sorted(plain)
    assert names[numbers.index(0)] == "UNKNOWN"


def test_a_value_of_a_later_version_is_unknown_and_no_failure() -> None:
    assert named(Status, GENERATION.Status, 4711) is Status.UNKNOWN


def test_nobody_asks_for_unknown() -> None:
    assert named_on_wire(Kind.UNKNOWN, "KIND_UNSPECIFIED") == "KIND_UNSPECIFIED"
    assert named_on_wire(Kind.TEXT_TO_VIDEO, "KIND_UNSPECIFIED") == "TEXT_TO_VIDEO"


def test_times_are_aware_and_survive_the_way_there_and_back() -> None:
    zone = timezone(timedelta(hours=2))
    noon = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=zone)

    returned = moment(timestamp(noon))

    assert returned == noon
    assert returned.tzinfo is UTC


def test_an_unset_time_is_none_and_not_the_year_1970() -> None:
    unset = credits_pb2.Balance()
    at_zero = credits_pb2.Balance(update_time=Timestamp())

    assert moment_if_set(unset, "update_time") is None
    assert moment_if_set(at_zero, "update_time") == datetime(1970, 1, 1, tzinfo=UTC)
