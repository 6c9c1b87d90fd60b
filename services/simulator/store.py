"""Keeps what must survive a restart in one SQLite file."""

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

__all__ = ["Kind", "Store"]

Kind = Literal["prediction", "upload"]

_TABLES = """
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers (
    account TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (account, kind)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, document TEXT NOT NULL);
"""


class Store:
    """Documents by kind and id, a counter for each account and kind, and a journal.

    A write is on disk before the call returns, except after a power cut. It takes some ten
    microseconds, so it is done on the event loop itself.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(folder / "simulator.sqlite3", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def next_number(self, account: str, kind: Kind) -> int:
        """Returns 1, 2, 3 … for each account and kind; not again after a restart or a reset."""
        row = self._connection.execute(
            "INSERT INTO numbers VALUES (?, ?, 1)"
            " ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number",
            (account, kind),
        ).fetchone()
        return int(row[0])

    def put(self, kind: Kind, document_id: str, document: Any) -> None:
        """Writes a dataclass in place of what was stored under its id."""
        text = json.dumps(document, default=_plain)
        self._connection.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (kind, document_id, text)
        )

    def delete(self, kind: Kind, document_id: str) -> None:
        """Removes a document; there may be none."""
        self._connection.execute(
            "DELETE FROM documents WHERE kind = ? AND id = ?", (kind, document_id)
        )

    def documents(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Yields all documents of a kind."""
        rows = self._connection.execute("SELECT document FROM documents WHERE kind = ?", (kind,))
        for (text,) in rows:
            yield json.loads(text)

    def append_journal(self, number: int, document: Any) -> None:
        """Writes a dataclass behind all others of the journal."""
        text = json.dumps(document, default=_plain)
        self._connection.execute("INSERT INTO journal VALUES (?, ?)", (number, text))

    def journal(self, after: int, limit: int) -> list[str]:
        """Returns the JSON of up to `limit` entries with numbers above `after`."""
        rows = self._connection.execute(
            "SELECT document FROM journal WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
        )
        return [text for (text,) in rows]

    def journal_range(self) -> tuple[int, int]:
        """Returns the first and the last number of the journal, 0 and 0 if it is empty."""
        row = self._connection.execute("SELECT min(number), max(number) FROM journal").fetchone()
        return row[0] or 0, row[1] or 0

    def trim_journal(self, first: int) -> None:
        """Removes all entries before number `first`."""
        self._connection.execute("DELETE FROM journal WHERE number < ?", (first,))


def _plain(value: Any) -> Any:
    """Returns what JSON can hold of a dataclass or a set, without a copy of everything in it."""
    if dataclasses.is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return sorted(value)
