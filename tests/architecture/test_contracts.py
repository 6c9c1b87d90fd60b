"""The contracts promise what the code can keep."""

import re
from enum import StrEnum
from pathlib import Path

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import FileDescriptor
from reelworks.credits.v1 import credits_pb2
from reelworks.generation.v1 import generation_pb2, prediction_event_pb2
from reelworks.webhook.v1 import webhook_pb2

from services.credits.ledger import Refusal
from services.credits.records import ReservationState, TransactionType
from services.generation.catalog import Reason
from services.generation.deliveries import Disposition
from services.generation.state import FailureCode, Kind, Stage, Status
from services.runtime.callback import Verdict
from services.webhook.events import EventState

ROOT = Path(__file__).parents[2]
FILES = [
    credits_pb2.DESCRIPTOR,
    generation_pb2.DESCRIPTOR,
    prediction_event_pb2.DESCRIPTOR,
    webhook_pb2.DESCRIPTOR,
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_field_of_a_request_says_whether_it_is_required(file: FileDescriptor) -> None:
    requests = {
        method.input_type.full_name: method.input_type
        for service in file.services_by_name.values()
        for method in service.methods
    }

    assert requests
    for request in requests.values():
        for field in request.fields:
            behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
            assert list(behavior), f"{request.name}.{field.name} has no field_behavior"


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("credits", credits_pb2.DESCRIPTOR),
        ("generation", generation_pb2.DESCRIPTOR),
        ("webhook", webhook_pb2.DESCRIPTOR),
    ],
)
def test_every_reason_that_the_code_gives_is_in_the_contract(
    package: str, file: FileDescriptor
) -> None:
    promised = set(file.enum_types_by_name["ErrorReason"].values_by_name)
    sources = (ROOT / "services" / package).rglob("*.py")
    raised = {
        reason
        for path in sources
        for reason in re.findall(
            r"(?:NotFound|AlreadyExists|PreconditionFailed|Unavailable|Overloaded|NotAllowed"
            r"|DeadlineExceeded)"
            r"\(\s*\"([A-Z_]+)\"",
            path.read_text(),
        )
    }

    assert raised <= promised, f"not in ErrorReason: {sorted(raised - promised)}"


@pytest.mark.parametrize(
    ("words", "promised"),
    [
        (Reason, generation_pb2.ErrorReason.keys()),
        (Kind, generation_pb2.Generation.Kind.keys()),
        (Status, generation_pb2.Generation.Status.keys()),
        (FailureCode, generation_pb2.Generation.Error.Code.keys()),
        (Disposition, prediction_event_pb2.DeliverPredictionEventResponse.Disposition.keys()),
        (Refusal, credits_pb2.ErrorReason.keys()),
        (ReservationState, credits_pb2.Reservation.State.keys()),
        (TransactionType, credits_pb2.Transaction.Type.keys()),
        (EventState, webhook_pb2.Event.State.keys()),
    ],
)
def test_every_word_of_the_core_has_its_value_in_the_contract(
    words: type[StrEnum], promised: list[str]
) -> None:
    assert {word.value for word in words} <= set(promised)


def test_every_verdict_has_its_value_in_the_contract() -> None:
    promised = set(webhook_pb2.Event.QueryVerdict.keys())

    assert {verdict.value.upper() for verdict in Verdict} <= promised


def test_every_stage_has_its_value_in_the_contract() -> None:
    promised = set(generation_pb2.Generation.Stage.keys())

    assert {f"STAGE_{stage.value}" for stage in Stage} <= promised
