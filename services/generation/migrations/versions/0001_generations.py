"""Creates the tables of the generation service."""

import sqlalchemy as sa
from alembic import op

from services.runtime.database import SQLITE_TABLE, Float64, Instant, Int64, Key

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates all tables."""
    op.create_table(
        "gates",
        sa.Column("name", Key, nullable=False, comment="create."),
        sa.Column("tokens", Float64, nullable=False, comment="Creates allowed as of refilled_at."),
        sa.Column("refilled_at", Instant, nullable=False),
        sa.Column("paused_until", Instant, nullable=True, comment="Nothing is submitted before."),
        sa.Column("why", sa.Text(), nullable=False, comment="Why it was paused last."),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_gates")),
        **SQLITE_TABLE,
    )
    op.create_table(
        "generations",
        sa.Column("generation_id", Key, nullable=False, comment="The caller's id: a UUID."),
        sa.Column("user_id", Key, nullable=False, comment="Whose it is, and who pays."),
        sa.Column("kind", sa.Text(), nullable=False, comment="What it makes."),
        sa.Column("model", sa.Text(), nullable=False, comment="The catalog's model."),
        sa.Column("resolution", sa.Text(), nullable=False, comment="480p or 720p."),
        sa.Column("prompt", sa.Text(), nullable=False, comment="What the video shows."),
        sa.Column(
            "negative_prompt", sa.Text(), nullable=False, comment="What it shall not show, or ''."
        ),
        sa.Column(
            "image_uri", sa.Text(), nullable=False, comment="The image to start from, or ''."
        ),
        sa.Column("aspect_ratio", sa.Text(), nullable=False, comment="As chosen, or ''."),
        sa.Column("seed", Int64, nullable=True, comment="As chosen; null if it was left to us."),
        sa.Column("price_credits", Int64, nullable=False, comment="Fixed at the create."),
        sa.Column("stage", sa.Text(), nullable=False, comment="What is to be done."),
        sa.Column("stage_since", Instant, nullable=False, comment="When the stage began."),
        sa.Column("parked_from", Key, nullable=True, comment="The stage that it was parked in."),
        sa.Column(
            "due_at",
            Instant,
            nullable=True,
            comment="Timer and lease in one; null = ended or parked.",
        ),
        sa.Column("fence", Int64, nullable=False, comment="Grows with every claim and change."),
        sa.Column(
            "failures", sa.Integer(), nullable=False, comment="Of the stage's effect, in a row."
        ),
        sa.Column(
            "defects", sa.Integer(), nullable=False, comment="Those that no outage explains."
        ),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="How often it was submitted."),
        sa.Column("job_id", Key, nullable=True, comment="The prediction in use."),
        sa.Column(
            "provider_status", sa.Text(), nullable=True, comment="The provider's last word on it."
        ),
        sa.Column(
            "provider_ended_at",
            Instant,
            nullable=True,
            comment="When we learned that it succeeded.",
        ),
        sa.Column(
            "missing", sa.Integer(), nullable=False, comment="Polls in a row that found nothing."
        ),
        sa.Column("progress_percent", sa.Integer(), nullable=False, comment="0 to 100."),
        sa.Column(
            "output_url", sa.Text(), nullable=True, comment="Where the provider keeps the video."
        ),
        sa.Column("output_key", sa.Text(), nullable=True, comment="Where our storage keeps it."),
        sa.Column("output_size_bytes", Int64, nullable=True, comment="Its size."),
        sa.Column("output_sha256", sa.Text(), nullable=True, comment="Its digest, hexadecimal."),
        sa.Column("failure_code", sa.Text(), nullable=True, comment="Why there is no video."),
        sa.Column("failure_message", sa.Text(), nullable=True, comment="The same for the user."),
        sa.Column(
            "rejected_available",
            Int64,
            nullable=True,
            comment="Credits at a refusal for want of them.",
        ),
        sa.Column("charged_credits", Int64, nullable=False, comment="What was spent on it."),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column(
            "deadline_at", Instant, nullable=False, comment="End of waiting for the provider."
        ),
        sa.Column("submitted_at", Instant, nullable=True, comment="When its prediction was known."),
        sa.Column("started_at", Instant, nullable=True, comment="When the provider began to work."),
        sa.Column("finished_at", Instant, nullable=True, comment="When it ended."),
        sa.Column("updated_at", Instant, nullable=False, comment="When a user could see a change."),
        sa.Column("version", Int64, nullable=False, comment="Counts those changes, from 1."),
        sa.CheckConstraint(
            "(due_at IS NULL) = (stage IN ('PARKED', 'REJECTED', 'COMPLETED', 'FAILED'))",
            name=op.f("ck_generations_due_at"),
        ),
        sa.CheckConstraint(
            "charged_credits = 0 OR (charged_credits = price_credits AND stage = 'COMPLETED')",
            name=op.f("ck_generations_charged_credits"),
        ),
        sa.CheckConstraint(
            "failure_code IN ('RESERVE_TIMEOUT', 'QUEUE_TIMEOUT', 'SUBMIT_UNCERTAIN', 'INPUT_REJECTED', 'MODEL_FAILED', 'MODEL_TIMED_OUT', 'OUTPUT_LOST', 'INSUFFICIENT_CREDITS', 'ACCOUNT_NOT_FOUND')",
            name=op.f("ck_generations_failure_code"),
        ),
        sa.CheckConstraint(
            "kind IN ('TEXT_TO_VIDEO', 'IMAGE_TO_VIDEO')", name=op.f("ck_generations_kind")
        ),
        sa.CheckConstraint(
            "stage <> 'COMPLETED' OR output_key IS NOT NULL", name=op.f("ck_generations_output_key")
        ),
        sa.CheckConstraint(
            "stage IN ('RESERVING', 'READY', 'SUBMITTING', 'RUNNING', 'CANCELING', 'ARCHIVING', 'COMMITTING', 'REFUNDING', 'PARKED', 'REJECTED', 'COMPLETED', 'FAILED')",
            name=op.f("ck_generations_stage"),
        ),
        sa.CheckConstraint("attempt BETWEEN 0 AND 999", name=op.f("ck_generations_attempt")),
        sa.CheckConstraint(
            "job_id IS NULL OR length(job_id) BETWEEN 1 AND 64", name=op.f("ck_generations_job_id")
        ),
        sa.CheckConstraint("length(generation_id) = 36", name=op.f("ck_generations_generation_id")),
        sa.CheckConstraint("length(image_uri) <= 2048", name=op.f("ck_generations_image_uri")),
        sa.CheckConstraint(
            "length(negative_prompt) <= 500", name=op.f("ck_generations_negative_prompt")
        ),
        sa.CheckConstraint("length(prompt) BETWEEN 1 AND 500", name=op.f("ck_generations_prompt")),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 64", name=op.f("ck_generations_user_id")),
        sa.CheckConstraint("price_credits >= 1", name=op.f("ck_generations_price_credits")),
        sa.CheckConstraint(
            "progress_percent BETWEEN 0 AND 100", name=op.f("ck_generations_progress_percent")
        ),
        sa.PrimaryKeyConstraint("generation_id", name=op.f("pk_generations")),
        sa.UniqueConstraint("job_id", name=op.f("uq_generations_job_id")),
        **SQLITE_TABLE,
    )
    op.create_index(
        "ix_generations_completed",
        "generations",
        ["finished_at", "generation_id"],
        unique=False,
        postgresql_where=sa.text("stage = 'COMPLETED'"),
        sqlite_where=sa.text("stage = 'COMPLETED'"),
    )
    op.create_index(
        "ix_generations_due",
        "generations",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_generations_history",
        "generations",
        ["user_id", "created_at", "generation_id"],
        unique=False,
    )
    op.create_index(
        "ix_generations_in_flight",
        "generations",
        ["stage"],
        unique=False,
        postgresql_where=sa.text("stage IN ('SUBMITTING', 'RUNNING', 'CANCELING')"),
        sqlite_where=sa.text("stage IN ('SUBMITTING', 'RUNNING', 'CANCELING')"),
    )
    op.create_index(
        "ix_generations_ready",
        "generations",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("stage = 'READY'"),
        sqlite_where=sa.text("stage = 'READY'"),
    )
    op.create_index(
        "ix_generations_updates", "generations", ["user_id", "updated_at"], unique=False
    )
    op.create_table(
        "prediction_events",
        sa.Column("webhook_id", Key, nullable=False, comment="The provider's id of the event."),
        sa.Column("body_sha256", Key, nullable=False, comment="Digest of the body, hexadecimal."),
        sa.Column("generation_id", Key, nullable=False, comment="As proven, or ''."),
        sa.Column(
            "attempt", sa.Integer(), autoincrement=False, nullable=False, comment="As proven, or 0."
        ),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="As received."),
        sa.Column("received_at", Instant, nullable=False, comment="At the door."),
        sa.Column("recorded_at", Instant, nullable=False, comment="Here."),
        sa.Column("disposition", sa.Text(), nullable=False, comment="What came of it."),
        sa.CheckConstraint(
            "disposition IN ('APPLIED', 'STALE', 'ORPHAN', 'UNMATCHED', 'UNREADABLE')",
            name=op.f("ck_prediction_events_disposition"),
        ),
        sa.CheckConstraint(
            "length(webhook_id) BETWEEN 1 AND 256", name=op.f("ck_prediction_events_webhook_id")
        ),
        sa.PrimaryKeyConstraint(
            "webhook_id",
            "body_sha256",
            "generation_id",
            "attempt",
            name=op.f("pk_prediction_events"),
        ),
        **SQLITE_TABLE,
    )
    op.create_index(
        "ix_prediction_events_recorded_at", "prediction_events", ["recorded_at"], unique=False
    )
    op.create_table(
        "attempts",
        sa.Column("generation_id", Key, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="What is known of it."),
        sa.Column(
            "provider_model", sa.Text(), nullable=False, comment="owner/name that it was sent to."
        ),
        sa.Column("input", sa.Text(), nullable=False, comment="The model's input, as JSON."),
        sa.Column(
            "schema_sha256",
            sa.Text(),
            nullable=False,
            comment="Digest of the schema it was made by.",
        ),
        sa.Column("seed", Int64, nullable=False, comment="The seed in the input."),
        sa.Column("created_at", Instant, nullable=False, comment="When it was claimed."),
        sa.Column("settled_at", Instant, nullable=True, comment="When its state left OPEN."),
        sa.Column(
            "http_status", sa.Integer(), nullable=True, comment="Status of the create's answer."
        ),
        sa.Column(
            "answer",
            sa.LargeBinary(),
            nullable=True,
            comment="Body of the create's answer, cut at 64 KiB.",
        ),
        sa.Column(
            "detail",
            sa.Text(),
            nullable=True,
            comment="Why it was refused, not sent or is unknown.",
        ),
        sa.CheckConstraint(
            "state IN ('OPEN', 'CREATED', 'REFUSED', 'NOT_SENT', 'UNKNOWN')",
            name=op.f("ck_attempts_state"),
        ),
        sa.CheckConstraint("attempt BETWEEN 1 AND 999", name=op.f("ck_attempts_attempt")),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generations.generation_id"],
            name=op.f("fk_attempts_generation_id_generations"),
        ),
        sa.PrimaryKeyConstraint("generation_id", "attempt", name=op.f("pk_attempts")),
        **SQLITE_TABLE,
    )
    op.create_table(
        "predictions",
        sa.Column("job_id", Key, nullable=False, comment="The provider's id."),
        sa.Column("generation_id", Key, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="The attempt that made it."),
        sa.Column("role", sa.Text(), nullable=False, comment="ADOPTED: the generation uses it."),
        sa.Column("status", sa.Text(), nullable=False, comment="The provider's last word on it."),
        sa.Column("first_seen_at", Instant, nullable=False),
        sa.Column("ended_at", Instant, nullable=True, comment="When we learned of its end."),
        sa.CheckConstraint("role IN ('ADOPTED', 'ORPHAN')", name=op.f("ck_predictions_role")),
        sa.CheckConstraint("length(job_id) BETWEEN 1 AND 64", name=op.f("ck_predictions_job_id")),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generations.generation_id"],
            name=op.f("fk_predictions_generation_id_generations"),
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_predictions")),
        **SQLITE_TABLE,
    )
    op.create_index("ix_predictions_generation_id", "predictions", ["generation_id"], unique=False)
    op.create_table(
        "transitions",
        sa.Column("generation_id", Key, nullable=False),
        sa.Column("fence", Int64, autoincrement=False, nullable=False, comment="Order in time."),
        sa.Column("at", Instant, nullable=False),
        sa.Column("event", sa.Text(), nullable=False, comment="What happened."),
        sa.Column("from_stage", sa.Text(), nullable=False),
        sa.Column("to_stage", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generations.generation_id"],
            name=op.f("fk_transitions_generation_id_generations"),
        ),
        sa.PrimaryKeyConstraint("generation_id", "fence", name=op.f("pk_transitions")),
        **SQLITE_TABLE,
    )
    # The gate is one row that exists from the start, since a row that is not there cannot be locked.
    op.execute(
        "INSERT INTO gates (name, tokens, refilled_at, why) "
        + (
            "VALUES ('create', 0, 0, '')"
            if op.get_context().dialect.name == "sqlite"
            else "VALUES ('create', 0, to_timestamp(0), '')"
        )
    )
