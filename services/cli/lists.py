"""Cuts long lists, and says so: every command that lists something shows its newest entries."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Generic, TypeVar

import typer

from services.cli.output import print_note

__all__ = ["AllOption", "LimitOption", "Newest", "page_size"]

PAGE_SIZE_MAX = 1000
"""The most that a service answers at once."""

LimitOption = Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, however many.")]

_Entry = TypeVar("_Entry")


def page_size(limit: int | None) -> int:
    """Returns how many entries to ask for at once to show `limit` of them; None is all."""
    # One more tells whether there are more.
    return PAGE_SIZE_MAX if limit is None else min(limit + 1, PAGE_SIZE_MAX)


class Newest(Generic[_Entry]):
    """The first `limit` entries of a list, all if it is None; to be gone through once."""

    def __init__(self, entries: AsyncGenerator[_Entry], limit: int | None) -> None:
        self._entries = entries
        self._limit = limit
        self._leaves_some_out = False
        self._is_empty = True

    async def __aiter__(self) -> AsyncIterator[_Entry]:
        shown = 0
        async with aclosing(self._entries):
            async for entry in self._entries:
                if shown == self._limit:
                    self._leaves_some_out = True
                    return
                self._is_empty = False
                yield entry
                shown += 1

    def note(self) -> None:
        """Says, after the entries, if there are more, or none."""
        if self._is_empty:
            print_note("there are none")
        if self._leaves_some_out:
            print_note(f"there are more than {self._limit}: add --all, or a greater --limit")
