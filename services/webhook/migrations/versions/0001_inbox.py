"""The inbox.

Revision ID: 0001
Revises: none
"""

import sqlalchemy as sa
from alembic import op

from services.runtime.database import Instant, Int64, Key

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the table of events and its indexes."""
    op.create_table(
        "inbox",
        sa.Column("webhook_id", Key, nullable=False, comment="Replicate's id of the event."),
        sa.Column(
            "body_sha256",
            Key,
            nullable=False,
            comment="Hexadecimal; should two events ever share an id, neither hides the other.",
        ),
        sa.Column(
            "generation_id",
            Key,
            nullable=False,
            comment="What the address named; empty unless its query was GOOD.",
        ),
        sa.Column(
            "attempt",
            sa.Integer,
            nullable=False,
            comment="What the address named, 1 to 999; 0 unless its query was GOOD.",
        ),
        sa.Column(
            "sequence",
            Int64,
            sa.Identity(),
            nullable=False,
            comment="Order of arrival, with gaps; on SQLite the writer counts itself.",
        ),
        sa.Column("body", sa.LargeBinary, nullable=False, comment="As received."),
        sa.Column(
            "headers", sa.Text, nullable=False, comment="JSON list of name and value, as received."
        ),
        sa.Column("query", sa.Text, nullable=False, comment="Of the address, as received."),
        sa.Column("query_verdict", sa.Text, nullable=False, comment="Good, missing or bad."),
        sa.Column(
            "secret_number", sa.Integer, nullable=False, comment="What verified it, 0 = newest."
        ),
        sa.Column("signed_at", Instant, nullable=False, comment="The signed timestamp."),
        sa.Column("received_at", Instant, nullable=False, comment="When its headers had arrived."),
        sa.Column(
            "stored_at", Instant, nullable=False, comment="When it was stored, then acknowledged."
        ),
        sa.Column("delivered_at", Instant, comment="When generation's OK was recorded."),
        sa.Column("state", sa.Text, nullable=False, comment="PENDING, DELIVERED or DEAD."),
        sa.Column(
            "due_at",
            Instant,
            nullable=False,
            comment="When it may be claimed: timer after a failure, lease while being delivered.",
        ),
        sa.Column("tries", sa.Integer, nullable=False, comment="How often it was claimed."),
        sa.Column(
            "refusals",
            sa.Integer,
            nullable=False,
            comment="Answers that count towards DEAD; an outage does not.",
        ),
        sa.Column(
            "last_error", sa.Text, nullable=False, comment="Status of the last failure, or empty."
        ),
        sa.Column("disposition", sa.Text, nullable=False, comment="Generation's word, or empty."),
        sa.CheckConstraint(
            "length(webhook_id) BETWEEN 1 AND 256", name=op.f("ck_inbox_webhook_id")
        ),
        sa.CheckConstraint("length(body_sha256) = 64", name=op.f("ck_inbox_body_sha256")),
        sa.CheckConstraint("length(generation_id) IN (0, 36)", name=op.f("ck_inbox_generation_id")),
        sa.CheckConstraint("attempt BETWEEN 0 AND 999", name=op.f("ck_inbox_attempt")),
        sa.CheckConstraint("(generation_id = '') = (attempt = 0)", name=op.f("ck_inbox_address")),
        sa.CheckConstraint("length(body) <= 8388608", name=op.f("ck_inbox_body")),
        sa.CheckConstraint("length(headers) <= 32768", name=op.f("ck_inbox_headers")),
        sa.CheckConstraint("length(query) <= 2048", name=op.f("ck_inbox_query")),
        sa.CheckConstraint(
            "query_verdict IN ('good', 'missing', 'bad')", name=op.f("ck_inbox_query_verdict")
        ),
        sa.CheckConstraint(
            "(query_verdict = 'good') = (attempt > 0)", name=op.f("ck_inbox_proven")
        ),
        sa.CheckConstraint("secret_number >= 0", name=op.f("ck_inbox_secret_number")),
        sa.CheckConstraint(
            "state IN ('PENDING', 'DELIVERED', 'DEAD')", name=op.f("ck_inbox_state")
        ),
        sa.CheckConstraint(
            "(state = 'DELIVERED') = (delivered_at IS NOT NULL)", name=op.f("ck_inbox_delivered")
        ),
        sa.CheckConstraint("tries >= 0", name=op.f("ck_inbox_tries")),
        sa.CheckConstraint("refusals BETWEEN 0 AND tries", name=op.f("ck_inbox_refusals")),
        sa.CheckConstraint("length(last_error) <= 300", name=op.f("ck_inbox_last_error")),
        sa.CheckConstraint("length(disposition) <= 64", name=op.f("ck_inbox_disposition")),
        sa.PrimaryKeyConstraint(
            "webhook_id", "body_sha256", "generation_id", "attempt", name=op.f("pk_inbox")
        ),
        sqlite_strict=True,
    )
    op.create_index("uq_inbox_sequence", "inbox", ["sequence"], unique=True)
    op.create_index(
        "ix_inbox_due_at",
        "inbox",
        ["due_at"],
        postgresql_where=sa.text("state = 'PENDING'"),
        sqlite_where=sa.text("state = 'PENDING'"),
    )
