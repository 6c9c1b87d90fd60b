import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.webhook.signature import (
    BadSignature,
    Reason,
    Secret,
    Verified,
    decode_secret,
    verify,
)

VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR_HEADERS = [
    ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    ("webhook-timestamp", "1614265330"),
    ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
]
VECTOR_NOW = datetime.fromtimestamp(1614265330, UTC)
KEY = decode_secret(VECTOR_SECRET)
SECRETS = (Secret(0, KEY),)


def sign(key: bytes, webhook_id: str, timestamp: str, body: bytes) -> str:
    content = f"{webhook_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def reason_of(
    body: bytes = VECTOR_BODY,
    headers: list[tuple[str, str]] = VECTOR_HEADERS,
    secrets: tuple[Secret, ...] = SECRETS,
    now: datetime = VECTOR_NOW,
) -> Reason:
    with pytest.raises(BadSignature) as raised:
        verify(body, headers, secrets, now)
    return raised.value.reason


def with_header(name: str, value: str) -> list[tuple[str, str]]:
    return [(n, value if n == name else v) for n, v in VECTOR_HEADERS]


def test_the_published_vector_is_accepted() -> None:
    verified = verify(VECTOR_BODY, VECTOR_HEADERS, SECRETS, VECTOR_NOW)

    assert verified == Verified("msg_p5jXN8AQM9LWM0D4loKWxJek", VECTOR_NOW, 0)


@pytest.mark.parametrize("name", [name for name, _ in VECTOR_HEADERS])
def test_each_header_must_be_there_exactly_once(name: str) -> None:
    missing = [header for header in VECTOR_HEADERS if header[0] != name]
    (value,) = [value for n, value in VECTOR_HEADERS if n == name]

    assert reason_of(headers=missing) is Reason.HEADER_MISSING
    repeated = [*VECTOR_HEADERS, (name.title(), value)]
    assert reason_of(headers=repeated) is Reason.HEADER_REPEATED


@pytest.mark.parametrize("webhook_id", ["", "a b", "msg\u00e9", "msg\x7f", "m\n", "m" * 257])
def test_ids_other_than_visible_ascii_are_refused_even_if_signed(webhook_id: str) -> None:
    signature = sign(KEY, webhook_id, "1614265330", VECTOR_BODY)
    headers = [("webhook-id", webhook_id), VECTOR_HEADERS[1], ("webhook-signature", signature)]

    assert reason_of(headers=headers) is Reason.ID_MALFORMED


@pytest.mark.parametrize(
    "timestamp",
    ["", "1614265330.0", "-1", "+1614265330", " 1614265330", "1614265330\n", "1_614", "1" * 13,
     "\u0661\u0666\u0661\u0664\u0662\u0666\u0665\u0663\u0663\u0660", "nan"],
)  # fmt: skip
def test_timestamps_other_than_digits_are_refused_even_if_signed(timestamp: str) -> None:
    signature = sign(KEY, VECTOR_HEADERS[0][1], timestamp, VECTOR_BODY)
    headers = [
        VECTOR_HEADERS[0],
        ("webhook-timestamp", timestamp),
        ("webhook-signature", signature),
    ]

    assert reason_of(headers=headers) is Reason.TIMESTAMP_MALFORMED


def test_the_age_may_be_five_minutes_either_way_and_not_more() -> None:
    for seconds in (-300, 300):
        verify(VECTOR_BODY, VECTOR_HEADERS, SECRETS, VECTOR_NOW + timedelta(seconds=seconds))

    assert reason_of(now=VECTOR_NOW + timedelta(seconds=300.001)) is Reason.TOO_OLD
    assert reason_of(now=VECTOR_NOW - timedelta(seconds=300.001)) is Reason.TOO_NEW


def test_the_largest_timestamp_is_refused_for_its_age() -> None:
    signature = sign(KEY, "m", "999999999999", b"")
    headers = [
        ("webhook-id", "m"),
        ("webhook-timestamp", "999999999999"),
        ("webhook-signature", signature),
    ]

    assert reason_of(b"", headers) is Reason.TOO_NEW


def test_a_wrong_signature_is_called_wrong_whatever_its_age() -> None:
    assert reason_of(VECTOR_BODY + b" ", now=datetime.now(UTC)) is Reason.WRONG_SIGNATURE


@pytest.mark.parametrize(
    "signature",
    ["", " ", "v1", "v1,", "v1,====", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
     "V1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
     "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE", "v1,c2hvcnQ=", "v1,\u00e9"],
)  # fmt: skip
def test_a_header_without_any_v1_signature_is_refused(signature: str) -> None:
    headers = with_header("webhook-signature", signature)

    assert reason_of(headers=headers) is Reason.NO_SIGNATURE


def test_a_signature_header_of_4096_characters_is_read_and_a_longer_one_is_not() -> None:
    good = VECTOR_HEADERS[2][1]
    longest = "x" * (4096 - len(good) - 1) + " " + good

    verify(VECTOR_BODY, with_header("webhook-signature", longest), SECRETS, VECTOR_NOW)
    too_long = with_header("webhook-signature", "x" + longest)
    assert reason_of(headers=too_long) is Reason.SIGNATURE_TOO_LONG


def test_the_secret_that_signed_is_told_by_its_number() -> None:
    secrets = (Secret(0, b"n" * 24), Secret(1, KEY), Secret(2, KEY))

    assert verify(VECTOR_BODY, VECTOR_HEADERS, secrets, VECTOR_NOW).secret_number == 1


def test_a_retired_secret_counts_until_its_end() -> None:
    secrets = (Secret(0, b"n" * 24), Secret(1, KEY, VECTOR_NOW + timedelta(seconds=1)))

    verify(VECTOR_BODY, VECTOR_HEADERS, secrets, VECTOR_NOW)
    later = VECTOR_NOW + timedelta(seconds=1)
    assert reason_of(secrets=secrets, now=later) is Reason.WRONG_SIGNATURE


def test_without_a_secret_nothing_is_accepted() -> None:
    assert reason_of(secrets=()) is Reason.WRONG_SIGNATURE


def test_the_shape_of_a_secret_shows_nothing_of_it() -> None:
    assert "key" not in repr(SECRETS[0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not start with whsec_"),
        ("whsec_", "has fewer than 16 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 15).decode(), "has fewer than 16 bytes"),
        ("whsec_MfKQ 9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "is not base64 after whsec_"),
        ("whsec_MfKQ-9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "is not base64 after whsec_"),
        ("whsec_\u00e9", "is not base64 after whsec_"),
    ],
)
def test_a_secret_that_could_be_guessed_or_misread_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        decode_secret(text)

    assert str(raised.value) == problem


def test_the_padding_of_a_secret_may_be_missing() -> None:
    key = b"sixteen bytes..x"

    assert decode_secret("whsec_" + base64.b64encode(key).decode().rstrip("=")) == key


# --- Whatever comes ----------------------------------------------------------------------------

_NAMES = st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "Webhook-ID"])
_VALUES = st.one_of(
    st.text(st.characters()),
    st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.from_regex(r"v1,[A-Za-z0-9+/]{43}=( v[12a],[A-Za-z0-9+/=]*)*", fullmatch=True),
    st.integers().map(str),
)


@settings(max_examples=400)
@given(
    st.one_of(
        st.lists(st.tuples(_NAMES, _VALUES), max_size=5),
        st.tuples(_VALUES, _VALUES, _VALUES).map(
            lambda values: list(
                zip(("webhook-id", "webhook-timestamp", "webhook-signature"), values, strict=True)
            )
        ),
    ),
    st.binary(),
)
def test_whatever_the_bytes_nothing_but_bad_signature_is_raised(
    headers: list[tuple[str, str]], body: bytes
) -> None:
    with pytest.raises(BadSignature):
        verify(body, headers, SECRETS, VECTOR_NOW)


@given(
    st.lists(st.text(st.characters(exclude_characters=" "), max_size=60), max_size=12), st.data()
)
def test_a_good_token_is_found_among_whatever_others(
    others: list[str], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(others)))
    tokens = [*others[:place], VECTOR_HEADERS[2][1], *others[place:]]
    headers = with_header("webhook-signature", " ".join(tokens))

    assert verify(VECTOR_BODY, headers, SECRETS, VECTOR_NOW).secret_number == 0
