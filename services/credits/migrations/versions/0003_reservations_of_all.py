"""The reservations of all users by age, and the open ones among them, as the order of a page is."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BY_AGE = ["created_at", "reservation_id", "user_id"]
OPEN = sa.text("state = 'RESERVED'")


def upgrade() -> None:
    """Makes the indexes."""
    op.create_index("ix_reservations_created_at", "reservations", BY_AGE)
    op.create_index(
        "ix_reservations_open",
        "reservations",
        BY_AGE,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
