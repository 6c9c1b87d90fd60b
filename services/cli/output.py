"""Prints answers: tables on a terminal, plain lines in a pipe, JSON for programs."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = [
    "Column",
    "plain",
    "print_error",
    "print_json",
    "print_line",
    "print_note",
    "print_table",
    "signed",
]

FOLDED_WIDTH_MIN = 10
WIDTH_MAX = 10_000
"""Wide enough for every table to show how much it needs."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    """What stands above it."""
    is_number: bool = False
    """Whether it is aligned to the right."""
    folds: bool = False
    """Whether it is long text, the first to give way where a terminal is narrow."""


def print_line(text: str = "", style: str = "") -> None:
    """Prints a line; `style` is rich's and shows on a terminal only."""
    Console(highlight=False, soft_wrap=True).print(escape(text), style=style or None)


def print_error(text: str) -> None:
    """Prints what went wrong on standard error."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(text)}")


def print_note(text: str) -> None:
    """Prints, on standard error, what is worth knowing besides the answer."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(text), style="dim")


def print_json(value: Any) -> None:
    """Prints a value, which may have dataclasses and times in it, as one line of JSON."""
    sys.stdout.write(json.dumps(value, default=_json_value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under their titles: a table on a terminal, aligned lines in a pipe."""
    texts = [[plain(value) for value in row] for row in rows]
    console = Console(highlight=False)
    table = _table(columns, texts)
    unbounded = console.options.update(width=WIDTH_MAX)
    if console.is_terminal and console.measure(table, options=unbounded).minimum <= console.width:
        console.print(table)
        return
    # A terminal breaks lines that are too long for it; a table would lose their ends.
    for line in _aligned(columns, texts):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def plain(value: object) -> str:
    """Returns a value as people read it: times in UTC, nothing for None, on one line."""
    match value:
        case None:
            return ""
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case _:
            return " ".join(str(value).split())


def signed(credits_moved: int) -> str:
    """Returns a movement of credits with its sign; 0 has none."""
    return f"{credits_moved:+d}" if credits_moved else "0"


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(
            column.title.replace(" ", "\n"),
            justify="right" if column.is_number else "left",
            no_wrap=not column.folds,
            min_width=FOLDED_WIDTH_MIN if column.folds else None,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    return table


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns lines whose columns begin below each other; nothing is cut."""
    everything = [[column.title for column in columns], *rows]
    widths = [max(len(row[index]) for row in everything) for index in range(len(columns))]
    lines = []
    for row in everything:
        cells = [
            text.rjust(width) if column.is_number else text.ljust(width)
            for text, width, column in zip(row, widths, columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _json_value(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
