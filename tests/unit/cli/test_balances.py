"""Files of balances are taken whole or not at all."""

import pytest

from services.cli.balances import Line, WrongFile, parse_balances, request_id_of
from services.runtime.validation import rule_broken


def test_a_file_is_read_in_its_order() -> None:
    assert parse_balances("user_id,credits\nb,20\na,0\n") == [Line("b", 20), Line("a", 0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: must be user_id,credits"),
        ("id,credits\na,1\n", "line 1: must be user_id,credits"),
        ("user_id,credits\na\n", "line 2: must have 2 values"),
        ("user_id,credits\n,1\n", "line 2: user_id must not be empty"),
        ("user_id,credits\na,1\na,2\n", "line 3: user_id must not be there twice"),
        ("user_id,credits\na,-1\n", "line 2: credits must be a whole number, 0 or more"),
        ("user_id,credits\na,1.5\n", "line 2: credits must be a whole number, 0 or more"),
        ("user_id,credits\na,x\nb\n", "; line 3: must have 2 values"),
        ("user_id,credits\na,1\nbad user!,2\n", "line 3: user_id must be 1 to 64 characters of"),
        ("user_id,credits\nzoë,2\n", "line 2: user_id must be 1 to 64 characters of"),
        (f"user_id,credits\n{'a' * 65},2\n", "line 2: user_id must be 1 to 64 characters of"),
        (f"user_id,credits\na,1\nb,{'2' * 140_000}\n", "line 3: field larger than field limit"),
        (f"{'u' * 140_000},credits\n", "line 1: field larger than field limit"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(WrongFile) as raised:
        parse_balances(text)

    assert said in str(raised.value)


def test_of_many_wrong_lines_some_are_named() -> None:
    with pytest.raises(WrongFile, match="and 30 more"):
        parse_balances("user_id,credits\n" + "a\n" * 50)


UUID = "0b7e5bd5-3a4c-4f3e-9c51-1d2a3b4c5d6e"


@pytest.mark.parametrize("name", ["import", "x", "n" * 27])
@pytest.mark.parametrize("user_id", ["a", UUID, "u" * 64])
def test_every_user_that_a_file_may_name_has_a_key_that_the_service_takes(
    name: str, user_id: str
) -> None:
    key = request_id_of(name, user_id)

    assert rule_broken("request_id", key) == ""
    assert key == request_id_of(name, user_id), "the same in the next run"
    assert key.startswith(f"{name}:")


def test_keys_of_users_with_long_ids_differ() -> None:
    keys = {request_id_of("import", "u" * 63 + last) for last in "abc"}

    assert len(keys) == 3


def test_the_key_of_a_uuid_has_it_in_full() -> None:
    assert request_id_of("supabase-2026-11-21", UUID) == f"supabase-2026-11-21:{UUID}"
