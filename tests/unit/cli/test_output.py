"""Answers are read by people in a terminal, by pipes and by programs."""

import json
from typing import Any

import pytest

from services.cli.output import Column, plain, print_json, print_line, print_table, signed
from services.client.credits import TransactionType
from tests.unit.cli.samples import generation, transaction


def test_a_pipe_gets_aligned_lines_that_nothing_is_cut_from(capsys: Any) -> None:
    long = "x" * 300

    print_table([Column("NAME"), Column("CREDITS", is_number=True)], [("a", 5), (long, 1000)])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "CREDITS"]
    assert lines[1] == "a" + " " * 299 + "  " + "      5"
    assert lines[2] == long + "  " + "   1000"


def test_what_looks_like_markup_is_printed_as_it_is(capsys: Any) -> None:
    print_line("a boat [fail] [/] [bold]")
    print_table([Column("PROMPT")], [("[red]x[/red]",)])

    assert capsys.readouterr().out.splitlines() == [
        "a boat [fail] [/] [bold]",
        "PROMPT",
        "[red]x[/red]",
    ]


def test_json_is_one_line_a_value_with_times_in_iso_form(capsys: Any) -> None:
    print_json(generation(prompt="zwei\nZeilen ✓"))

    line = capsys.readouterr().out
    assert line.count("\n") == 1
    document = json.loads(line)
    assert document["prompt"] == "zwei\nZeilen ✓"
    assert document["created_at"] == "2026-05-04T12:00:00+00:00"
    assert document["status"] == "COMPLETED"
    assert document["seed"] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0, "0"),
        ("two\nlines", "two lines"),
        (transaction(1, TransactionType.BONUS).created_at, "2026-05-04 12:00:00"),
    ],
)
def test_values_are_written_on_one_line(value: object, text: str) -> None:
    assert plain(value) == text


def test_movements_have_a_sign() -> None:
    assert [signed(10), signed(-10), signed(0)] == ["+10", "-10", "0"]
