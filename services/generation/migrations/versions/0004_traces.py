"""The trace in which a generation was created."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column that the release before leaves empty."""
    op.add_column(
        "generations",
        sa.Column("traceparent", sa.Text(), comment="The trace of its create; null = none."),
    )
