"""What stands behind the web service in tests: credits, generation and the provider, all real."""

import contextlib
import json
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.generation.__main__ import serve
from services.generation.settings import GenerationSettings
from services.runtime.migrations import migrate
from tests.integration.generation.credits_service import CreditsService, running_credits
from tests.integration.generation.simulator_process import TOKEN, Simulator
from tests.serving import free_address, serving

MEDIA_URL = "http://studio.example/media"
MEDIA_KEY = b"m" * 32
SPEED = 200.0
"""How many times faster than in life the provider is."""
# Calls have time enough for a machine that is busy: what is tested here is no timeout.
PATIENT = {
    "provider_call_s": 10.0,
    "provider_lease_s": 25.0,
    "archive_call_s": 10.0,
    "archive_lease_s": 15.0,
    "credits_call_s": 5.0,
    "credits_lease_s": 10.0,
    "send_before_s": 10.0,
    "poll_s": 0.05,
}


@dataclass(frozen=True)
class Backend:
    """Running services."""

    credits: CreditsService
    generation_address: str
    files: Path
    """The folder in which generation keeps its files."""
    keys_file: Path
    """The keys that sign addresses of media."""
    database: Path
    """The rows of generation."""

    def forget_images(self) -> None:
        """Removes the images that nobody uses, as the service does a day later."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute("DELETE FROM images")
        shutil.rmtree(self.files / "inputs", ignore_errors=True)


@contextlib.asynccontextmanager
async def running_backend(
    folder: Path, templates: dict[tuple[str, str], str], simulator: Simulator
) -> AsyncIterator[Backend]:
    """Gives services without accounts; `templates` are those of the whole run."""
    keys_file, files = folder / "callback_keys", folder / "media"
    keys_file.write_bytes(b64encode(MEDIA_KEY) + b"\n")
    database = _database(folder, templates)
    async with running_credits(folder, templates) as credits_service:
        settings = _settings(
            address=free_address(),
            database_url=f"sqlite:///{database}",
            credits_address=credits_service.address,
            storage_url=files.as_uri(),
            callback_keys_file=keys_file,
            delivery_origins=simulator.delivery,
            REPLICATE_BASE_URL=simulator.api,
        )
        async with serving(lambda leave: serve(settings, leave), settings.address):
            yield Backend(credits_service, settings.address, files, keys_file, database)


def _settings(**changes: Any) -> GenerationSettings:
    fixed: dict[str, Any] = {
        "media_url": MEDIA_URL,
        "profile": "fast",
        "provider_speed": SPEED,
        "durations": json.dumps(PATIENT),
        "drain_s": 0,
        "grace_s": 2,
        "REPLICATE_API_TOKEN": TOKEN,
    }
    return GenerationSettings(**(fixed | changes))


def _database(folder: Path, templates: dict[tuple[str, str], str]) -> Path:
    template = templates.get(("sqlite", "generation"))
    if template is None:
        template = f"{templates['folder', '']}/generation.sqlite3"
        # A thread has no event loop, which this runs in already.
        with ThreadPoolExecutor(1) as threads:
            threads.submit(migrate, "generation", f"sqlite:///{template}").result()
        templates["sqlite", "generation"] = template
    file = folder / "generation.sqlite3"
    shutil.copy(template, file)
    return file
