"""Ids made of keys: the same for the same, another for any other."""

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from services.web.idempotency import keyed_id

USERS = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=64
)
KEYS = st.text([chr(code) for code in range(0x21, 0x7F)], min_size=1, max_size=255)


def test_an_id_of_a_key_never_changes() -> None:
    # Written down: another id would make another video of a repetition.
    assert keyed_id("ada", "4f1b") == "9785735d-2031-8ef7-a300-50a3f29aba5a"


@settings(max_examples=500, database=None, derandomize=True)
@given(USERS, KEYS)
def test_it_is_a_uuid_of_version_8(user_id: str, key: str) -> None:
    made = UUID(keyed_id(user_id, key))

    assert made.version == 8
    assert made.variant == "specified in RFC 4122"
    assert str(made) == keyed_id(user_id, key)


def test_no_two_users_and_no_two_keys_share_an_id() -> None:
    pairs: set[tuple[str, str]] = set()

    @settings(max_examples=500, database=None, derandomize=True)
    @given(USERS, KEYS)
    def collect(user_id: str, key: str) -> None:
        pairs.add((user_id, key))
        pairs.add((user_id + key[0] if key[0] in "abc" else user_id, key[1:] or "x"))

    collect()
    pairs |= {("a", "bc"), ("ab", "c"), ("abc", "x"), ("a", "bcx")}

    assert len(pairs) > 500
    assert len({keyed_id(*pair) for pair in pairs}) == len(pairs)
