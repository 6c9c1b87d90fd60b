"""The statements by which a batch of the inbox is written; their text is the same for any batch."""

import functools
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Executable,
    FromClause,
    Integer,
    LargeBinary,
    and_,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from services.runtime.database import Instant
from services.runtime.rowset import GivenRows
from services.webhook.tables import IS_NOBODYS, KEY, State, inbox

__all__ = ["RECEIVED", "SETTLED", "BatchStatements", "batch_statements"]

# Written out, since a planner cannot tell that a bound value fits the index of pending rows.
_IS_PENDING = inbox.c.state == literal_column(f"'{State.PENDING.value}'")

_NOW: ColumnElement[Any] = bindparam("now", type_=Instant())

RECEIVED = (
    # First, so that they are found by their place also where the rest is not asked for.
    *KEY,
    inbox.c.headers,
    inbox.c.query,
    inbox.c.query_verdict,
    inbox.c.secret_number,
    inbox.c.signed_at,
    inbox.c.received_at,
)
_PLACE: ColumnElement[Any] = column("place", Integer)
_BODY_FROM: ColumnElement[Any] = column("body_from", Integer)
_BODY_BYTES: ColumnElement[Any] = column("body_bytes", Integer)

SETTLED = (
    inbox.c.sequence,
    inbox.c.state,
    inbox.c.due_at,
    inbox.c.delivered_at,
    inbox.c.last_error,
    inbox.c.disposition,
)
_LEASE_ENDS_AT: ColumnElement[Any] = column("lease_ends_at", Instant())
_MORE_REFUSALS: ColumnElement[Any] = column("more_refusals", Integer)


@dataclass(frozen=True, slots=True)
class BatchStatements:
    """All that a batch may consist of, in the order in which it is executed."""

    insert: Executable
    """Takes rows of events, `bodies` one behind the other, and `now`; counts the new ones."""
    select_new: Executable
    """Takes the same rows and `now`; gives the keys of those that were inserted."""
    received: GivenRows
    """Makes those rows: RECEIVED, the place in the batch, and where its body begins and how long it
    is."""
    settle: Executable
    """Takes rows of settlements."""
    settled: GivenRows
    """Makes those rows: SETTLED, when the claim's lease ends, and how many refusals to add."""
    release: Executable
    """Takes `now`, `leased` and `rows_max`: has what waits come due in the order of its age."""
    claim: Executable
    """Takes `now`, `lease_ends_at` and `rows_max`; gives the events."""


@functools.lru_cache(maxsize=8)
def batch_statements(dialect: Dialect) -> BatchStatements:
    """Returns the statements in the words of `dialect`; they are made once for an engine."""
    received = GivenRows([*RECEIVED, _PLACE, _BODY_FROM, _BODY_BYTES], dialect)
    settled = GivenRows([*SETTLED, _LEASE_ENDS_AT, _MORE_REFUSALS], dialect)
    return BatchStatements(
        insert=_insert(dialect, received.table),
        select_new=_select_new(GivenRows(KEY, dialect).table),
        received=received,
        settle=_settle(settled.table),
        settled=settled,
        release=_release(),
        claim=_claim(),
    )


def _insert(dialect: Dialect, given: FromClause) -> Executable:
    # All bodies travel as one value, since JSON, in which the rest may, holds no bytes.
    bodies: ColumnElement[Any] = bindparam("bodies", type_=LargeBinary())
    values: dict[Any, ColumnElement[Any]] = {
        **{one.name: given.c[one.name] for one in RECEIVED},
        "body": func.substr(bodies, given.c.body_from, given.c.body_bytes),
        "stored_at": _NOW,
        "state": literal_column(f"'{State.PENDING.value}'"),
        "due_at": _NOW,
        "tries": literal_column("0"),
        "refusals": literal_column("0"),
        "last_error": literal_column("''"),
        "disposition": literal_column("''"),
    }
    if dialect.name == "sqlite":
        last = select(func.coalesce(func.max(inbox.c.sequence), 0)).scalar_subquery()
        values["sequence"] = last + given.c.place
    # Each dialect has an insert of its own, alike in what is used here.
    insert: Any = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
    statement: Executable = (
        insert(inbox)
        .from_select(
            list(values),
            select(*values.values())
            # SQLite takes ON CONFLICT behind a SELECT for a join, unless that has a WHERE.
            .where(given.c.webhook_id.is_not(None))
            # The same order in every replica, or two of them could wait for each other.
            .order_by(*(given.c[one.name] for one in KEY)),
        )
        .on_conflict_do_nothing(index_elements=KEY)
        .execution_options(preserve_rowcount=True)
    )
    return statement


def _select_new(given: FromClause) -> Executable:
    same = and_(*(one == given.c[one.name] for one in KEY))
    return select(*KEY).join_from(inbox, given, same).where(inbox.c.stored_at == _NOW)


def _settle(given: FromClause) -> Executable:
    changed = ("state", "due_at", "delivered_at", "last_error")
    return (
        update(inbox)
        .values(
            {
                **{name: given.c[name] for name in changed},
                "disposition": _disposition(given),
                "refusals": inbox.c.refusals + given.c.more_refusals,
            }
        )
        # Who claimed or replayed an event meanwhile has set another time, which makes this void.
        .where(
            inbox.c.sequence == given.c.sequence,
            inbox.c.due_at == given.c.lease_ends_at,
            _IS_PENDING,
        )
    )


def _disposition(given: FromClause) -> ColumnElement[Any]:
    """Returns what is known of an event: that it came before hides not that nobody uses it."""
    says_little = given.c.disposition.in_([literal_column("'DUPLICATE'"), literal_column("''")])
    return case((and_(says_little, IS_NOBODYS), inbox.c.disposition), else_=given.c.disposition)


def _release() -> Executable:
    # While an event is being delivered, it has no error: so a lease is told from a pause.
    is_leased = inbox.c.last_error == literal_column("''")
    is_paused = and_(inbox.c.last_error != literal_column("''"), inbox.c.refusals == 0)
    leased: ColumnElement[Any] = bindparam("leased", type_=Integer())
    waiting = (
        select(inbox.c.sequence)
        .where(
            _IS_PENDING,
            inbox.c.due_at > _NOW,
            ((leased == 1) & is_leased) | ((leased == 0) & is_paused),
        )
        .order_by(inbox.c.due_at)
        .limit(bindparam("rows_max", type_=Integer()))
        .with_for_update(skip_locked=True)
        .cte("waiting")
    )
    return (
        update(inbox)
        .where(inbox.c.sequence.in_(select(waiting.c.sequence)))
        .values(due_at=inbox.c.stored_at)
    )


def _claim() -> Executable:
    due = (
        select(inbox.c.sequence)
        .where(_IS_PENDING, inbox.c.due_at <= _NOW)
        .order_by(inbox.c.due_at)
        .limit(bindparam("rows_max", type_=Integer()))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    return (
        update(inbox)
        .where(inbox.c.sequence.in_(select(due.c.sequence)))
        .values(
            due_at=bindparam("lease_ends_at", type_=Instant()),
            tries=inbox.c.tries + 1,
            last_error=literal_column("''"),
        )
        .returning(
            inbox.c.sequence,
            inbox.c.webhook_id,
            inbox.c.generation_id,
            inbox.c.attempt,
            inbox.c.received_at,
            inbox.c.body,
            inbox.c.tries,
            inbox.c.refusals,
            inbox.c.due_at,
        )
    )
