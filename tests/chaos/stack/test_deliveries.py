"""The judge finds webhooks that were believed though nobody could vouch for them, or given up."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.chaos.stack.exhibits import Exhibits
from tests.chaos.stack.good_stack import EVENT, GOOD, SENT, STORED, proofs

DEAD = STORED | {"state": "DEAD", "disposition": "UNREADABLE", "last_error": ""}
BROKEN = SENT | {"fault": "not_json"}

WRONG: Mapping[str, tuple[str, Exhibits]] = {
    "one that nobody sent": (
        "is in the inbox, and the provider did not send it", replace(GOOD, webhooks=[]),
    ),
    "one that was only to be sent": (
        "the provider did not send it",
        replace(GOOD, webhooks=[SENT | {"status": None, "failure": "never sent"}]),
    ),
    "a forged one": (
        "sent with bad_signature, and acknowledged with 200",
        replace(GOOD, webhooks=[SENT | {"fault": "bad_signature"}]),
    ),
    "one that was changed on its way": (
        "sent with tamper_body, and acknowledged",
        replace(GOOD, webhooks=[SENT, SENT | {"fault": "tamper_body"}]),
    ),
    "a readable one that is dead": (
        "is DEAD for UNREADABLE, and was sent with [None]", replace(GOOD, inbox=[DEAD]),
    ),
    "one that is dead for a refusal": (
        "is DEAD for INTERNAL: ?",
        replace(
            GOOD,
            webhooks=[BROKEN],
            inbox=[DEAD | {"disposition": "", "last_error": "INTERNAL: ?"}],
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_webhook_that_was_not_to_be_is_found(name: str) -> None:
    proof, exhibits = WRONG[name]

    assert proof in proofs("S9", exhibits)


def test_an_unreadable_one_is_dead_and_a_forged_one_refused() -> None:
    forged = SENT | {"fault": "bad_signature", "status": 401}

    assert proofs("S9", replace(GOOD, webhooks=[BROKEN, forged], inbox=[DEAD])) == ""
    assert proofs("S9", replace(GOOD, events=[EVENT], webhooks=[forged, SENT])) == ""
