from datetime import UTC, datetime, timedelta

import pytest

from services.runtime.callback import sign_query
from services.runtime.media import (
    STEP_S,
    VALID_S,
    MediaVerdict,
    check_media,
    seconds_left,
    sign_media,
)

KEY, OLD, OTHER = b"k" * 32, b"o" * 32, b"x" * 32
FILE = "outputs/ada/4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11.mp4"
NOW = datetime(2026, 11, 21, 12, 0, 1, tzinfo=UTC)
BASE = "https://app.example/media"


def query_of(address: str) -> str:
    return address.partition("?")[2]


def test_an_address_shows_its_file_for_an_hour_and_a_little() -> None:
    address = sign_media(BASE, FILE, KEY, NOW)

    assert address.startswith(f"{BASE}/{FILE}?expires=")
    for after_s in (0, VALID_S):
        later = NOW + timedelta(seconds=after_s)
        assert check_media(FILE, query_of(address), [KEY], later) is MediaVerdict.GOOD
    end = NOW + timedelta(seconds=VALID_S + STEP_S)
    assert check_media(FILE, query_of(address), [KEY], end) is MediaVerdict.EXPIRED


def test_an_address_stays_the_same_for_a_while() -> None:
    addresses = [
        sign_media(BASE, FILE, KEY, NOW + timedelta(seconds=seconds)) for seconds in range(STEP_S)
    ]

    assert addresses[0] == addresses[-2] != addresses[-1]


def test_keys_that_were_replaced_still_prove_and_others_never() -> None:
    query = query_of(sign_media(BASE, FILE, OLD, NOW))

    assert check_media(FILE, query, [KEY, OLD], NOW) is MediaVerdict.GOOD
    assert check_media(FILE, query, [OLD, KEY], NOW) is MediaVerdict.GOOD
    assert check_media(FILE, query, [KEY, OTHER], NOW) is MediaVerdict.BAD
    assert check_media(FILE, query, [], NOW) is MediaVerdict.BAD


def test_an_address_is_good_for_nothing_else() -> None:
    query = query_of(sign_media(BASE, FILE, KEY, NOW))
    expires, signature = query.split("&")

    assert check_media(FILE.replace("ada", "eve"), query, [KEY], NOW) is MediaVerdict.BAD
    for forged in (
        "",
        signature,
        expires,
        f"{signature}&{expires}",
        f"{query}&expires=99999999999",
        f"expires=99999999999&{signature}",
        f"{expires}0&{signature}",
        f"{expires}&signature=",
        f"{query}=",
        f"{query}\n",
        query[:-1] + chr(ord(query[-1]) + 1),
        f"{expires}&signature={'é' * 43}",
        sign_query(KEY, "local", "4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11", 1),
    ):
        assert check_media(FILE, forged, [KEY], NOW) is MediaVerdict.BAD, forged


@pytest.mark.parametrize("key", ["a b/ü.mp4", "a?b#c.mp4", "a%2fb.mp4"])
def test_a_key_survives_in_an_address(key: str) -> None:
    address = sign_media(BASE, key, KEY, NOW)

    assert " " not in address
    assert address.count("?") == 1
    assert check_media(key, query_of(address), [KEY], NOW) is MediaVerdict.GOOD


def test_an_address_tells_for_how_long_it_still_works() -> None:
    query = query_of(sign_media(BASE, FILE, KEY, NOW))

    left_s = seconds_left(query, NOW)

    assert VALID_S <= left_s <= VALID_S + STEP_S
    assert seconds_left(query, NOW + timedelta(seconds=left_s - 1)) == 1
    assert seconds_left(query, NOW + timedelta(seconds=left_s + 5)) == 0
    assert seconds_left("expires=soon", NOW) == 0
