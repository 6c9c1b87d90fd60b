"""The ledger: accounts, reservations and transactions."""

import sqlalchemy as sa
from alembic import op

from services.runtime.database import SQLITE_TABLE, Instant, Int64, Key

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables, and the triggers that keep transactions as they were written."""
    _create_accounts()
    _create_reservations()
    _create_transactions()
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER transactions_refuse_{verb.lower()} BEFORE {verb} ON transactions "
                "BEGIN SELECT RAISE(ABORT, 'transactions are append-only'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION transactions_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'transactions are append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER transactions_refuse BEFORE UPDATE OR DELETE OR TRUNCATE "
            "ON transactions FOR EACH STATEMENT EXECUTE FUNCTION transactions_refuse()"
        )


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("user_id", Key, nullable=False, comment="Whose account."),
        sa.Column("available", Int64, nullable=False, comment="Credits that can be reserved."),
        sa.Column("reserved", Int64, nullable=False, comment="Credits of open reservations."),
        sa.Column(
            "version", Int64, nullable=False, comment="Number of the account's transactions."
        ),
        sa.Column("created_at", Instant, nullable=False, comment="When the account was opened."),
        sa.Column("updated_at", Instant, nullable=False, comment="When the last transaction was."),
        sa.PrimaryKeyConstraint("user_id", name="pk_accounts"),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 64", name="user_id_length"),
        sa.CheckConstraint("available >= 0", name="available_range"),
        sa.CheckConstraint("reserved >= 0", name="reserved_range"),
        sa.CheckConstraint("version >= 0", name="version_range"),
        sa.CheckConstraint("available + reserved <= 1000000000000000", name="balance_limit"),
        comment="What every user has.",
        **SQLITE_TABLE,
    )


def _create_reservations() -> None:
    op.create_table(
        "reservations",
        sa.Column("user_id", Key, nullable=False, comment="Whose."),
        sa.Column("reservation_id", Key, nullable=False, comment="The caller's key."),
        sa.Column("credits", Int64, nullable=False, comment="What was asked for."),
        sa.Column("state", sa.Text, nullable=False, comment="What became of it."),
        sa.Column("committed", Int64, nullable=False, comment="What was spent."),
        sa.Column("reimbursed", Int64, nullable=False, comment="What was given back of that."),
        sa.Column("rejected_available", Int64, comment="What was available when REJECTED."),
        sa.Column("created_at", Instant, nullable=False, comment="When it was made."),
        sa.Column(
            "expires_at", Instant, nullable=False, comment="From when on it cannot be committed."
        ),
        sa.Column("resolved_at", Instant, comment="When it left RESERVED."),
        sa.Column("description", sa.Text, nullable=False, comment="What the work is, in words."),
        sa.PrimaryKeyConstraint("user_id", "reservation_id", name="pk_reservations"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["accounts.user_id"], name="fk_reservations_user_id_accounts"
        ),
        sa.CheckConstraint("length(reservation_id) BETWEEN 1 AND 64", name="reservation_id_length"),
        sa.CheckConstraint("credits BETWEEN 1 AND 1000000000000000", name="credits_range"),
        sa.CheckConstraint(
            "state IN ('RESERVED', 'COMMITTED', 'REFUNDED', 'EXPIRED', 'REJECTED')",
            name="state_known",
        ),
        sa.CheckConstraint("committed BETWEEN 0 AND credits", name="committed_range"),
        sa.CheckConstraint("reimbursed BETWEEN 0 AND committed", name="reimbursed_range"),
        sa.CheckConstraint(
            "rejected_available BETWEEN 0 AND credits - 1", name="rejected_available_range"
        ),
        sa.CheckConstraint("committed = 0 OR state = 'COMMITTED'", name="committed_state"),
        sa.CheckConstraint("(state = 'RESERVED') = (resolved_at IS NULL)", name="resolved_state"),
        sa.CheckConstraint(
            "(state = 'REJECTED') = (rejected_available IS NOT NULL)", name="rejected_state"
        ),
        sa.CheckConstraint("length(description) <= 200", name="description_length"),
        comment="Credits set aside, and what became of them.",
        **SQLITE_TABLE,
    )
    op.create_index(
        "ix_reservations_expires_at",
        "reservations",
        ["expires_at"],
        sqlite_where=sa.text("state = 'RESERVED'"),
        postgresql_where=sa.text("state = 'RESERVED'"),
    )
    op.create_index("ix_reservations_user_id_created_at", "reservations", ["user_id", "created_at"])


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


def _create_transactions() -> None:
    op.create_table(
        "transactions",
        sa.Column("user_id", Key, nullable=False, comment="Whose."),
        sa.Column("version", Int64, nullable=False, comment="Place in the account's record."),
        sa.Column("key", Key, nullable=False, comment="What happens at most once: <kind>:<id>."),
        sa.Column("type", sa.Text, nullable=False, comment="Why credits moved."),
        sa.Column("available_delta", Int64, nullable=False, comment="Change of what is available."),
        sa.Column("reserved_delta", Int64, nullable=False, comment="Change of what is reserved."),
        sa.Column("available_after", Int64, nullable=False, comment="What was available then."),
        sa.Column("reserved_after", Int64, nullable=False, comment="What was reserved then."),
        sa.Column("reservation_id", Key, comment="The reservation that moved, if one did."),
        sa.Column("description", sa.Text, nullable=False, comment="What it was for, in words."),
        sa.Column(
            "created_at", Instant, nullable=False, comment="When; never falls along the record."
        ),
        sa.PrimaryKeyConstraint("user_id", "version", name="pk_transactions"),
        sa.UniqueConstraint("user_id", "key", name="uq_transactions_user_id_key"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["accounts.user_id"], name="fk_transactions_user_id_accounts"
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "reservation_id"],
            ["reservations.user_id", "reservations.reservation_id"],
            name="fk_transactions_reservation",
        ),
        sa.CheckConstraint("version >= 1", name="version_range"),
        sa.CheckConstraint("length(key) BETWEEN 5 AND 74", name="key_length"),
        sa.CheckConstraint(_MOVEMENT, name="movement"),
        sa.CheckConstraint(
            "(type IN ('PURCHASE', 'BONUS', 'ADJUSTMENT')) = (reservation_id IS NULL)",
            name="reservation_type",
        ),
        sa.CheckConstraint("available_after >= 0 AND reserved_after >= 0", name="after_range"),
        sa.CheckConstraint(
            "available_after + reserved_after <= 1000000000000000", name="after_balance_limit"
        ),
        sa.CheckConstraint("length(description) <= 200", name="description_length"),
        comment="Every movement of credits, never changed.",
        **SQLITE_TABLE,
    )
