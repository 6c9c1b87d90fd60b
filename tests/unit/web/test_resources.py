"""What callers see of the services' answers: all that concerns them, and nothing else."""

import json
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone

from services.client import generations
from services.client.credits import Transaction as LedgerTransaction
from services.client.generations import (
    Eta,
    GenerationError,
    GenerationErrorCode,
    Kind,
    Stage,
    Status,
)
from services.web.resources import Balance, Generation, Transaction
from tests.unit.web.mail import balance, generation

INTERNAL = {"user_id", "job_id"}
NOON = datetime(2026, 7, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))


def as_times(names: set[str]) -> set[str]:
    """The API's names of moments, which the clients call `created_at`."""
    verbs = {
        "created_at": "create_time",
        "submitted_at": "submit_time",
        "started_at": "start_time",
        "finished_at": "finish_time",
        "updated_at": "update_time",
        "deleted_at": "delete_time",
        "media_removed_at": "media_remove_time",
    }
    return {verbs.get(name, name) for name in names}


def test_every_field_of_a_generation_is_shown_but_those_that_are_internal() -> None:
    known = {field.name for field in fields(generations.Generation)}

    assert set(Generation.model_fields) == as_times(known - INTERNAL)


def test_every_field_of_a_transaction_is_shown_but_those_that_are_internal() -> None:
    known = {field.name for field in fields(LedgerTransaction)}

    shown = as_times(known - {"user_id", "request_id", "reservation_id"}) | {"generation_id"}
    assert set(Transaction.model_fields) == shown


def test_times_are_in_utc_and_end_in_z() -> None:
    shown = json.loads(
        Generation.of(
            replace(generation("g"), created_at=NOON, eta=Eta(NOON, NOON), finished_at=None)
        ).model_dump_json()
    )

    assert shown["create_time"] == "2026-07-01T12:00:00Z"
    assert shown["eta"]["latest_time"] == "2026-07-01T12:00:00Z"
    assert shown["finish_time"] is None


def test_what_a_newer_service_says_is_shown_as_unknown() -> None:
    newer = replace(
        generation("g"),
        kind=Kind.UNKNOWN,
        status=Status.UNKNOWN,
        stage=Stage.UNKNOWN,
        error=GenerationError(GenerationErrorCode.UNKNOWN, "Something new."),
    )

    shown = json.loads(Generation.of(newer).model_dump_json())

    assert (shown["kind"], shown["status"], shown["stage"]) == ("UNKNOWN",) * 3
    assert shown["error"] == {"code": "UNKNOWN", "message": "Something new."}


def test_a_balance_that_never_moved_has_no_time() -> None:
    shown = json.loads(Balance.of(replace(balance(0), updated_at=None)).model_dump_json())

    assert shown["update_time"] is None
    assert set(shown) == {"available_credits", "reserved_credits", "version", "update_time"}
