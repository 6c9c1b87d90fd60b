"""Runs the migrations of the generation service."""

from services.generation.tables import metadata
from services.runtime.migrations import run_environment

run_environment(metadata)
