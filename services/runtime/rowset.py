"""Gives statements any number of rows in a few parameters, so that their text never depends on it.

A statement with a place for each value is compiled here, and prepared and planned by the database,
anew for every number of rows. One that takes an array for each column, or on SQLite a single JSON
document, is so once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Dialect,
    FromClause,
    Text,
    bindparam,
    column,
    func,
    literal_column,
    select,
)

from services.runtime.database import Instant

__all__ = ["GivenRows"]


class GivenRows:
    """Rows with these columns, to be given to a statement when it is executed.

    `name` is that of the rows in the statement, and tells those of one statement apart.
    """

    def __init__(
        self, columns: Iterable[ColumnElement[Any]], dialect: Dialect, name: str = "given"
    ) -> None:
        named = [column(cast("Any", one).name, one.type) for one in columns]
        self._dialect = dialect
        self._parameters = [f"{name}_{one.name}" for one in named]
        self._document = name
        self.table: FromClause = (
            _rows_of_document(named, name)
            if dialect.name == "sqlite"
            else _rows_of_arrays(named, self._parameters, name)
        )
        """What the statement selects from."""

    def parameters(self, rows: Sequence[Sequence[object]]) -> Mapping[str, object]:
        """Returns the statement's parameters for these rows, whose values are in column order.

        Values are text, whole numbers, moments or None, and arrive exactly as they are. Text with
        the character 0, which no database here can hold, is refused, at the latest by the database.
        """
        if self._dialect.name == "sqlite":
            return {self._document: _document(rows, self._dialect)}
        values = zip(*rows, strict=True) if rows else ((),) * len(self._parameters)
        return dict(zip(self._parameters, values, strict=True))


def _rows_of_arrays(
    columns: Sequence[ColumnElement[Any]], parameters: Sequence[str], name: str
) -> FromClause:
    arrays = [
        bindparam(parameter, type_=ARRAY(one.type, dimensions=1))
        for parameter, one in zip(parameters, columns, strict=True)
    ]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name=name)


def _rows_of_document(columns: Sequence[ColumnElement[Any]], name: str) -> FromClause:
    each = func.json_each(bindparam(name, type_=Text())).table_valued("value", name="each")
    return select(
        *(
            func.json_extract(each.c.value, literal_column(f"'$[{place}]'"), type_=one.type).label(
                cast("Any", one).name
            )
            for place, one in enumerate(columns)
        )
    ).subquery(name)


def _document(rows: Sequence[Sequence[object]], dialect: Dialect) -> str:
    moment = Instant()

    def encode(value: object) -> object:
        if not isinstance(value, datetime):
            raise TypeError(f"{type(value).__name__} cannot be sent in a row")
        return moment.process_bind_param(value, dialect)

    document = json.dumps(rows, default=encode, ensure_ascii=False)
    # SQLite would read the value up to there only.
    if r"\u0000" in document and r"\u0000" in document.replace(r"\\", ""):
        raise ValueError("text with the character 0 cannot be sent in a row")
    return document
