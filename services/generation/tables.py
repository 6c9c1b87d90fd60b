"""The tables of the generation service."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    literal_column,
    text,
)

from services.generation.state import FailureCode, Kind, Stage
from services.runtime.database import (
    SQLITE_TABLE,
    Float64,
    Instant,
    Int64,
    Key,
    new_metadata,
)

__all__ = [
    "SETTLED",
    "attempts",
    "bookmarks",
    "gates",
    "generations",
    "in_stage",
    "metadata",
    "prediction_events",
    "predictions",
    "transitions",
]

metadata = new_metadata()

SETTLED = "finished_at IS NOT NULL AND stage <> 'REJECTED'"
"""What holds of generations that have ended, but for those that never had anything to settle."""


def _one_of(column: str, values: type[Kind] | type[Stage] | type[FailureCode]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


generations = Table(
    "generations",
    metadata,
    Column("generation_id", Key, primary_key=True, comment="The caller's id: a UUID."),
    Column("user_id", Key, nullable=False, comment="Whose it is, and who pays."),
    Column("kind", Text, nullable=False, comment="What it makes."),
    Column("model", Text, nullable=False, comment="The catalog's model."),
    Column("resolution", Text, nullable=False, comment="480p or 720p."),
    Column("prompt", Text, nullable=False, comment="What the video shows."),
    Column("negative_prompt", Text, nullable=False, comment="What it shall not show, or ''."),
    Column("image_uri", Text, nullable=False, comment="The image to start from, or ''."),
    Column("aspect_ratio", Text, nullable=False, comment="As chosen, or ''."),
    Column("seed", Int64, comment="As chosen; null if it was left to us."),
    Column("price_credits", Int64, nullable=False, comment="Fixed at the create."),
    Column("stage", Text, nullable=False, comment="What is to be done."),
    Column("stage_since", Instant, nullable=False, comment="When the stage began."),
    Column("parked_from", Key, comment="The stage that it was parked in."),
    Column("due_at", Instant, comment="Timer and lease in one; null = ended or parked."),
    Column("fence", Int64, nullable=False, comment="Grows with every claim and change."),
    Column("failures", Integer, nullable=False, comment="Of the stage's effect, in a row."),
    Column("defects", Integer, nullable=False, comment="Those that no outage explains."),
    Column("attempt", Integer, nullable=False, comment="How often it was submitted."),
    Column("job_id", Key, unique=True, comment="The prediction in use."),
    Column("provider_status", Text, comment="The provider's last word on it."),
    Column("provider_ended_at", Instant, comment="When we learned that it succeeded."),
    Column("missing", Integer, nullable=False, comment="Polls in a row that found nothing."),
    Column("progress_percent", Integer, nullable=False, comment="0 to 100."),
    Column("output_url", Text, comment="Where the provider keeps the video."),
    Column("output_key", Text, comment="Where our storage keeps it."),
    Column("output_size_bytes", Int64, comment="Its size."),
    Column("output_sha256", Text, comment="Its digest, hexadecimal."),
    Column("failure_code", Text, comment="Why there is no video."),
    Column("failure_message", Text, comment="The same for the user."),
    Column("rejected_available", Int64, comment="Credits at a refusal for want of them."),
    Column("charged_credits", Int64, nullable=False, comment="What was spent on it."),
    Column("created_at", Instant, nullable=False),
    Column("deadline_at", Instant, nullable=False, comment="End of waiting for the provider."),
    Column("submitted_at", Instant, comment="When its prediction was known."),
    Column("started_at", Instant, comment="When the provider began to work."),
    Column("finished_at", Instant, comment="When it ended."),
    Column("updated_at", Instant, nullable=False, comment="When a user could see a change."),
    Column("version", Int64, nullable=False, comment="Counts those changes, from 1."),
    CheckConstraint("length(generation_id) = 36", name="generation_id"),
    CheckConstraint("length(user_id) BETWEEN 1 AND 64", name="user_id"),
    CheckConstraint(_one_of("kind", Kind), name="kind"),
    CheckConstraint("length(prompt) BETWEEN 1 AND 500", name="prompt"),
    CheckConstraint("length(negative_prompt) <= 500", name="negative_prompt"),
    CheckConstraint("length(image_uri) <= 2048", name="image_uri"),
    CheckConstraint("price_credits >= 1", name="price_credits"),
    CheckConstraint(_one_of("stage", Stage), name="stage"),
    CheckConstraint(
        "(due_at IS NULL) = (stage IN ('PARKED', 'REJECTED', 'COMPLETED', 'FAILED'))",
        name="due_at",
    ),
    CheckConstraint("attempt BETWEEN 0 AND 999", name="attempt"),
    CheckConstraint("job_id IS NULL OR length(job_id) BETWEEN 1 AND 64", name="job_id"),
    CheckConstraint("progress_percent BETWEEN 0 AND 100", name="progress_percent"),
    CheckConstraint(_one_of("failure_code", FailureCode), name="failure_code"),
    # Charged means that the video is ours and the work has ended well, whatever the code does.
    CheckConstraint(
        "charged_credits = 0 OR (charged_credits = price_credits AND stage = 'COMPLETED')",
        name="charged_credits",
    ),
    CheckConstraint("stage <> 'COMPLETED' OR output_key IS NOT NULL", name="output_key"),
    Index(
        "ix_generations_due",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
        sqlite_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "ix_generations_ready",
        "created_at",
        postgresql_where=text("stage = 'READY'"),
        sqlite_where=text("stage = 'READY'"),
    ),
    Index(
        "ix_generations_in_flight",
        "stage",
        postgresql_where=text("stage IN ('SUBMITTING', 'RUNNING', 'CANCELING')"),
        sqlite_where=text("stage IN ('SUBMITTING', 'RUNNING', 'CANCELING')"),
    ),
    Index(
        "ix_generations_ended",
        "finished_at",
        "generation_id",
        postgresql_where=text(SETTLED),
        sqlite_where=text(SETTLED),
    ),
    Index(
        "ix_generations_parked",
        "stage_since",
        "generation_id",
        postgresql_where=text("stage = 'PARKED'"),
        sqlite_where=text("stage = 'PARKED'"),
    ),
    Index("ix_generations_history", "user_id", "created_at", "generation_id"),
    Index("ix_generations_updates", "user_id", "updated_at"),
    **SQLITE_TABLE,
)

attempts = Table(
    "attempts",
    metadata,
    Column("generation_id", Key, ForeignKey("generations.generation_id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False, comment="What is known of it."),
    Column("provider_model", Text, nullable=False, comment="owner/name that it was sent to."),
    Column("input", Text, nullable=False, comment="The model's input, as JSON."),
    Column("schema_sha256", Text, nullable=False, comment="Digest of the schema it was made by."),
    Column("seed", Int64, nullable=False, comment="The seed in the input."),
    Column("created_at", Instant, nullable=False, comment="When it was claimed."),
    Column("settled_at", Instant, comment="When its state left OPEN."),
    Column("http_status", Integer, comment="Status of the create's answer."),
    Column("answer", LargeBinary, comment="Body of the create's answer, cut at 64 KiB."),
    Column("detail", Text, comment="Why it was refused, not sent or is unknown."),
    CheckConstraint("attempt BETWEEN 1 AND 999", name="attempt"),
    CheckConstraint("state IN ('OPEN', 'CREATED', 'REFUSED', 'NOT_SENT', 'UNKNOWN')", name="state"),
    **SQLITE_TABLE,
)

predictions = Table(
    "predictions",
    metadata,
    Column("job_id", Key, primary_key=True, comment="The provider's id."),
    Column("generation_id", Key, ForeignKey("generations.generation_id"), nullable=False),
    Column("attempt", Integer, nullable=False, comment="The attempt that made it."),
    Column("role", Text, nullable=False, comment="ADOPTED: the generation uses it."),
    Column("status", Text, nullable=False, comment="The provider's last word on it."),
    Column("first_seen_at", Instant, nullable=False),
    Column("ended_at", Instant, comment="When we learned of its end."),
    CheckConstraint("length(job_id) BETWEEN 1 AND 64", name="job_id"),
    CheckConstraint("role IN ('ADOPTED', 'ORPHAN')", name="role"),
    Index("ix_predictions_generation_id", "generation_id"),
    **SQLITE_TABLE,
)

prediction_events = Table(
    "prediction_events",
    metadata,
    Column("webhook_id", Key, primary_key=True, comment="The provider's id of the event."),
    Column("body_sha256", Key, primary_key=True, comment="Digest of the body, hexadecimal."),
    Column("generation_id", Key, primary_key=True, comment="As proven, or ''."),
    Column("attempt", Integer, primary_key=True, autoincrement=False, comment="As proven, or 0."),
    Column("body", LargeBinary, nullable=False, comment="As received."),
    Column("received_at", Instant, nullable=False, comment="At the door."),
    Column("recorded_at", Instant, nullable=False, comment="Here."),
    Column("disposition", Text, nullable=False, comment="What came of it."),
    CheckConstraint("length(webhook_id) BETWEEN 1 AND 256", name="webhook_id"),
    CheckConstraint(
        "disposition IN ('APPLIED', 'STALE', 'ORPHAN', 'UNMATCHED', 'UNREADABLE')",
        name="disposition",
    ),
    Index("ix_prediction_events_recorded_at", "recorded_at"),
    **SQLITE_TABLE,
)

gates = Table(
    "gates",
    metadata,
    Column("name", Key, primary_key=True, comment="create."),
    Column("tokens", Float64, nullable=False, comment="Creates allowed as of refilled_at."),
    Column("refilled_at", Instant, nullable=False),
    Column("paused_until", Instant, comment="Nothing is submitted before."),
    Column("why", Text, nullable=False, comment="Why it was paused last."),
    **SQLITE_TABLE,
)

bookmarks = Table(
    "bookmarks",
    metadata,
    Column("name", Key, primary_key=True, comment="ended."),
    Column("moment", Instant, nullable=False, comment="All up to it was looked at."),
    **SQLITE_TABLE,
)

transitions = Table(
    "transitions",
    metadata,
    Column("generation_id", Key, ForeignKey("generations.generation_id"), primary_key=True),
    Column("fence", Int64, primary_key=True, autoincrement=False, comment="Order in time."),
    Column("at", Instant, nullable=False),
    Column("event", Text, nullable=False, comment="What happened."),
    Column("from_stage", Text, nullable=False),
    Column("to_stage", Text, nullable=False),
    **SQLITE_TABLE,
)


def in_stage(*stages: Stage) -> ColumnElement[bool]:
    """Returns the condition on a stage with its values written out.

    A planner cannot tell that a bound value fits an index of some stages only, and would read every
    generation that ever was. Nor can SQLite that IN with one value is what an index calls equal.
    """
    values: list[ColumnElement[str]] = [literal_column(f"'{stage.value}'") for stage in stages]
    column = generations.c.stage
    return column == values[0] if len(values) == 1 else column.in_(values)
