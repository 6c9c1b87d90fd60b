"""A session is believed if one of our keys signed it, and for its time only."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import pytest

from services.web.sessions import Person, Session, Sessions, _encode, _mac

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ADA = Person("ada", "Ada", "ada@example.com", is_admin=False)
OLD, NEW = b"o" * 32, b"n" * 32


def sessions(*keys: bytes, is_secure: bool = False) -> Sessions:
    return Sessions(keys or (NEW,), is_secure=is_secure)


def test_what_was_signed_is_read_again() -> None:
    ours = sessions()
    session = ours.begin(ADA, NOW)

    assert ours.read(ours.value(session), NOW) == session
    assert session.expires_at == NOW + HOUR


@pytest.mark.parametrize("after_s", [-1, 0, 1])
def test_it_ends_at_its_second(after_s: int) -> None:
    ours = sessions()
    value = ours.value(ours.begin(ADA, NOW))

    read = ours.read(value, NOW + HOUR + timedelta(seconds=after_s))

    assert (read is None) == (after_s >= 0)


def test_every_changed_character_is_noticed() -> None:
    ours = sessions()
    value = ours.value(ours.begin(ADA, NOW))

    for place, character in enumerate(value):
        other = "A" if character != "A" else "B"
        changed = value[:place] + other + value[place + 1 :]
        # The last character of 32 bytes in base64 has two bits that say nothing.
        if place < len(value) - 1:
            assert ours.read(changed, NOW) is None, place


def test_nobody_makes_themselves_an_operator() -> None:
    ours = sessions()
    payload, _, mac = ours.value(ours.begin(ADA, NOW)).partition(".")
    members = json.loads(urlsafe_b64decode(payload + "=="))
    members["admin"] = True
    forged = urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")

    assert ours.read(f"{forged}.{mac}", NOW) is None


@pytest.mark.parametrize("value", ["", ".", "a.b", "é.é", "x" * 5000, "a" * 10 + "." + "b" * 43])
def test_what_is_no_session_is_none(value: str) -> None:
    assert sessions().read(value, NOW) is None


def test_sessions_outlive_a_change_of_keys_but_not_the_end_of_the_old_one() -> None:
    value = sessions(OLD).value(sessions(OLD).begin(ADA, NOW))

    assert sessions(NEW, OLD).read(value, NOW) is not None
    assert sessions(NEW).read(value, NOW) is None


def test_a_genuine_value_of_another_form_is_none() -> None:
    ours = sessions()
    payload = _encode(b'{"sub":"ada"}')

    assert ours.read(f"{payload}.{_mac(NEW, payload)}", NOW) is None


def test_in_use_it_is_renewed_now_and_then_and_at_most_for_twelve_hours() -> None:
    ours = sessions()
    session = ours.begin(ADA, NOW)
    renewals, now = 0, NOW

    while now < session.expires_at:
        renewed = ours.renewed(session, now)
        if renewed is not None:
            renewals, session = renewals + 1, renewed
        now += timedelta(seconds=30)

    assert session.expires_at == NOW + 12 * HOUR
    assert session.began_at == NOW
    assert 100 < renewals <= 12 * 12


def test_just_after_its_begin_it_is_not_renewed() -> None:
    ours = sessions()
    session = ours.begin(ADA, NOW)

    assert ours.renewed(session, NOW + timedelta(minutes=4)) is None
    assert ours.renewed(session, NOW + timedelta(minutes=5)) == Session(
        ADA, NOW, NOW + timedelta(minutes=65)
    )


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites() -> None:
    ours = sessions()
    session = ours.begin(ADA, NOW)

    cookie = ours.cookie(session, NOW)

    name, _, rest = cookie.partition("=")
    assert name == "reelworks_session"
    assert rest.partition("; ")[2] == "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"


def test_under_https_the_cookie_is_bound_to_it_and_to_the_host() -> None:
    cookie = sessions(is_secure=True).farewell()

    assert cookie == (
        "__Host-reelworks_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
    )
