"""Tokens that hold a price: ours only, for one thing only, and for a while."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.generation.quotes import (
    TOKEN_CHARACTERS_MAX,
    Quote,
    Terms,
    read_quote,
    sign_quote,
)
from services.generation.state import Kind
from services.runtime.callback import sign_query

KEY, OLD = b"k" * 32, b"o" * 32
NOW = datetime(2026, 7, 1, 12, 0, 0, 999_999, tzinfo=UTC)
TERMS = Terms("ada", Kind.TEXT_TO_VIDEO, "t2v-14B", "720p")
USERS = st.text("azAZ09_-", min_size=1, max_size=64)
PRICES = st.integers(1, 10**15)


def test_a_quote_holds_its_price_for_five_minutes() -> None:
    token, quote = sign_quote(KEY, TERMS, 20, NOW)

    assert quote == Quote(20, datetime(2026, 7, 1, 12, 5, tzinfo=UTC))
    assert read_quote(token, [KEY], TERMS) == quote
    assert len(token) <= TOKEN_CHARACTERS_MAX


def test_it_is_good_in_an_address_and_in_a_header() -> None:
    token, _ = sign_quote(KEY, TERMS, 20, NOW)

    assert all(character.isalnum() or character in "-_." for character in token)


@given(user_id=USERS, price_credits=PRICES, seconds=st.integers(10**9, 9 * 10**10))
def test_what_was_signed_is_read_again(user_id: str, price_credits: int, seconds: int) -> None:
    terms = replace(TERMS, user_id=user_id)
    now = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=seconds % 1_000_000)

    token, quote = sign_quote(KEY, terms, price_credits, now)

    assert read_quote(token, [OLD, KEY], terms) == quote
    assert timedelta(seconds=299) < quote.expires_at - now <= timedelta(minutes=5)


def test_it_outlives_a_change_of_keys_until_the_old_one_is_gone() -> None:
    token, quote = sign_quote(OLD, TERMS, 20, NOW)

    assert read_quote(token, [KEY, OLD], TERMS) == quote
    assert read_quote(token, [KEY], TERMS) is None
    assert read_quote(token, [], TERMS) is None


def test_it_is_for_one_user_and_one_video_only() -> None:
    token, _ = sign_quote(KEY, TERMS, 20, NOW)

    for other in (
        replace(TERMS, user_id="bob"),
        replace(TERMS, kind=Kind.IMAGE_TO_VIDEO),
        replace(TERMS, model="t2v-1.3B"),
        replace(TERMS, resolution="480p"),
        # Nothing is shifted from one word into the next.
        Terms("ada", Kind.TEXT_TO_VIDEO, "t2v-14B720p", ""),
    ):
        assert read_quote(token, [KEY], other) is None


@given(data=st.data())
def test_a_token_that_was_changed_anywhere_is_none(data: st.DataObject) -> None:
    token, _ = sign_quote(KEY, TERMS, 20, NOW)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("0129azAZ-_.").filter(lambda c: c != token[place]))

    changed = token[:place] + other + token[place + 1 :]

    assert read_quote(changed, [KEY], TERMS) is None


@given(token=st.text(max_size=100) | st.from_regex(r"[1-9]\d{0,20}\.\d{1,20}\.[\w-]{43}"))
def test_whatever_else_is_sent_is_no_quote(token: str) -> None:
    assert read_quote(token, [KEY], TERMS) is None


def test_signatures_for_other_purposes_prove_nothing_here() -> None:
    generation_id = "4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11"
    mac = sign_query(KEY, "local", generation_id, 1).rpartition("=")[2]

    assert read_quote(f"20.1800000000.{mac:_<43}", [KEY], TERMS) is None
