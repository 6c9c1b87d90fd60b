"""Who may call what is said for every method of every contract, and for nothing else."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from reelworks.credits.v1 import credits_pb2
from reelworks.generation.v1 import generation_pb2, prediction_event_pb2
from reelworks.webhook.v1 import webhook_pb2

from services.cli.certs import ROLES
from services.credits.callers import CALLERS as CREDITS
from services.generation.callers import CALLERS as GENERATION
from services.runtime.identity import OPERATOR, Callers, named_role
from services.webhook.callers import CALLERS as WEBHOOK

ROOT = Path(__file__).parents[2]
TABLES: list[tuple[Callers, list[FileDescriptor]]] = [
    (CREDITS, [credits_pb2.DESCRIPTOR]),
    (GENERATION, [generation_pb2.DESCRIPTOR, prediction_event_pb2.DESCRIPTOR]),
    (WEBHOOK, [webhook_pb2.DESCRIPTOR]),
]
# The table of the contracts, as people wrote it down.
ALLOWED = {
    "generation": {
        f"/reelworks.credits.v1.CreditsService/{method}"
        for method in (
            *("GetBalance", "Reserve", "Commit", "Refund", "GetReservation"),
            "ListReservations",
        )
    },
    "webhook": {"/reelworks.generation.v1.PredictionEventService/DeliverPredictionEvent"},
    "web": {
        f"/reelworks.credits.v1.CreditsService/{method}"
        for method in ("OpenAccount", "GetBalance", "ListTransactions", "WatchBalance")
    }
    | {
        f"/reelworks.generation.v1.GenerationService/{method.name}"
        for method in generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].methods
        if method.name not in ("GetStats", "ListParked", "ResumeGeneration")
    },
}


def methods(files: list[FileDescriptor]) -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }


@pytest.mark.parametrize(("callers", "files"), TABLES, ids=["credits", "generation", "webhook"])
def test_every_method_has_a_row_and_every_row_a_method(
    callers: Callers, files: list[FileDescriptor]
) -> None:
    assert set(callers) == methods(files)


def test_no_contract_is_left_out() -> None:
    served = {name for _, files in TABLES for file in files for name in file.services_by_name}
    written = {
        name
        for path in (ROOT / "protos").rglob("*.proto")
        for name in re.findall(r"^service (\w+)", path.read_text(), re.MULTILINE)
    }

    assert served == written


@pytest.mark.parametrize("role", [role for role in ROLES if role != OPERATOR])
def test_a_role_may_call_what_was_agreed_and_no_more(role: str) -> None:
    found = {method for callers, _ in TABLES for method, roles in callers.items() if role in roles}

    assert found == ALLOWED.get(role, set())


def test_no_row_names_a_role_that_nobody_has() -> None:
    named = {role for callers, _ in TABLES for roles in callers.values() for role in roles}

    assert named <= set(ROLES)
    assert all(named_role([f"spiffe://reelworks/{role}"]) == role for role in ROLES)


@pytest.mark.parametrize("file", [files[0] for _, files in TABLES], ids=lambda file: file.name)
def test_every_contract_has_the_reason_of_a_caller_who_may_not(file: FileDescriptor) -> None:
    assert "CALLER_NOT_ALLOWED" in file.enum_types_by_name["ErrorReason"].values_by_name
