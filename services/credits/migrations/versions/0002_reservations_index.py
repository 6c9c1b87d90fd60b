"""A user's reservations by age: the index ends in their ids, as the order of a page does.

Without them PostgreSQL, before it has gathered statistics, takes this index for one as good as the
primary key, and finds a reservation by reading all that its user ever made.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEX = "ix_reservations_user_id_created_at"


def upgrade() -> None:
    """Makes the index anew."""
    op.drop_index(INDEX, "reservations")
    op.create_index(INDEX, "reservations", ["user_id", "created_at", "reservation_id"])
