"""The log of production can be followed by ids, and tells nobody's secrets."""

import json
from typing import Any

import pytest

from tests.end_to_end.telemetry.evening import SERVICES, Evening

pytestmark = pytest.mark.timeout(300)


def lines(evening: Evening, service: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in evening.logs[service].splitlines()]


@pytest.mark.parametrize("service", SERVICES)
def test_all_of_it_is_json_that_says_who_and_when(evening: Evening, service: str) -> None:
    found = lines(evening, service)

    assert len(found) > 10
    assert all({"event", "level", "time", "service"} <= line.keys() for line in found)
    assert {line["service"] for line in found} == {service}


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_and_nothing_that_people_wrote_is_in_it(evening: Evening, service: str) -> None:
    log = evening.logs[service]

    for what, secret in evening.secrets.items():
        assert secret not in log, what
    for word in ("Bearer ", "Authorization", "authorization", "whsec_", "eyJ", "fox", "paper boat"):
        assert word not in log


def test_calls_of_a_create_are_found_by_its_trace_in_every_service(evening: Evening) -> None:
    by_service = {
        service: [
            line
            for line in lines(evening, service)
            if line.get("trace_id") == evening.made.trace_id
        ]
        for service in ("web", "generation", "credits")
    }

    assert all(by_service.values()), by_service
    (answered,) = [line for line in by_service["web"] if line["event"] == "answered"]
    assert (answered["status"], answered["user_id"]) == (202, "ada")
    methods = {
        line["method"].rpartition("/")[2]
        for line in by_service["credits"]
        if line["event"] == "call"
    }
    assert {"Reserve", "Commit"} <= methods
    assert all(len(line["span_id"]) == 16 for line in by_service["generation"])


def test_steps_of_the_worker_say_whose_and_which_generation(evening: Evening) -> None:
    steps = [
        line
        for line in lines(evening, "generation")
        if line["event"] == "generation" and line["generation_id"] == evening.made.generation_id
    ]

    assert {"RUNNING", "COMMITTING", "COMPLETED"} & {step["stage"] for step in steps}
    assert {step["user_id"] for step in steps} == {"ada"}
    assert {step["trace_id"] for step in steps} == {evening.made.trace_id}


def test_what_went_wrong_was_said(evening: Evening) -> None:
    said = {line["event"] for service in SERVICES for line in lines(evening, service)}

    assert {"submit of unknown outcome", "bad signature", "token not accepted"} <= said
    assert set(evening.exit_codes.values()) == {0}
