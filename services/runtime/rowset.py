"""Gives statements any number of rows in one parameter, so that their text never depends on it.

A statement with a place for each value is compiled here, and prepared and planned by the database,
anew for every number of rows. One with a single JSON document is so once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    JSON,
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
from sqlalchemy import cast as sql_cast

from services.runtime.database import Instant

__all__ = ["given_rows", "row_parameter"]

_PARAMETER = "given_rows"


def given_rows(columns: Iterable[ColumnElement[Any]], dialect: Dialect) -> FromClause:
    """Returns the rows that `row_parameter` makes, as something to select from, called `given`.

    `columns` says which names of the rows are read, as which types.
    """
    named = [column(cast("Any", one).name, one.type) for one in columns]
    rows = bindparam(_PARAMETER, type_=Text())
    if dialect.name == "sqlite":
        each = func.json_each(rows).table_valued("value", name="each")
        return select(
            *(
                # Names are those of columns, so they need no escape.
                func.json_extract(
                    each.c.value, literal_column(f"'$.{one.name}'"), type_=one.type
                ).label(one.name)
                for one in named
            )
        ).subquery("given")
    return (
        func.json_to_recordset(sql_cast(rows, JSON))
        .table_valued(*named)
        .render_derived(name="given", with_types=True)
    )


def row_parameter(rows: Sequence[Mapping[str, object]], dialect: Dialect) -> dict[str, str]:
    """Returns the parameter of a statement made with `given_rows`.

    Values are text, whole numbers, moments or None, and arrive exactly as they are. Raises
    ValueError for text that no database here can hold.
    """
    moment = Instant()

    def encode(value: object) -> object:
        if not isinstance(value, datetime):
            raise TypeError(f"{type(value).__name__} cannot be sent in a row")
        stored = moment.process_bind_param(value, dialect)
        return stored.isoformat() if isinstance(stored, datetime) else stored

    document = json.dumps(rows, default=encode, ensure_ascii=False)
    # PostgreSQL has no such text, and SQLite would read the value up to there only.
    if r"\u0000" in document and r"\u0000" in document.replace(r"\\", ""):
        raise ValueError("text with the character 0 cannot be sent in a row")
    return {_PARAMETER: document}
