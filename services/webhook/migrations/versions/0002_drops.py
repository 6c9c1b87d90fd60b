"""What operators gave up and why; and indexes for what they look for.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from services.runtime.database import Instant

revision = "0002"
down_revision = "0001"

REASON_COMMENT = "Why it was given up; NULL unless it was."


def upgrade() -> None:
    """Adds the columns of a drop, and the indexes."""
    op.add_column(
        "inbox",
        sa.Column("dropped_at", Instant, comment="When it was given up; NULL unless it was."),
    )
    # In words, since Alembic adds no CHECK to a table of SQLite, not even with its column.
    op.execute(
        "ALTER TABLE inbox ADD COLUMN drop_reason TEXT CONSTRAINT ck_inbox_drop_reason"
        " CHECK (length(drop_reason) BETWEEN 1 AND 200)"
    )
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("inbox", "drop_reason", comment=REASON_COMMENT)
    op.create_index(
        "ix_inbox_generation_id",
        "inbox",
        ["generation_id", "sequence"],
        postgresql_where=sa.text("generation_id <> ''"),
        sqlite_where=sa.text("generation_id <> ''"),
    )
    op.create_index(
        "ix_inbox_dead",
        "inbox",
        ["sequence"],
        postgresql_where=sa.text("state = 'DEAD'"),
        sqlite_where=sa.text("state = 'DEAD'"),
    )
