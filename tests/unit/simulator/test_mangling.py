import gzip
import json
from datetime import UTC, datetime

import pytest
import standardwebhooks

from services.simulator.faults.action import Action
from services.simulator.faults.mangling import Letter, Outgoing, outgoing
from services.simulator.faults.webhook_actions import (
    AimAtOtherGeneration,
    BadSignature,
    Chunked,
    DuplicateHeader,
    FractionalTimestamp,
    FutureTimestamp,
    GarbageTokenFirst,
    Gzip,
    HugeLogs,
    MissingHeader,
    NotJson,
    OtherEnvironment,
    SlowBody,
    StaleTimestamp,
    TamperBody,
    TamperQuery,
    TwoSignatures,
    V2Only,
    WrongMethod,
    WrongSecret,
)
from services.simulator.signature import make_secret

SECRET = make_secret(1, "r8_one")
ADDRESS = "http://127.0.0.1/hook?g=g1&a=1&k=Daszh2H3NSRew-OYM0JrgA"
LETTER = Letter("msg_1", ADDRESS, b'{"id":"p1","logs":"a"}', (SECRET,), at_s=1_700_000_000)
SOUND = outgoing(LETTER, None)


def genuine(request: Outgoing, body: bytes | None = None) -> bool:
    """Whether an independent verifier takes the signature, at the moment that it claims."""
    headers = dict(request.headers)
    verifier = standardwebhooks.Webhook(SECRET)
    try:
        signed = verifier.sign(
            headers["webhook-id"],
            datetime.fromtimestamp(float(headers["webhook-timestamp"]), UTC),
            (body or request.body).decode(),
        )
    except KeyError:
        return False
    return signed in headers.get("webhook-signature", "").split(" ")


@pytest.mark.parametrize(
    ("action", "is_genuine"),
    [
        (None, True),
        (BadSignature(), False),
        (WrongSecret(), False),
        (V2Only(), False),
        (TwoSignatures(), True),
        (GarbageTokenFirst(), True),
        (StaleTimestamp(), True),
        (FutureTimestamp(), True),
        (MissingHeader(header="webhook-id"), False),
        (MissingHeader(), False),
        (DuplicateHeader(), True),
        (TamperBody(), False),
        (TamperQuery(), True),
        (AimAtOtherGeneration(generation="g2"), True),
        (OtherEnvironment(query="g=g1&a=1&k=x"), True),
        (HugeLogs(size_mib=1), True),
        (Chunked(), True),
        (SlowBody(), True),
        (NotJson(), True),
        (WrongMethod(), True),
    ],
    ids=lambda value: value.kind if isinstance(value, Action) else str(value),
)
def test_a_signature_is_right_exactly_where_it_should_be(action: None, is_genuine: bool) -> None:
    assert genuine(outgoing(LETTER, action)) is is_genuine


def test_tokens_that_do_not_count_stand_before_the_right_one() -> None:
    right = dict(SOUND.headers)["webhook-signature"]

    two = dict(outgoing(LETTER, TwoSignatures()).headers)["webhook-signature"]
    garbage = dict(outgoing(LETTER, GarbageTokenFirst()).headers)["webhook-signature"]
    v2 = dict(outgoing(LETTER, V2Only()).headers)["webhook-signature"]

    assert two.split(" ")[1] == right != two.split(" ")[0]
    assert garbage.endswith(f" {right}")
    assert len(garbage.split(" ")) > 2
    assert v2 == right.replace("v1,", "v2,")


def test_timestamps_are_past_ahead_or_broken() -> None:
    def shown(request: Outgoing) -> str:
        return dict(request.headers)["webhook-timestamp"]

    assert shown(outgoing(LETTER, StaleTimestamp(age_s=600))) == "1699999400"
    assert shown(outgoing(LETTER, FutureTimestamp(ahead_s=600))) == "1700000600"
    assert shown(outgoing(LETTER, FractionalTimestamp())) == "1700000000.25"


def test_headers_are_missing_or_double() -> None:
    names = [name for name, _ in outgoing(LETTER, DuplicateHeader()).headers]

    assert names.count("webhook-signature") == 2
    missing = outgoing(LETTER, MissingHeader(header="webhook-timestamp"))
    assert "webhook-timestamp" not in dict(missing.headers)


def test_the_address_changes_where_no_signature_covers_it() -> None:
    assert outgoing(LETTER, TamperQuery()).address == ADDRESS[:-1] + "B"
    other = outgoing(LETTER, AimAtOtherGeneration(generation="g2")).address
    assert other == ADDRESS.replace("g=g1", "g=g2")
    foreign = outgoing(LETTER, OtherEnvironment(query="g=g9&a=2&k=z")).address
    assert foreign == "http://127.0.0.1/hook?g=g9&a=2&k=z"


def test_the_body_changes_form_or_size() -> None:
    packed = outgoing(LETTER, Gzip())
    huge = outgoing(LETTER, HugeLogs(size_mib=2))

    assert ("Content-Encoding", "gzip") in packed.headers
    assert gzip.decompress(packed.body) == LETTER.body
    assert genuine(packed, LETTER.body)
    assert len(json.loads(huge.body)["logs"]) == 2 * 1024 * 1024 + 1
    assert json.loads(outgoing(LETTER, TamperBody()).body) == json.loads(LETTER.body)
    with pytest.raises(ValueError):
        json.loads(outgoing(LETTER, NotJson()).body)
    assert outgoing(LETTER, Chunked()).in_chunks
    assert outgoing(LETTER, SlowBody(body_s=3)).body_s == 3
    assert outgoing(LETTER, WrongMethod()).method == "PUT"
