"""Cancels and retries, searches for lost creates, orphans, uploaded images, retention, schemas."""

import sqlalchemy as sa
from alembic import op

from services.runtime.database import SQLITE_TABLE, Flag, Float64, Instant, Int64, Key
from services.runtime.table_changes import TableChange, change_tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STAGES = (
    "'RESERVING', 'READY', 'SUBMITTING', 'RUNNING', 'CANCELING', 'ARCHIVING', 'COMMITTING', "
    "'REFUNDING', 'PARKED', 'REJECTED', 'COMPLETED', 'FAILED', 'CANCELED'"
)
FAILURE_CODES = (
    "'RESERVE_TIMEOUT', 'QUEUE_TIMEOUT', 'SUBMIT_UNCERTAIN', 'INPUT_REJECTED', 'MODEL_FAILED', "
    "'MODEL_TIMED_OUT', 'OUTPUT_LOST', 'INSUFFICIENT_CREDITS', 'ACCOUNT_NOT_FOUND', 'CANCELED'"
)
REPORTERS = "'CREATE', 'WEBHOOK', 'POLL', 'SEARCH'"


def upgrade() -> None:
    """Adds columns, indexes and two tables, and lets constraints know the new words."""
    change_tables([_generations(), _attempts(), _predictions(), _gates()])
    if not _is_sqlite():
        op.alter_column("gates", "name", comment="create, or search.")
    _create_indexes()
    _create_images()
    _create_model_schemas()
    _fill()


def _is_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _beginning() -> sa.TextClause:
    return sa.text("0" if _is_sqlite() else "'epoch'")


def _generations() -> TableChange:
    zero = sa.text("0")
    return TableChange(
        "generations",
        (
            sa.Column("park_reason", sa.Text(), comment="Why it was parked, for operators."),
            sa.Column(
                "claims",
                sa.Integer(),
                nullable=False,
                server_default=zero,
                comment="Claims since its effect last ended.",
            ),
            sa.Column(
                "claimed_by", sa.Text(), comment="The replica that claimed it last, for operators."
            ),
            sa.Column(
                "uncertain_since", Instant, comment="Since when it is open what came of a submit."
            ),
            sa.Column("not_before", Instant, comment="When it may be submitted at the earliest."),
            sa.Column(
                "resubmissions",
                sa.Integer(),
                nullable=False,
                server_default=zero,
                comment="Attempts after one that failed.",
            ),
            sa.Column("video_seconds", Float64, comment="How long it runs."),
            sa.Column("thumbnail_key", sa.Text(), comment="Where our storage keeps a still of it."),
            sa.Column(
                "erase_at",
                Instant,
                comment="When its files are to be removed; null = never, or done.",
            ),
            sa.Column("erased_at", Instant, comment="When its files were removed."),
            sa.Column(
                "refund_percent",
                sa.Integer(),
                comment="What a cancel gives back; null = not canceled.",
            ),
            sa.Column("retry_of", Key, comment="The generation that this one makes again."),
            sa.Column("deleted_at", Instant, comment="When its user deleted it."),
        ),
        {
            "ck_generations_stage": f"stage IN ({STAGES})",
            "ck_generations_due_at": (
                "(due_at IS NULL) = "
                "(stage IN ('PARKED', 'REJECTED', 'COMPLETED', 'FAILED', 'CANCELED'))"
            ),
            "ck_generations_failure_code": f"failure_code IN ({FAILURE_CODES})",
            "ck_generations_refund_percent": "refund_percent BETWEEN 0 AND 100",
            "ck_generations_resubmissions": "resubmissions BETWEEN 0 AND 1",
            "ck_generations_charged_credits": (
                "charged_credits = 0 OR "
                "(charged_credits = price_credits AND stage = 'COMPLETED') OR "
                "(charged_credits * 100 <= price_credits * (100 - refund_percent) "
                "AND stage = 'CANCELED')"
            ),
            "ck_generations_canceled": "stage <> 'CANCELED' OR refund_percent IS NOT NULL",
            "ck_generations_deleted_at": "deleted_at IS NULL OR finished_at IS NOT NULL",
        },
    )


def _attempts() -> TableChange:
    zero = sa.text("0")
    return TableChange(
        "attempts",
        (
            sa.Column(
                "send_before",
                Instant,
                nullable=False,
                server_default=_beginning(),
                comment="After this nothing was sent any more.",
            ),
            sa.Column(
                "search_at", Instant, comment="When to look for its prediction; null = never."
            ),
            sa.Column(
                "searches",
                sa.Integer(),
                nullable=False,
                server_default=zero,
                comment="How often it was looked for.",
            ),
            sa.Column(
                "clean_searches",
                sa.Integer(),
                nullable=False,
                server_default=zero,
                comment="Complete ones in a row, in vain.",
            ),
        ),
        {
            "ck_attempts_state": (
                "state IN ('OPEN', 'CREATED', 'REFUSED', 'NOT_SENT', 'UNKNOWN', 'ABSENT')"
            ),
            "ck_attempts_search_at": "search_at IS NULL OR state = 'UNKNOWN'",
        },
    )


def _predictions() -> TableChange:
    zero = sa.text("0")
    return TableChange(
        "predictions",
        (
            sa.Column(
                "found_by",
                sa.Text(),
                nullable=False,
                server_default=sa.text("'CREATE'"),
                comment="Who told of it first.",
            ),
            sa.Column("ended_by", sa.Text(), comment="Who told of its end."),
            sa.Column(
                "predict_seconds",
                Float64,
                comment="What the provider bills, once it has ended.",
            ),
            sa.Column(
                "error",
                sa.Text(),
                comment="Why it failed, in the provider's words, for operators.",
            ),
            sa.Column(
                "due_at", Instant, comment="Of an orphan: when to see to it; null = no more."
            ),
            sa.Column(
                "fence",
                Int64,
                nullable=False,
                server_default=zero,
                comment="Of an orphan: grows with every claim.",
            ),
            sa.Column(
                "failures",
                sa.Integer(),
                nullable=False,
                server_default=zero,
                comment="Of an orphan: looks in a row, in vain.",
            ),
        ),
        {
            "ck_predictions_role": "role IN ('ADOPTED', 'SUPERSEDED', 'ORPHAN')",
            "ck_predictions_found_by": f"found_by IN ({REPORTERS})",
            "ck_predictions_ended_by": f"ended_by IN ({REPORTERS})",
            "ck_predictions_due_at": "due_at IS NULL OR role = 'ORPHAN'",
        },
    )


def _gates() -> TableChange:
    return TableChange(
        "gates",
        (
            sa.Column(
                "troubles",
                sa.Integer(),
                nullable=False,
                server_default=sa.text("0"),
                comment="Creates in a row without an answer.",
            ),
            sa.Column(
                "is_probing",
                Flag,
                nullable=False,
                server_default=sa.text("0" if _is_sqlite() else "false"),
                comment="Whether one may go at a time.",
            ),
        ),
    )


def _create_indexes() -> None:
    op.drop_index("ix_generations_due", "generations")
    for name, table, columns, condition in (
        ("ix_generations_due", "generations", ["stage", "due_at"], "due_at IS NOT NULL"),
        ("ix_generations_suspect", "generations", ["due_at"], "claims >= 2"),
        ("ix_generations_unfinished", "generations", ["user_id"], "finished_at IS NULL"),
        ("ix_generations_erase", "generations", ["erase_at"], "erase_at IS NOT NULL"),
        ("ix_generations_image", "generations", ["image_uri"], "image_uri <> ''"),
        ("ix_attempts_search", "attempts", ["search_at"], "search_at IS NOT NULL"),
        ("ix_predictions_due", "predictions", ["due_at"], "due_at IS NOT NULL"),
        ("ix_predictions_orphans", "predictions", ["first_seen_at"], "role = 'ORPHAN'"),
        ("ix_predictions_ended_at", "predictions", ["ended_at"], None),
    ):
        where = None if condition is None else sa.text(condition)
        op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)


def _create_images() -> None:
    op.create_table(
        "images",
        sa.Column("image_id", Key, nullable=False, comment="Ours: a UUID."),
        sa.Column("user_id", Key, nullable=False, comment="Who uploaded it."),
        sa.Column(
            "sha256", Key, nullable=False, comment="Digest of what was uploaded, hexadecimal."
        ),
        sa.Column("key", sa.Text(), nullable=False, comment="Where our storage keeps it."),
        sa.Column("content_type", sa.Text(), nullable=False, comment="As stored."),
        sa.Column("size_bytes", Int64, nullable=False, comment="As stored."),
        sa.Column("width_pixels", sa.Integer(), nullable=False),
        sa.Column("height_pixels", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("expires_at", Instant, nullable=False, comment="When it goes unless it is used."),
        sa.Column("provider_url", sa.Text(), comment="Where the provider keeps its copy."),
        sa.Column("provider_expires_at", Instant, comment="Until when it does."),
        sa.CheckConstraint("length(image_id) = 36", name=op.f("ck_images_image_id")),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 64", name=op.f("ck_images_user_id")),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_images")),
        sa.UniqueConstraint("user_id", "sha256", name=op.f("uq_images_user_id_sha256")),
        **SQLITE_TABLE,
    )
    op.create_index("ix_images_expires_at", "images", ["expires_at"])


def _create_model_schemas() -> None:
    op.create_table(
        "model_schemas",
        sa.Column("provider_model", Key, nullable=False, comment="owner/name."),
        sa.Column(
            "schemas",
            sa.Text(),
            nullable=False,
            comment="Input and its enums, as canonical JSON.",
        ),
        sa.Column("sha256", sa.Text(), nullable=False, comment="Digest of schemas, hexadecimal."),
        sa.Column("fetched_at", Instant, nullable=False, comment="When the provider last said so."),
        sa.PrimaryKeyConstraint("provider_model", name=op.f("pk_model_schemas")),
        **SQLITE_TABLE,
    )


def _fill() -> None:
    """Gives the present rows what follows from what they say."""
    ten_seconds = "10000000" if _is_sqlite() else "interval '10 s'"
    op.execute(f"UPDATE attempts SET send_before = created_at + {ten_seconds}")  # noqa: S608
    # What the version before left open is looked for, and seen to, from now on.
    op.execute("UPDATE attempts SET search_at = settled_at WHERE state = 'UNKNOWN'")
    op.execute(
        "UPDATE generations SET uncertain_since = (SELECT settled_at FROM attempts WHERE "
        "attempts.generation_id = generations.generation_id AND "
        "attempts.attempt = generations.attempt AND attempts.state = 'UNKNOWN') "
        "WHERE stage = 'SUBMITTING'"
    )
    op.execute(
        "UPDATE predictions SET due_at = first_seen_at WHERE role = 'ORPHAN' AND ended_at IS NULL"
    )
    # Such rows exist from the start, since a row that is not there cannot be locked.
    op.execute(
        "INSERT INTO gates (name, tokens, refilled_at, why, troubles, is_probing) "
        + (
            "VALUES ('search', 0, 0, '', 0, 0)"
            if _is_sqlite()
            else "VALUES ('search', 0, 'epoch', '', 0, false)"
        )
    )
