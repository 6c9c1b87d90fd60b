"""Files of balances are taken whole or not at all."""

import pytest

from services.cli.balances import Line, WrongFile, parse_balances


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
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(WrongFile) as raised:
        parse_balances(text)

    assert said in str(raised.value)


def test_of_many_wrong_lines_some_are_named() -> None:
    with pytest.raises(WrongFile, match="and 30 more"):
        parse_balances("user_id,credits\n" + "a\n" * 50)
