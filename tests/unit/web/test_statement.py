"""A statement as a file: its rows add up, and no cell is carried out."""

import csv
import io
from collections import Counter
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from services.client.credits import Transaction, TransactionType
from services.web.statement import COLUMNS, lines_of

NOW = datetime(2026, 7, 1, 12, 0, 0, 5, tzinfo=UTC)


def transaction(**changes: object) -> Transaction:
    usual: dict[str, object] = {
        "user_id": "ann",
        "version": 1,
        "type": TransactionType.BONUS,
        "credits": 100,
        "reserved_change": 0,
        "available_after": 100,
        "reserved_after": 0,
        "reservation_id": "",
        "request_id": "",
        "description": "Welcome",
        "created_at": NOW,
    }
    return Transaction(**(usual | changes))  # type: ignore[arg-type]


def read(lines: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(lines.decode(), newline="")))


def test_a_row_says_what_the_ledger_does_and_nothing_internal() -> None:
    lines = lines_of([transaction()], with_titles=True)

    assert lines.endswith(b"\r\n")
    assert read(lines) == [
        {
            "version": "1",
            "create_time": "2026-07-01T12:00:00.000005Z",
            "type": "BONUS",
            "generation_id": "",
            "credits": "100",
            "available_after": "100",
            "reserved_change": "0",
            "reserved_after": "0",
            "description": "Welcome",
        }
    ]


def test_no_text_is_a_formula() -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("x")', "a,b", 'q"']

    rows = read(
        lines_of(
            [transaction(description=text, reservation_id="-1") for text in texts],
            with_titles=True,
        )
    )

    for text, row in zip(texts, rows, strict=True):
        is_formula = text[0] in "=+-@\t\r\n"
        assert row["description"] == ("'" if is_formula else "") + text
        assert row["generation_id"] == "'-1"


def test_whatever_texts_there_are_the_rows_stay_rows_and_add_up() -> None:
    seen: Counter[str] = Counter()
    changes = st.lists(
        st.tuples(st.integers(-50, 200), st.integers(-50, 50), st.text(max_size=20)), max_size=30
    )

    @settings(max_examples=300, database=None, derandomize=True)
    @given(changes)
    def check(moves: list[tuple[int, int, str]]) -> None:
        available = reserved = 0
        record = []
        for version, (moved, set_aside, text) in enumerate(moves, start=1):
            available, reserved = available + moved, reserved + set_aside
            record.append(
                transaction(
                    version=version,
                    credits=moved,
                    reserved_change=set_aside,
                    available_after=available,
                    reserved_after=reserved,
                    description=text,
                )
            )

        # In parts, as it is written.
        newest_first = record[::-1]
        lines = lines_of(newest_first[:7], with_titles=True) + lines_of(newest_first[7:])
        rows = read(lines)

        assert [int(row["version"]) for row in rows] == [one.version for one in newest_first]
        assert sum(int(row["credits"]) for row in rows) == available
        for row, below in zip(rows, [*rows[1:], None][: len(rows)], strict=True):
            before = int(below["available_after"]) if below else 0
            assert int(row["available_after"]) == before + int(row["credits"])
        seen["rows"] += len(rows)
        seen["texts"] += sum("'" in row["description"] for row in rows)

    check()

    assert seen["rows"] > 1000
    assert seen["texts"] > 10


def test_the_columns_are_named_as_in_the_api() -> None:
    assert COLUMNS[:3] == ("version", "create_time", "type")
