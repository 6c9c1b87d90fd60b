"""An error is one line that says what is wrong and what to do next."""

import pytest

from services.cli.problems import explain
from services.runtime.errors import (
    Conflict,
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    NotFound,
    Overloaded,
    PreconditionFailed,
    ServiceError,
    ServiceFailed,
    Unavailable,
)


def test_services_that_do_not_run_are_to_be_started() -> None:
    error = Unavailable("", "connection refused")

    assert explain(error) == "Reelworks does not answer; start it with `reelworks up`"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("connections failing; last error: ipv4:127.0.0.1:1: Socket closed", "CERTIFICATE_FILE"),
        ("connections failing; last error: Tls handshake failed (TSI_PROTOCOL…)", "CA_FILE"),
    ],
)
def test_certificates_that_are_not_believed_are_named(said: str, name: str) -> None:
    assert f"REELWORKS_TLS_{name}" in explain(Unavailable("", said))


def test_services_that_are_slow_are_not_to_be_started() -> None:
    assert explain(DeadlineExceeded("", "")) == "Reelworks did not answer in time"


def test_a_verification_that_is_too_long_is_to_be_made_in_parts() -> None:
    error = DeadlineExceeded("VERIFICATION_TOO_LONG", "Not in 10 minutes.")

    assert explain(error) == "Not in 10 minutes; verify one user at a time with --user"


@pytest.mark.parametrize(
    ("error", "is_open"),
    [
        (Unavailable("", "connection reset"), True),
        (Unavailable("DATABASE_UNAVAILABLE", "Away."), True),
        (DeadlineExceeded("", ""), True),
        (ServiceFailed(), True),
        (PreconditionFailed("INSUFFICIENT_CREDITS", "Too few."), False),
        (Conflict("TRANSACTION_CONFLICT", "Others wrote."), False),
    ],
)
def test_a_call_that_may_have_moved_credits_is_repeated_by_its_key(
    error: ServiceError, is_open: bool
) -> None:
    advice = "; whether credits moved is open: repeat with --request-id k1"

    assert explain(error, key="k1").endswith(advice) == is_open
    assert advice not in explain(error)


def test_every_bad_field_is_named_with_its_rule() -> None:
    error = InvalidRequest([FieldViolation("prompt", "must be set"), FieldViolation("seed", "no")])

    assert explain(error) == "prompt must be set; seed (--seed) no"


def test_a_refusal_says_how_to_get_on() -> None:
    error = PreconditionFailed("INSUFFICIENT_CREDITS", "10 credits are required, 5 are available.")

    assert explain(error, "ann") == (
        "10 credits are required, 5 are available; add some with "
        "`reelworks credits grant 100 --user ann`, then try again"
    )


def test_the_user_comes_from_the_error_where_no_option_says_it() -> None:
    error = NotFound("ACCOUNT_NOT_FOUND", "No such account.", user_id="bob")

    assert explain(error).endswith("`reelworks credits open --user bob`")


def test_a_retry_whose_image_has_gone_says_how_to_bring_one() -> None:
    message = "Its image was removed; make a new generation with it."

    assert explain(PreconditionFailed("IMAGE_REMOVED", message)) == (
        "Its image was removed; make a new generation with it; "
        "`reelworks generate PROMPT --image FILE` brings it along"
    )


def test_an_unknown_reason_is_told_in_the_service_s_own_words() -> None:
    assert explain(ServiceFailed("NEW_REASON", "It broke.")) == "It broke"


def test_an_overloaded_service_says_when_to_come_back() -> None:
    error = Overloaded("BACKLOG_FULL", "Too many videos wait.", retry_after_s=45)

    assert explain(error) == "Too many videos wait; try again in 45 s"


def test_what_is_made_already_is_to_be_looked_at() -> None:
    error = PreconditionFailed("ALREADY_SUCCEEDED", "The video exists.", generation_id="g1")

    assert explain(error, "ann").endswith("`reelworks generations show g1 --user ann` says where")
