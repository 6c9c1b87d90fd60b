"""Finds what has ended, and what is parked, without reading every generation that ever was."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from services.runtime.database import SQLITE_TABLE, Instant, Key

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SETTLED = sa.text("finished_at IS NOT NULL AND stage <> 'REJECTED'")
PARKED = sa.text("stage = 'PARKED'")


def upgrade() -> None:
    """Makes an index of all ends out of that of the good ones, one of what is parked, a bookmark."""
    op.drop_index("ix_generations_completed", "generations")
    op.create_index(
        "ix_generations_ended",
        "generations",
        ["finished_at", "generation_id"],
        postgresql_where=SETTLED,
        sqlite_where=SETTLED,
    )
    op.create_index(
        "ix_generations_parked",
        "generations",
        ["stage_since", "generation_id"],
        postgresql_where=PARKED,
        sqlite_where=PARKED,
    )
    bookmarks = op.create_table(
        "bookmarks",
        sa.Column("name", Key, nullable=False, comment="ended."),
        sa.Column("moment", Instant, nullable=False, comment="All up to it was looked at."),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_bookmarks")),
        **SQLITE_TABLE,
    )
    # Of what ended before, the last day is looked at again, as by every new process.
    op.bulk_insert(bookmarks, [{"name": "ended", "moment": datetime.now(UTC)}])
