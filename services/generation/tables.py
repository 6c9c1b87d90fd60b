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
    UniqueConstraint,
    literal_column,
    text,
)

from services.generation.state import FailureCode, Kind, Stage
from services.runtime.database import (
    SQLITE_TABLE,
    Flag,
    Float64,
    Instant,
    Int64,
    Key,
    new_metadata,
)

__all__ = [
    "SETTLED",
    "SUSPECT",
    "attempts",
    "bookmarks",
    "gates",
    "generations",
    "images",
    "in_stage",
    "metadata",
    "model_schemas",
    "prediction_events",
    "predictions",
    "transitions",
]

metadata = new_metadata()

SETTLED = "finished_at IS NOT NULL AND stage <> 'REJECTED'"
"""What holds of generations that have ended, but for those that never had anything to settle."""

SUSPECT = "claims >= 2"
"""What was begun so often, and nobody lived to tell how it ended, is next done alone."""


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
    Column("park_reason", Text, comment="Why it was parked, for operators."),
    Column("due_at", Instant, comment="Timer and lease in one; null = ended or parked."),
    Column("fence", Int64, nullable=False, comment="Grows with every claim and change."),
    Column("claims", Integer, nullable=False, comment="Claims since its effect last ended."),
    Column("claimed_by", Text, comment="The replica that claimed it last, for operators."),
    Column("failures", Integer, nullable=False, comment="Of the stage's effect, in a row."),
    Column("defects", Integer, nullable=False, comment="Those that no outage explains."),
    Column("attempt", Integer, nullable=False, comment="How often it was submitted."),
    Column("uncertain_since", Instant, comment="Since when it is open what came of a submit."),
    Column("not_before", Instant, comment="When it may be submitted at the earliest."),
    Column("resubmissions", Integer, nullable=False, comment="Attempts after one that failed."),
    Column("job_id", Key, unique=True, comment="The prediction in use."),
    Column("provider_status", Text, comment="The provider's last word on it."),
    Column("provider_ended_at", Instant, comment="When we learned that it succeeded."),
    Column("missing", Integer, nullable=False, comment="Polls in a row that found nothing."),
    Column("progress_percent", Integer, nullable=False, comment="0 to 100."),
    Column("output_url", Text, comment="Where the provider keeps the video."),
    Column("output_key", Text, comment="Where our storage keeps it."),
    Column("output_size_bytes", Int64, comment="Its size."),
    Column("output_sha256", Text, comment="Its digest, hexadecimal."),
    Column("video_seconds", Float64, comment="How long it runs."),
    Column("thumbnail_key", Text, comment="Where our storage keeps a still of it."),
    Column("erase_at", Instant, comment="When its files are to be removed; null = never, or done."),
    Column("erased_at", Instant, comment="When its files were removed."),
    Column("failure_code", Text, comment="Why there is no video."),
    Column("failure_message", Text, comment="The same for the user."),
    Column("rejected_available", Int64, comment="Credits at a refusal for want of them."),
    Column("refund_percent", Integer, comment="What a cancel gives back; null = not canceled."),
    Column("charged_credits", Int64, nullable=False, comment="What was spent on it."),
    Column("retry_of", Key, comment="The generation that this one makes again."),
    Column("created_at", Instant, nullable=False),
    Column("deadline_at", Instant, nullable=False, comment="End of waiting for the provider."),
    Column("submitted_at", Instant, comment="When its prediction was known."),
    Column("started_at", Instant, comment="When the provider began to work."),
    Column("finished_at", Instant, comment="When it ended."),
    Column("deleted_at", Instant, comment="When its user deleted it."),
    Column("updated_at", Instant, nullable=False, comment="When a user could see a change."),
    Column("version", Int64, nullable=False, comment="Counts those changes, from 1."),
    Column("traceparent", Text, comment="The trace of its create; null = none."),
    CheckConstraint("length(generation_id) = 36", name="generation_id"),
    CheckConstraint("length(user_id) BETWEEN 1 AND 64", name="user_id"),
    CheckConstraint(_one_of("kind", Kind), name="kind"),
    CheckConstraint("length(prompt) BETWEEN 1 AND 500", name="prompt"),
    CheckConstraint("length(negative_prompt) <= 500", name="negative_prompt"),
    CheckConstraint("length(image_uri) <= 2048", name="image_uri"),
    CheckConstraint("price_credits >= 1", name="price_credits"),
    CheckConstraint(_one_of("stage", Stage), name="stage"),
    CheckConstraint(
        "(due_at IS NULL) = (stage IN ('PARKED', 'REJECTED', 'COMPLETED', 'FAILED', 'CANCELED'))",
        name="due_at",
    ),
    CheckConstraint("attempt BETWEEN 0 AND 999", name="attempt"),
    CheckConstraint("job_id IS NULL OR length(job_id) BETWEEN 1 AND 64", name="job_id"),
    CheckConstraint("progress_percent BETWEEN 0 AND 100", name="progress_percent"),
    CheckConstraint(_one_of("failure_code", FailureCode), name="failure_code"),
    CheckConstraint("refund_percent BETWEEN 0 AND 100", name="refund_percent"),
    CheckConstraint("resubmissions BETWEEN 0 AND 1", name="resubmissions"),
    # Charged means that the video is ours and the work has ended well, or what a cancel by the user
    # does not give back, whatever the code does.
    CheckConstraint(
        "charged_credits = 0 OR (charged_credits = price_credits AND stage = 'COMPLETED') OR "
        "(charged_credits * 100 <= price_credits * (100 - refund_percent) AND stage = 'CANCELED')",
        name="charged_credits",
    ),
    CheckConstraint("stage <> 'CANCELED' OR refund_percent IS NOT NULL", name="canceled"),
    CheckConstraint("deleted_at IS NULL OR finished_at IS NOT NULL", name="deleted_at"),
    CheckConstraint("stage <> 'COMPLETED' OR output_key IS NOT NULL", name="output_key"),
    Index(
        "ix_generations_due",
        "stage",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
        sqlite_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "ix_generations_suspect",
        "due_at",
        postgresql_where=text(SUSPECT),
        sqlite_where=text(SUSPECT),
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
    Index(
        "ix_generations_unfinished",
        "user_id",
        postgresql_where=text("finished_at IS NULL"),
        sqlite_where=text("finished_at IS NULL"),
    ),
    Index(
        "ix_generations_erase",
        "erase_at",
        postgresql_where=text("erase_at IS NOT NULL"),
        sqlite_where=text("erase_at IS NOT NULL"),
    ),
    Index(
        "ix_generations_image",
        "image_uri",
        postgresql_where=text("image_uri <> ''"),
        sqlite_where=text("image_uri <> ''"),
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
    Column("send_before", Instant, nullable=False, comment="After this nothing was sent any more."),
    Column("search_at", Instant, comment="When to look for its prediction; null = never."),
    Column("searches", Integer, nullable=False, comment="How often it was looked for."),
    Column("clean_searches", Integer, nullable=False, comment="Complete ones in a row, in vain."),
    CheckConstraint("attempt BETWEEN 1 AND 999", name="attempt"),
    CheckConstraint(
        "state IN ('OPEN', 'CREATED', 'REFUSED', 'NOT_SENT', 'UNKNOWN', 'ABSENT')", name="state"
    ),
    CheckConstraint("search_at IS NULL OR state = 'UNKNOWN'", name="search_at"),
    Index(
        "ix_attempts_search",
        "search_at",
        postgresql_where=text("search_at IS NOT NULL"),
        sqlite_where=text("search_at IS NOT NULL"),
    ),
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
    Column("found_by", Text, nullable=False, comment="Who told of it first."),
    Column("ended_at", Instant, comment="When we learned of its end."),
    Column("ended_by", Text, comment="Who told of its end."),
    Column("predict_seconds", Float64, comment="What the provider bills, once it has ended."),
    Column("error", Text, comment="Why it failed, in the provider's words, for operators."),
    Column("due_at", Instant, comment="Of an orphan: when to see to it; null = no more."),
    Column("fence", Int64, nullable=False, comment="Of an orphan: grows with every claim."),
    Column("failures", Integer, nullable=False, comment="Of an orphan: looks in a row, in vain."),
    CheckConstraint("length(job_id) BETWEEN 1 AND 64", name="job_id"),
    CheckConstraint("role IN ('ADOPTED', 'SUPERSEDED', 'ORPHAN')", name="role"),
    CheckConstraint("found_by IN ('CREATE', 'WEBHOOK', 'POLL', 'SEARCH')", name="found_by"),
    CheckConstraint("ended_by IN ('CREATE', 'WEBHOOK', 'POLL', 'SEARCH')", name="ended_by"),
    CheckConstraint("due_at IS NULL OR role = 'ORPHAN'", name="due_at"),
    Index("ix_predictions_generation_id", "generation_id"),
    Index(
        "ix_predictions_due",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
        sqlite_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "ix_predictions_orphans",
        "first_seen_at",
        postgresql_where=text("role = 'ORPHAN'"),
        sqlite_where=text("role = 'ORPHAN'"),
    ),
    Index("ix_predictions_ended_at", "ended_at"),
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
    Column("name", Key, primary_key=True, comment="create, or search."),
    Column("tokens", Float64, nullable=False, comment="Creates allowed as of refilled_at."),
    Column("refilled_at", Instant, nullable=False),
    Column("paused_until", Instant, comment="Nothing is submitted before."),
    Column("why", Text, nullable=False, comment="Why it was paused last."),
    Column("troubles", Integer, nullable=False, comment="Creates in a row without an answer."),
    Column("is_probing", Flag, nullable=False, comment="Whether one may go at a time."),
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


images = Table(
    "images",
    metadata,
    Column("image_id", Key, primary_key=True, comment="Ours: a UUID."),
    Column("user_id", Key, nullable=False, comment="Who uploaded it."),
    Column("sha256", Key, nullable=False, comment="Digest of what was uploaded, hexadecimal."),
    Column("key", Text, nullable=False, comment="Where our storage keeps it."),
    Column("content_type", Text, nullable=False, comment="As stored."),
    Column("size_bytes", Int64, nullable=False, comment="As stored."),
    Column("width_pixels", Integer, nullable=False),
    Column("height_pixels", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, comment="When it goes unless it is used."),
    Column("provider_url", Text, comment="Where the provider keeps its copy."),
    Column("provider_expires_at", Instant, comment="Until when it does."),
    CheckConstraint("length(image_id) = 36", name="image_id"),
    CheckConstraint("length(user_id) BETWEEN 1 AND 64", name="user_id"),
    UniqueConstraint("user_id", "sha256"),
    Index("ix_images_expires_at", "expires_at"),
    **SQLITE_TABLE,
)

model_schemas = Table(
    "model_schemas",
    metadata,
    Column("provider_model", Key, primary_key=True, comment="owner/name."),
    Column("schemas", Text, nullable=False, comment="Input and its enums, as canonical JSON."),
    Column("sha256", Text, nullable=False, comment="Digest of schemas, hexadecimal."),
    Column("fetched_at", Instant, nullable=False, comment="When the provider last said so."),
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
