"""Changes are within the limit of all amounts, and no transaction is replaced.

Changes beyond the limit would let sums overflow. SQLite lets REPLACE remove a row without firing
triggers on DELETE, and adds no CHECK to a table, so there triggers on INSERT hold both. Rows that
were written before are left as they are: VerifyLedger names those that are wrong.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A lookup for each key, or SQLite might read all of the user's rows.
_KNOWN = " OR ".join(
    f"EXISTS (SELECT 1 FROM transactions WHERE user_id = NEW.user_id AND {key} = NEW.{key})"  # noqa: S608
    for key in ("version", "key")
)
_LIMIT = 1_000_000_000_000_000
_WITHIN = " AND ".join(
    f"{{row}}{delta} BETWEEN -{_LIMIT} AND {_LIMIT}"
    for delta in ("available_delta", "reserved_delta")
)


def upgrade() -> None:
    """Makes the triggers on SQLite, the constraint on PostgreSQL."""
    if op.get_bind().dialect.name == "sqlite":
        _refuse("replace", _KNOWN, "transactions are append-only")
        _refuse("range", f"NOT ({_WITHIN.format(row='NEW.')})", "a change is beyond 10^15")
    else:
        # Not valid: a row of before would else keep every later migration away.
        op.execute(
            "ALTER TABLE transactions ADD CONSTRAINT ck_transactions_delta_range "
            f"CHECK ({_WITHIN.format(row='')}) NOT VALID"
        )


def _refuse(name: str, condition: str, message: str) -> None:
    op.execute(
        f"CREATE TRIGGER transactions_refuse_{name} BEFORE INSERT ON transactions "
        f"WHEN {condition} BEGIN SELECT RAISE(ABORT, '{message}'); END"
    )
