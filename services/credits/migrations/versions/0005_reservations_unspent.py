"""Reservations of which nothing was spent, by state and age: most are committed instead."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNSPENT = sa.text("state IN ('REFUNDED', 'EXPIRED', 'REJECTED')")


def upgrade() -> None:
    """Makes the index."""
    op.create_index(
        "ix_reservations_unspent",
        "reservations",
        ["state", "created_at", "reservation_id", "user_id"],
        sqlite_where=UNSPENT,
        postgresql_where=UNSPENT,
    )
