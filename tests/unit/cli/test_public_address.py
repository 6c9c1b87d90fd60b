"""What an answer to an unsigned webhook says about the way that webhooks take."""

import base64
from datetime import UTC, datetime

import pytest

from services.cli.public_address import (
    NOT_READY,
    REFUSAL,
    Knock,
    check_address,
    fetch_secret,
    find_obstacle,
    newest_key,
    sample_event,
)
from services.cli.webhooks import parse_moment
from services.webhook.signature import Secret, verify

KEY = bytes(range(24))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://reelworks.example/api/webhooks/replicate", None),
        ("http://127.0.0.1:8081/api/webhooks/replicate", None),
        ("http://localhost:8081/api/webhooks/replicate", None),
        ("http://reelworks.example/api/webhooks/replicate", "must begin with https"),
        ("https://reelworks.example/api?x=1", "must have no query"),
        ("reelworks.example", "is no address"),
        ("ftp://reelworks.example/", "is no address"),
        ("https://", "is no address"),
        ("https://[::1", "is no address"),
        ("https://reelworks.example:99999/", "is no address"),
    ],
)
def test_an_address_is_judged_before_anybody_knocks(url: str, problem: str | None) -> None:
    found = check_address(url)

    assert found is None if problem is None else str(found).startswith(problem)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (Knock(401, "", b"login required"), "something else"),
        (Knock(301, "https://www.example/", b""), "redirects (301) to https://www.example/"),
        (Knock(308, "", b""), "redirects (308) to nowhere"),
        (Knock(404, "", b""), "another host or path"),
        (Knock(405, "", b""), "another host or path"),
        (Knock(403, "", b""), "refuses strangers"),
        (Knock(429, "", NOT_READY), "hands full"),
        (Knock(503, "", NOT_READY), "not ready"),
        (Knock(503, "", b"<html>"), "does not reach"),
        (Knock(502, "", b""), "does not reach"),
        (Knock(200, "", b"ok"), "without a signature"),
        (Knock(418, "", b""), "418 instead of"),
    ],
)
def test_whatever_stands_in_the_way_is_named(answer: Knock, named: str) -> None:
    assert named in str(find_obstacle(answer))


def test_only_the_refusal_in_the_services_own_words_is_right() -> None:
    assert find_obstacle(Knock(401, "", REFUSAL)) is None


@pytest.mark.parametrize(
    ("base_url", "rule"),
    [
        ("http://api.replicate.example", "must begin with https"),
        ("http://127.replicate.example", "must begin with https"),
        ("http://127.0.0.1.replicate.example", "must begin with https"),
        ("https://somebody@api.replicate.example", "must be an http or https address"),
        ("ftp://api.replicate.example", "must be an http or https address"),
        ("api.replicate.example", "must be an http or https address"),
        ("https://api.replicate.example?x=1", "must have no query"),
    ],
)
def test_no_token_is_sent_where_others_could_read_it(base_url: str, rule: str) -> None:
    # A host that does not exist would be told of by NotReached.
    with pytest.raises(ValueError) as raised:
        fetch_secret(base_url, "r8_secret")

    assert rule in str(raised.value)
    assert "REPLICATE_BASE_URL" in str(raised.value)
    assert "r8_secret" not in str(raised.value)


@pytest.mark.parametrize(
    "text", [SECRET, f"{SECRET},whsec_older@2026-01-01T00:00:00Z", f"\n{SECRET.rstrip('=')}\nx\n"]
)
def test_the_newest_secret_signs(text: str) -> None:
    assert newest_key(text) == KEY


@pytest.mark.parametrize("text", ["", " ", "secret", "whsec_!", f"x,{SECRET}"])
def test_what_is_no_secret_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        newest_key(text)

    assert str(raised.value).startswith("the first secret ")


def test_a_sample_event_is_genuine_and_each_is_another() -> None:
    (body, headers), (_, others) = sample_event(KEY), sample_event(KEY)

    verified = verify(body, headers.items(), [Secret(0, KEY)], datetime.now(UTC))

    assert verified.webhook_id == headers["webhook-id"] != others["webhook-id"]


def test_a_moment_is_a_time_or_an_age() -> None:
    assert parse_moment("", "--since") is None
    assert parse_moment("2026-01-31T12:00Z", "--since") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_moment("2026-01-31", "--since") == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_moment("2026-01-31T12:00+02:00", "") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    age = datetime.now(UTC) - (parse_moment("90s", "--since") or datetime.now(UTC))
    assert 89 <= age.total_seconds() < 100
