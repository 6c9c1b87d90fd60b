"""When bodies went; and indexes for what is to be removed.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BLANKED_COMMENT = "When body and headers were removed; NULL while they are kept."
INDEXES = {
    "delivered_at": (
        "blanked_at IS NULL AND state = 'DELIVERED' AND disposition NOT IN ('ORPHAN', 'UNMATCHED')"
    ),
    "stored_at": (
        "blanked_at IS NULL AND (state = 'DEAD' OR disposition IN ('ORPHAN', 'UNMATCHED'))"
    ),
    "blanked_at": "blanked_at IS NOT NULL",
}


def upgrade() -> None:
    """Adds the column, set for what was dropped, and the indexes."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    # In words, since Alembic adds no CHECK to a table of SQLite, not even with its column.
    op.execute(
        f"ALTER TABLE inbox ADD COLUMN blanked_at {'TIMESTAMPTZ' if is_postgresql else 'INTEGER'}"
        " CONSTRAINT ck_inbox_blanked"
        " CHECK (blanked_at IS NULL OR (length(body) = 0 AND headers = '[]'))"
    )
    if is_postgresql:
        op.alter_column("inbox", "blanked_at", comment=BLANKED_COMMENT)
    op.execute("UPDATE inbox SET blanked_at = dropped_at WHERE dropped_at IS NOT NULL")
    for column, condition in INDEXES.items():
        op.create_index(
            f"ix_inbox_{column}",
            "inbox",
            [column],
            postgresql_where=sa.text(condition),
            sqlite_where=sa.text(condition),
        )
