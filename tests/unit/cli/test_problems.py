"""An error is one line that says what is wrong and what to do next."""

import pytest

from services.cli.problems import explain
from services.runtime.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    ServiceError,
    ServiceFailed,
    Unavailable,
)


@pytest.mark.parametrize("error", [Unavailable("", "connection refused"), DeadlineExceeded("", "")])
def test_services_that_do_not_run_are_to_be_started(error: ServiceError) -> None:
    assert explain(error) == "Reelworks does not answer; start it with `reelworks up`"


def test_every_bad_field_is_named_with_its_rule() -> None:
    error = InvalidRequest([FieldViolation("prompt", "must be set"), FieldViolation("seed", "no")])

    assert explain(error) == "prompt must be set; seed no"


def test_a_refusal_says_how_to_get_on() -> None:
    error = PreconditionFailed("INSUFFICIENT_CREDITS", "10 credits are required, 5 are available.")

    assert explain(error, "ann") == (
        "10 credits are required, 5 are available; add some with "
        "`reelworks credits grant 100 --user ann`, then try again"
    )


def test_the_user_comes_from_the_error_where_no_option_says_it() -> None:
    error = NotFound("ACCOUNT_NOT_FOUND", "No such account.", user_id="bob")

    assert explain(error).endswith("`reelworks credits open --user bob`")


def test_an_unknown_reason_is_told_in_the_service_s_own_words() -> None:
    assert explain(ServiceFailed("NEW_REASON", "It broke.")) == "It broke"
