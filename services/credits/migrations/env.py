"""Runs the migrations of the credits service."""

from services.credits.tables import metadata
from services.runtime.migrations import run_environment

run_environment(metadata)
