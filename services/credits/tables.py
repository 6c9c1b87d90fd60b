"""The tables of the ledger, as the migrations leave them.

Every column is NOT NULL unless it says otherwise, since a CHECK that yields NULL passes. A user's
rows all begin with `user_id`: they lie on one shard and are written under one lock. That
transactions are never changed is held by triggers, which the migrations make, and on SQLite so are
the limits of their changes.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from services.credits.records import CREDITS_MAX
from services.runtime.database import SQLITE_TABLE, Instant, Int64, Key, new_metadata

__all__ = ["UNSPENT", "accounts", "metadata", "reservations", "transactions"]

metadata = new_metadata()

UNSPENT = "state IN ('REFUNDED', 'EXPIRED', 'REJECTED')"
"""What holds of reservations that were resolved, and of which nothing was spent."""

accounts = Table(
    "accounts",
    metadata,
    Column("user_id", Key, primary_key=True, comment="Whose account."),
    Column("available", Int64, nullable=False, comment="Credits that can be reserved."),
    Column("reserved", Int64, nullable=False, comment="Credits of open reservations."),
    Column("version", Int64, nullable=False, comment="Number of the account's transactions."),
    Column("created_at", Instant, nullable=False, comment="When the account was opened."),
    Column("updated_at", Instant, nullable=False, comment="When the last transaction was."),
    CheckConstraint("length(user_id) BETWEEN 1 AND 64", name="user_id_length"),
    CheckConstraint("available >= 0", name="available_range"),
    CheckConstraint("reserved >= 0", name="reserved_range"),
    CheckConstraint("version >= 0", name="version_range"),
    # The sum is capped, so that moving credits between the two never fails for want of room.
    CheckConstraint(f"available + reserved <= {CREDITS_MAX}", name="balance_limit"),
    comment="What every user has.",
    **SQLITE_TABLE,
)

_BY_AGE = ("created_at", "reservation_id", "user_id")

reservations = Table(
    "reservations",
    metadata,
    Column("user_id", Key, ForeignKey("accounts.user_id"), primary_key=True, comment="Whose."),
    Column("reservation_id", Key, primary_key=True, comment="The caller's key."),
    Column("credits", Int64, nullable=False, comment="What was asked for."),
    Column("state", Text, nullable=False, comment="What became of it."),
    Column("committed", Int64, nullable=False, comment="What was spent."),
    Column("reimbursed", Int64, nullable=False, comment="What was given back of that."),
    Column("rejected_available", Int64, comment="What was available when REJECTED."),
    Column("created_at", Instant, nullable=False, comment="When it was made."),
    Column("expires_at", Instant, nullable=False, comment="From when on it cannot be committed."),
    Column("resolved_at", Instant, comment="When it left RESERVED."),
    Column("description", Text, nullable=False, comment="What the work is, in words."),
    CheckConstraint("length(reservation_id) BETWEEN 1 AND 64", name="reservation_id_length"),
    CheckConstraint(f"credits BETWEEN 1 AND {CREDITS_MAX}", name="credits_range"),
    CheckConstraint(
        "state IN ('RESERVED', 'COMMITTED', 'REFUNDED', 'EXPIRED', 'REJECTED')", name="state_known"
    ),
    CheckConstraint("committed BETWEEN 0 AND credits", name="committed_range"),
    CheckConstraint("reimbursed BETWEEN 0 AND committed", name="reimbursed_range"),
    CheckConstraint(
        "rejected_available BETWEEN 0 AND credits - 1", name="rejected_available_range"
    ),
    CheckConstraint("committed = 0 OR state = 'COMMITTED'", name="committed_state"),
    CheckConstraint("(state = 'RESERVED') = (resolved_at IS NULL)", name="resolved_state"),
    CheckConstraint(
        "(state = 'REJECTED') = (rejected_available IS NOT NULL)", name="rejected_state"
    ),
    CheckConstraint("length(description) <= 200", name="description_length"),
    Index(
        "ix_reservations_expires_at",
        "expires_at",
        sqlite_where=text("state = 'RESERVED'"),
        postgresql_where=text("state = 'RESERVED'"),
    ),
    # With the ids, or PostgreSQL may take it for one as good as the primary key, and find a
    # reservation by reading all of its user's.
    Index("ix_reservations_user_id_created_at", "user_id", "created_at", "reservation_id"),
    # Those of all users by age, and among them the open ones and the unspent ones, which are few.
    Index("ix_reservations_created_at", *_BY_AGE),
    Index(
        "ix_reservations_open",
        *_BY_AGE,
        sqlite_where=text("state = 'RESERVED'"),
        postgresql_where=text("state = 'RESERVED'"),
    ),
    Index(
        "ix_reservations_unspent",
        "state",
        *_BY_AGE,
        sqlite_where=text(UNSPENT),
        postgresql_where=text(UNSPENT),
    ),
    comment="Credits set aside, and what became of them.",
    **SQLITE_TABLE,
)

_MOVEMENT = """CASE type
    WHEN 'PURCHASE' THEN
      available_delta > 0 AND reserved_delta = 0 AND substr(key, 1, 4) = 'add:'
    WHEN 'BONUS' THEN
      available_delta > 0 AND reserved_delta = 0
      AND (substr(key, 1, 4) = 'add:' OR key = 'open:welcome')
    WHEN 'ADJUSTMENT' THEN
      available_delta <> 0 AND reserved_delta = 0 AND substr(key, 1, 4) = 'add:'
    WHEN 'RESERVATION' THEN
      available_delta < 0 AND reserved_delta = -available_delta
      AND key = 'reserve:' || reservation_id
    WHEN 'DEDUCTION' THEN
      available_delta >= 0 AND reserved_delta < 0 AND available_delta + reserved_delta <= 0
      AND key = 'resolve:' || reservation_id
    WHEN 'REFUND' THEN
      available_delta > 0 AND reserved_delta = -available_delta
      AND key = 'resolve:' || reservation_id
    WHEN 'EXPIRY' THEN
      available_delta > 0 AND reserved_delta = -available_delta
      AND key = 'resolve:' || reservation_id
    WHEN 'REIMBURSEMENT' THEN
      available_delta > 0 AND reserved_delta = 0 AND substr(key, 1, 10) = 'reimburse:'
    ELSE FALSE
  END"""

transactions = Table(
    "transactions",
    metadata,
    Column("user_id", Key, ForeignKey("accounts.user_id"), primary_key=True, comment="Whose."),
    Column("version", Int64, primary_key=True, comment="Place in the account's record."),
    Column("key", Key, nullable=False, comment="What happens at most once: <kind>:<id>."),
    Column("type", Text, nullable=False, comment="Why credits moved."),
    Column("available_delta", Int64, nullable=False, comment="Change of what is available."),
    Column("reserved_delta", Int64, nullable=False, comment="Change of what is reserved."),
    Column("available_after", Int64, nullable=False, comment="What was available then."),
    Column("reserved_after", Int64, nullable=False, comment="What was reserved then."),
    Column("reservation_id", Key, comment="The reservation that moved, if one did."),
    Column("description", Text, nullable=False, comment="What it was for, in words."),
    Column("created_at", Instant, nullable=False, comment="When; never falls along the record."),
    # `resolve:` is one key for three types: a reservation is resolved at most once, even if the
    # code is wrong.
    UniqueConstraint("user_id", "key", name="uq_transactions_user_id_key"),
    ForeignKeyConstraint(
        ["user_id", "reservation_id"],
        ["reservations.user_id", "reservations.reservation_id"],
        name="fk_transactions_reservation",
    ),
    CheckConstraint("version >= 1", name="version_range"),
    CheckConstraint("length(key) BETWEEN 5 AND 74", name="key_length"),
    CheckConstraint(_MOVEMENT, name="movement"),
    CheckConstraint(
        "(type IN ('PURCHASE', 'BONUS', 'ADJUSTMENT')) = (reservation_id IS NULL)",
        name="reservation_type",
    ),
    CheckConstraint(
        f"available_delta BETWEEN -{CREDITS_MAX} AND {CREDITS_MAX} "
        f"AND reserved_delta BETWEEN -{CREDITS_MAX} AND {CREDITS_MAX}",
        name="delta_range",
    ).ddl_if(dialect="postgresql"),
    CheckConstraint("available_after >= 0 AND reserved_after >= 0", name="after_range"),
    CheckConstraint(
        f"available_after + reserved_after <= {CREDITS_MAX}", name="after_balance_limit"
    ),
    CheckConstraint("length(description) <= 200", name="description_length"),
    comment="Every movement of credits, never changed.",
    **SQLITE_TABLE,
)
