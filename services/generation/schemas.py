"""Keeps the models' input schemas as the provider publishes them now, and remembers them.

They are fetched at the start, in the background, then daily, and when the provider refused an input
for its fields. What cannot be had is taken from the table, and what was never had from the package.
"""

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import select

from services.generation import tables
from services.generation.bookings import insert_into
from services.generation.catalog import Offer
from services.generation.inputs import InputSchema, read_schema
from services.generation.replicate import Missing, Replicate, Schemas, Unreachable
from services.generation.state import Kind
from services.runtime.database import Database, read_clock
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["ModelSchemas"]

FETCH_EVERY_S = 86_400.0
FETCH_AGAIN_S = 300.0
"""After a round in which one could not be had, and at least between two fetches for a refusal."""

logger = get_logger(__name__)


class ModelSchemas:
    """Brings `offer` up to date until `stopping` is set."""

    def __init__(
        self, offer: Offer, provider: Replicate, database: Database, stopping: asyncio.Event
    ) -> None:
        self._offer = offer
        self._provider = provider
        self._database = database
        self._stopping = stopping
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._asked_at: dict[str, float] = {}

    async def run(self) -> None:
        """Takes what is remembered, then fetches; a fetch under way at the end is dropped."""
        fetching = asyncio.create_task(self._repeat())
        try:
            await self._stopping.wait()
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

    async def is_other_than(self, provider_model: str, schema_sha256: str) -> bool:
        """Tells whether a model takes something else than the schema of that digest.

        Where nothing newer is known the provider is asked, at most every five minutes a model.
        """
        async with self._asking[provider_model]:
            if self._sha256(provider_model) == schema_sha256:
                asked_at, now = self._asked_at.get(provider_model), time.monotonic()
                if asked_at is None or now - asked_at >= FETCH_AGAIN_S:
                    self._asked_at[provider_model] = now
                    await self._fetch(provider_model)
            return self._sha256(provider_model) not in (None, schema_sha256)

    async def load(self) -> None:
        """Takes the schemas that this or another process fetched last."""
        kinds = self._kinds()
        columns = tables.model_schemas.c
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(columns.provider_model, columns.schemas).where(
                    columns.provider_model.in_(sorted(kinds))
                )
            )
            remembered = {row.provider_model: row.schemas for row in rows}
        for provider_model, text in remembered.items():
            self._take(provider_model, json.loads(text))

    async def fetch(self) -> bool:
        """Fetches the schemas of all models; tells whether every one was had."""
        had = [await self._fetch(provider_model) for provider_model in sorted(self._kinds())]
        return all(had)

    async def _repeat(self) -> None:
        try:
            await self.load()
        except ServiceError as error:
            logger.warning("schemas not loaded", reason=error.reason)
        except Exception:  # What an older release wrote must not keep the newer from its work.
            logger.exception("schemas not loaded")
        while True:
            all_had = False
            try:
                all_had = await self.fetch()
            except Exception:  # A defect here must not stop the service: it has schemas to work by.
                logger.exception("schemas not fetched")
            # Replicas that start together ask at different moments from the second time on.
            pause_s = FETCH_EVERY_S if all_had else FETCH_AGAIN_S
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311

    async def _fetch(self, provider_model: str) -> bool:
        answer = await self._provider.model_schemas(provider_model)
        if not isinstance(answer, Schemas):
            detail = answer.detail if isinstance(answer, Unreachable) else "it publishes none"
            report = logger.error if isinstance(answer, Missing) else logger.warning
            report("schema not had", provider_model=provider_model, detail=detail)
            return False
        schema = self._take(provider_model, answer.schemas)
        if schema is not None:
            try:
                await self._remember(provider_model, schema)
            except ServiceError as error:
                logger.warning("schema not remembered", reason=error.reason)
        return schema is not None

    def _take(self, provider_model: str, published: Mapping[str, object]) -> InputSchema | None:
        """Offers what a model takes now, unless that cannot be believed."""
        try:
            schema = read_schema(published, self._kinds()[provider_model])
        except ValueError as error:
            logger.error("schema refused", provider_model=provider_model, detail=str(error))
            return None
        if schema.sha256 != self._sha256(provider_model):
            logger.info("schema changed", provider_model=provider_model, sha256=schema.sha256)
            self._offer.catalog = self._offer.catalog.with_schema(provider_model, schema)
        return schema

    async def _remember(self, provider_model: str, schema: InputSchema) -> None:
        async with self._database.write() as connection:
            row = {
                "schemas": schema.canonical,
                "sha256": schema.sha256,
                "fetched_at": await read_clock(connection),
            }
            await connection.execute(
                insert_into(connection, tables.model_schemas)
                .values(provider_model=provider_model, **row)
                .on_conflict_do_update(index_elements=["provider_model"], set_=row)
            )

    def _kinds(self) -> dict[str, Kind]:
        """Returns the provider's models on offer, with what they make."""
        models = self._offer.catalog.models
        return {v.provider_model: model.kind for model in models for v in model.variants}

    def _sha256(self, provider_model: str) -> str | None:
        for model in self._offer.catalog.models:
            for variant in model.variants:
                if variant.provider_model == provider_model:
                    return variant.schema.sha256
        return None
