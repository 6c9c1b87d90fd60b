"""Called by Alembic to run the migrations of the webhook service."""

from services.runtime.migrations import run_environment
from services.webhook.tables import metadata

run_environment(metadata)
