import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.callback import Callback, Verdict, parse_keys, read_query, sign_query

KEY = bytes(range(32))
GENERATION = "01890a5d-ac96-774b-bcce-b302099a8057"
GOOD_QUERY = f"g={GENERATION}&a=1&k=Daszh2H3NSRew-OYM0Jrgj"


@pytest.mark.parametrize(
    ("environment", "attempt", "mac"),
    [
        ("local", 1, "Daszh2H3NSRew-OYM0Jrgj"),
        ("local", 2, "-O9fkMhqBu8vDrAoG76fBz"),
        ("production", 1, "7q8eL2sTATV8wzqPZFa95R"),
    ],
)
def test_the_vectors_are_signed_and_read(environment: str, attempt: int, mac: str) -> None:
    query = sign_query(KEY, environment, GENERATION, attempt)

    assert query == f"g={GENERATION}&a={attempt}&k={mac}"
    assert read_query(query, [KEY], environment) == Callback(Verdict.GOOD, GENERATION, attempt)


def test_any_of_several_keys_proves_an_address() -> None:
    keys = [b"new" * 16, KEY, b"old" * 16]

    assert read_query(GOOD_QUERY, keys, "local").verdict is Verdict.GOOD


def test_parameters_may_come_in_any_order() -> None:
    g, a, k = GOOD_QUERY.split("&")

    for query in (f"{a}&{g}&{k}", f"{k}&{a}&{g}", f"{g}&{k}&{a}"):
        assert read_query(query, [KEY], "local").verdict is Verdict.GOOD


def test_an_address_without_query_names_nothing() -> None:
    assert read_query("", [KEY], "local") == Callback(Verdict.MISSING)


@pytest.mark.parametrize(
    "query",
    [
        GOOD_QUERY.replace("a=1", "a=2"),
        GOOD_QUERY.replace("a=1", "a=01"),
        GOOD_QUERY.replace("a=1", "a=+1"),
        GOOD_QUERY.replace("a=1", "a=%31"),
        GOOD_QUERY.replace("a=1", "a=\u0661"),
        GOOD_QUERY.replace(GENERATION, GENERATION.upper()),
        GOOD_QUERY.replace(GENERATION, GENERATION[:-1] + "8"),
        GOOD_QUERY + "&a=1",
        GOOD_QUERY + "&x=1",
        GOOD_QUERY + "&",
        GOOD_QUERY + "\n",
        "&" + GOOD_QUERY,
        GOOD_QUERY[:-1],
        GOOD_QUERY + "j",
        f"g={GENERATION}&a=1",
        "k=Daszh2H3NSRew-OYM0Jrgj",
        "?",
        "\udcff",
    ],
)
def test_an_altered_address_is_not_believed(query: str) -> None:
    assert read_query(query, [KEY], "local") == Callback(Verdict.BAD)


def test_an_address_of_another_environment_or_key_is_not_believed() -> None:
    assert read_query(GOOD_QUERY, [KEY], "production") == Callback(Verdict.BAD)
    assert read_query(GOOD_QUERY, [b"x" * 32], "local") == Callback(Verdict.BAD)
    assert read_query(GOOD_QUERY, [], "local") == Callback(Verdict.BAD)


@pytest.mark.parametrize("attempt", [0, 1000])
def test_attempts_outside_1_to_999_are_not_believed_even_if_signed(attempt: int) -> None:
    query = sign_query(KEY, "local", GENERATION, attempt)

    assert read_query(query, [KEY], "local").verdict is Verdict.BAD


@given(st.uuids().map(str), st.integers(1, 999), st.integers(0, 60), st.characters())
def test_one_other_character_is_enough_to_be_refused(
    generation_id: str, attempt: int, place: int, character: str
) -> None:
    query = sign_query(KEY, "local", generation_id, attempt)
    place %= len(query)
    altered = query[:place] + character + query[place + 1 :]

    found = read_query(altered, [KEY], "local")

    assert (found.verdict is Verdict.GOOD) == (altered == query)


@given(st.text())
def test_whatever_the_query_it_is_read_without_an_error(query: str) -> None:
    assert read_query(query, [KEY], "local").verdict is (Verdict.BAD if query else Verdict.MISSING)


def test_keys_are_read_one_a_line_newest_first() -> None:
    lines = [base64.b64encode(key).decode() for key in (KEY, b"y" * 40)]

    assert parse_keys(f"{lines[0]}\n\n  {lines[1]}\n") == (KEY, b"y" * 40)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no key"),
        ("\n \n", "holds no key"),
        ("c2VjcmV0IQ!!", "line 1 is not base64"),
        (base64.b64encode(KEY).decode() + "\nc2hvcnQ=", "line 2 has fewer than 32 bytes"),
    ],
)
def test_a_bad_key_file_is_refused_by_line_without_its_content(content: str, problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_keys(content)

    assert str(raised.value) == problem
