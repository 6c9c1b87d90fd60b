"""Each row of the table from gRPC to HTTP, and what of a failure its caller is told."""

import pytest

from services.web.problems import (
    FieldProblem,
    Problem,
    Repeatable,
    ServiceFailure,
    body_of,
    headers_of,
    invalid,
    pointer_of,
    problem,
    problem_of,
)

TOLD = "You have 5 credits, and need 20."


def failure(status: str, reason: str = "SOME_REASON", **changes: object) -> ServiceFailure:
    return ServiceFailure(status, reason, TOLD, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "reason", "http_status"),
    [
        ("INVALID_ARGUMENT", "INVALID_FIELD", 422),
        ("NOT_FOUND", "GENERATION_NOT_FOUND", 404),
        ("ALREADY_EXISTS", "ID_REUSED", 409),
        ("FAILED_PRECONDITION", "INSUFFICIENT_CREDITS", 402),
        ("FAILED_PRECONDITION", "GENERATION_ENDED", 409),
        ("FAILED_PRECONDITION", "NOT_RETRYABLE", 409),
        ("FAILED_PRECONDITION", "QUOTE_EXPIRED", 409),
        ("RESOURCE_EXHAUSTED", "TOO_MANY_UNFINISHED", 429),
        ("UNAVAILABLE", "CREDITS_UNAVAILABLE", 503),
        ("ABORTED", "CONFLICT", 503),
        ("CANCELLED", "STOPPING", 503),
        ("DEADLINE_EXCEEDED", "TOO_LATE", 504),
    ],
)
def test_each_status_has_its_answer_and_keeps_its_reason(
    status: str, reason: str, http_status: int
) -> None:
    found = problem_of(failure(status, reason), jitter=0.5)

    assert (found.status, found.code) == (http_status, reason)


@pytest.mark.parametrize(
    "status",
    [
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "INTERNAL",
        "UNKNOWN",
        "UNIMPLEMENTED",
        "DATA_LOSS",
        "OUT_OF_RANGE",
        "OK",
    ],
)
def test_what_is_our_fault_says_no_more_than_that(status: str) -> None:
    found = problem_of(failure(status, metadata={"role": "unknown"}), jitter=0)

    assert found == problem(500, "INTERNAL_FAILURE", "The service failed.")


def test_too_few_credits_name_the_exact_shortfall() -> None:
    metadata = {"required": "20", "available": "5"}

    found = problem_of(
        failure("FAILED_PRECONDITION", "INSUFFICIENT_CREDITS", metadata=metadata), jitter=0
    )

    assert found.metadata == {"required": 20, "available": 5, "shortfall": 15}
    assert found.detail == TOLD


def test_an_id_that_looks_like_a_number_stays_an_id() -> None:
    found = problem_of(failure("NOT_FOUND", metadata={"generation_id": "123"}), jitter=0)

    assert found.metadata == {"generation_id": "123"}


def test_every_wrong_field_is_listed_by_its_pointer() -> None:
    violations = (("prompt", "must have 10 to 500 characters"), ("a.b[2]", "must be set"))

    found = problem_of(failure("INVALID_ARGUMENT", "", violations=violations), jitter=0)

    assert found.errors == (
        FieldProblem("/prompt", "must have 10 to 500 characters"),
        FieldProblem("/a/b/2", "must be set"),
    )
    assert found.detail == TOLD


@pytest.mark.parametrize("status", ["UNAVAILABLE", "NOT_FOUND", "FAILED_PRECONDITION"])
def test_words_that_no_service_chose_are_not_passed_on(status: str) -> None:
    words = "ipv4:10.0.0.7:50051: connection refused"

    found = problem_of(ServiceFailure(status, "", words), jitter=0)

    assert "10.0.0.7" not in str(body_of(found, "t"))
    assert found.code


def test_who_is_sent_away_comes_back_spread_over_time() -> None:
    early, late = (problem_of(failure("UNAVAILABLE"), jitter) for jitter in (0.0, 0.999))

    assert (early.retry_after_s, headers_of(early)) == (1.0, {"Retry-After": "1"})
    assert headers_of(late) == {"Retry-After": "5"}


def test_a_service_says_itself_when_to_come_back() -> None:
    found = problem_of(failure("RESOURCE_EXHAUSTED", retry_after_s=12.5), jitter=0.9)

    assert headers_of(found) == {"Retry-After": "13"}
    assert body_of(found, "t")["retry_after_s"] == 12.5


@pytest.mark.parametrize("status", ["DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED"])
def test_an_open_outcome_says_how_the_request_is_repeated(status: str) -> None:
    freely, by_key, without = (
        problem_of(failure(status), 0, way)
        for way in (Repeatable.FREELY, Repeatable.BY_KEY, Repeatable.NOT)
    )

    # What has no key to be repeated with is not told to use the same.
    assert "key" not in freely.detail.lower()
    assert "Repeat it with the same Idempotency-Key." in by_key.detail
    assert "List your generations before you repeat it" in without.detail
    assert "send an Idempotency-Key" in without.detail
    # No program shall repeat it just because it was told when.
    assert headers_of(without) == {}
    assert headers_of(by_key) == headers_of(freely)


def test_what_is_not_open_is_said_in_the_words_of_the_service() -> None:
    for way in Repeatable:
        found = problem_of(failure("FAILED_PRECONDITION", "INSUFFICIENT_CREDITS"), 0, way)

        assert found.detail == TOLD


def test_a_reused_key_is_told_as_what_the_caller_sent() -> None:
    words = "The generation id was used with another seed."
    reused = ServiceFailure("ALREADY_EXISTS", "GENERATION_ID_REUSED", words, {"field": "seed"})

    found = problem_of(reused, 0, Repeatable.BY_KEY)

    assert found.detail == (
        "This Idempotency-Key was used for another wish, whose `seed` differs; choose a new one."
    )
    assert found.metadata == {"field": "seed"}


def test_the_body_has_the_members_of_the_standard() -> None:
    body = body_of(problem(402, "INSUFFICIENT_CREDITS", TOLD, metadata={"required": 20}), "abc")

    assert body == {
        "type": "about:blank",
        "title": "Payment Required",
        "status": 402,
        "detail": TOLD,
        "code": "INSUFFICIENT_CREDITS",
        "trace_id": "abc",
        "required": 20,
    }


def test_metadata_cannot_take_the_place_of_a_member() -> None:
    body = body_of(Problem(409, "X", "Conflict", "d", metadata={"status": 200, "field": "a"}), "t")

    assert body["status"] == 409
    assert body["field"] == "a"


@pytest.mark.parametrize(
    ("path", "pointer"),
    [("prompt", "/prompt"), ("a.b[2].c", "/a/b/2/c"), ("a/b", "/a~1b"), ("a~b", "/a~0b"), ("", "")],
)
def test_a_path_becomes_a_pointer(path: str, pointer: str) -> None:
    assert pointer_of(path) == pointer


def test_malformed_fields_are_told_in_a_sentence_each() -> None:
    found = invalid(FieldProblem("/name", "must be short"), FieldProblem("", "must be JSON"))

    assert found.status == 422
    assert found.detail == "name must be short; The body must be JSON"
    assert found.title == "Unprocessable Content"
