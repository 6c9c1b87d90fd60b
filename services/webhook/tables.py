"""The one table of the webhook service: events on their way from Replicate to generation."""

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    literal_column,
    text,
)

from services.runtime.database import Instant, Int64, Key, new_metadata

__all__ = ["IS_BLANK", "IS_NOBODYS", "IS_UNUSED", "IS_USED", "KEY", "State", "inbox", "metadata"]

# Conditions of rows, in words that a planner recognizes as those of an index.
IS_USED = (
    "blanked_at IS NULL AND state = 'DELIVERED' AND disposition NOT IN ('ORPHAN', 'UNMATCHED')"
)
"""A generation used it, and it is still whole."""
IS_UNUSED = "blanked_at IS NULL AND (state = 'DEAD' OR disposition IN ('ORPHAN', 'UNMATCHED'))"
"""No generation used it, and it is still whole."""
IS_BLANK = "blanked_at IS NOT NULL"
"""Its body and headers are gone."""


class State(StrEnum):
    """Where an event stands on its way to generation."""

    PENDING = "PENDING"
    """Due, or being delivered."""
    DELIVERED = "DELIVERED"
    """Generation has recorded it."""
    DEAD = "DEAD"
    """Generation will never take it as it is; it waits for a person."""


def _where(condition: str) -> dict[str, Any]:
    """Returns the options of an index of some rows only."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


metadata = new_metadata()

inbox = Table(
    "inbox",
    metadata,
    Column("webhook_id", Key, primary_key=True, comment="Replicate's id of the event."),
    Column(
        "body_sha256",
        Key,
        primary_key=True,
        comment="Hexadecimal; should two events ever share an id, neither hides the other.",
    ),
    Column(
        "generation_id",
        Key,
        primary_key=True,
        comment="What the address named; empty unless its query was GOOD.",
    ),
    Column(
        "attempt",
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="What the address named, 1 to 999; 0 unless its query was GOOD.",
    ),
    Column(
        "sequence",
        Int64,
        Identity(),
        nullable=False,
        comment="Order of arrival, with gaps; on SQLite the writer counts itself.",
    ),
    Column("body", LargeBinary, nullable=False, comment="As received."),
    Column("headers", Text, nullable=False, comment="JSON list of name and value, as received."),
    Column("query", Text, nullable=False, comment="Of the address, as received."),
    Column("query_verdict", Text, nullable=False, comment="Good, missing or bad."),
    Column("secret_number", Integer, nullable=False, comment="What verified it, 0 = newest."),
    Column("signed_at", Instant, nullable=False, comment="The signed timestamp."),
    Column("received_at", Instant, nullable=False, comment="When its headers had arrived."),
    Column("stored_at", Instant, nullable=False, comment="When it was stored, then acknowledged."),
    Column("delivered_at", Instant, comment="When generation's OK was recorded."),
    Column("state", Text, nullable=False, comment="PENDING, DELIVERED or DEAD."),
    Column(
        "due_at",
        Instant,
        nullable=False,
        comment="When it may be claimed: timer after a failure, lease while being delivered.",
    ),
    Column("tries", Integer, nullable=False, comment="How often it was claimed."),
    Column(
        "refusals",
        Integer,
        nullable=False,
        comment="Answers that count towards DEAD; an outage does not.",
    ),
    Column("last_error", Text, nullable=False, comment="Status of the last failure, or empty."),
    Column("disposition", Text, nullable=False, comment="Generation's word, or empty."),
    Column("dropped_at", Instant, comment="When it was given up; NULL unless it was."),
    Column("drop_reason", Text, comment="Why it was given up; NULL unless it was."),
    Column(
        "blanked_at",
        Instant,
        comment="When body and headers were removed; NULL while they are kept.",
    ),
    CheckConstraint("length(webhook_id) BETWEEN 1 AND 256", name="webhook_id"),
    CheckConstraint("length(body_sha256) = 64", name="body_sha256"),
    CheckConstraint("length(generation_id) IN (0, 36)", name="generation_id"),
    CheckConstraint("attempt BETWEEN 0 AND 999", name="attempt"),
    CheckConstraint("(generation_id = '') = (attempt = 0)", name="address"),
    CheckConstraint("length(body) <= 8388608", name="body"),
    CheckConstraint("length(headers) <= 32768", name="headers"),
    CheckConstraint("length(query) <= 2048", name="query"),
    CheckConstraint("query_verdict IN ('good', 'missing', 'bad')", name="query_verdict"),
    CheckConstraint("(query_verdict = 'good') = (attempt > 0)", name="proven"),
    CheckConstraint("secret_number >= 0", name="secret_number"),
    CheckConstraint("state IN ('PENDING', 'DELIVERED', 'DEAD')", name="state"),
    CheckConstraint("(state = 'DELIVERED') = (delivered_at IS NOT NULL)", name="delivered"),
    CheckConstraint("tries >= 0", name="tries"),
    CheckConstraint("refusals BETWEEN 0 AND tries", name="refusals"),
    CheckConstraint("length(last_error) <= 300", name="last_error"),
    CheckConstraint("length(disposition) <= 64", name="disposition"),
    CheckConstraint("length(drop_reason) BETWEEN 1 AND 200", name="drop_reason"),
    CheckConstraint("blanked_at IS NULL OR (length(body) = 0 AND headers = '[]')", name="blanked"),
    Index("uq_inbox_sequence", "sequence", unique=True),
    Index("ix_inbox_due_at", "due_at", **_where("state = 'PENDING'")),
    Index("ix_inbox_generation_id", "generation_id", "sequence", **_where("generation_id <> ''")),
    Index("ix_inbox_dead", "sequence", **_where("state = 'DEAD'")),
    Index("ix_inbox_delivered_at", "delivered_at", **_where(IS_USED)),
    Index("ix_inbox_stored_at", "stored_at", **_where(IS_UNUSED)),
    Index("ix_inbox_blanked_at", "blanked_at", **_where(IS_BLANK)),
    # Rows are large, so unlike elsewhere SQLite keeps them outside of the primary key's tree.
    sqlite_strict=True,
)

KEY = (inbox.c.webhook_id, inbox.c.body_sha256, inbox.c.generation_id, inbox.c.attempt)
"""What makes two deliveries the same event."""

IS_NOBODYS: ColumnElement[bool] = inbox.c.disposition.in_(
    [literal_column("'ORPHAN'"), literal_column("'UNMATCHED'")]
)
"""Generation has recorded it, and no generation uses it."""
