"""Generations: what can be asked for, what was asked for, and how far it is."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import grpc
import uuid_utils
from reelworks.generation.v1 import generation_pb2, generation_pb2_grpc

from services.client.connection import Connection
from services.client.history import (
    DeletedGenerations,
    Eta,
    Generation,
    GenerationError,
    GenerationErrorCode,
    GenerationPage,
    Kind,
    Stage,
    Status,
    generation_of,
)
from services.client.offers import (
    Model,
    ModelResolution,
    Quote,
    UploadedImage,
    image_of,
    model_of,
    quote_of,
)
from services.client.operations import (
    EndCount,
    Finding,
    Parked,
    ParkedPage,
    StageCount,
    Stats,
    parked_page_of,
    stats_of,
)
from services.client.watching import PATIENCE_S, Heard, read_stream, watch_again
from services.client.wire import named_on_wire, timestamp
from services.runtime.channel import invoke
from services.runtime.metrics import CallMetrics
from services.runtime.tls import Certificates

__all__ = [
    "DeletedGenerations",
    "EndCount",
    "Eta",
    "Finding",
    "Generation",
    "GenerationClient",
    "GenerationError",
    "GenerationErrorCode",
    "GenerationPage",
    "Kind",
    "Model",
    "ModelResolution",
    "Parked",
    "ParkedPage",
    "Quote",
    "Stage",
    "StageCount",
    "Stats",
    "Status",
    "UploadedImage",
    "new_generation_id",
]

EPOCH = datetime.fromtimestamp(0, UTC)
KNOWN_S = 30.0
"""How long what is known may take to read: it may be years' worth."""
VERSIONS_MAX = 1000
"""Of so many generations a watch knows the version that it saw last."""
MESSAGE_BYTES_MAX = 11 * 1024 * 1024
"""Room for an image of 10 MiB, and what is said with it."""


def new_generation_id() -> str:
    """Returns an id for a new generation; ids of later calls sort after it."""
    return str(uuid_utils.uuid7())


class GenerationClient(Connection):
    """Calls the generation service; every call can be repeated with the same id.

    Each method raises ServiceError, whose `reason` is one of the service's.
    """

    def __init__(
        self,
        address: str,
        certificates: Certificates | None = None,
        measured: CallMetrics | None = None,
    ) -> None:
        super().__init__(address, MESSAGE_BYTES_MAX, certificates, measured)
        self._stub = generation_pb2_grpc.GenerationServiceStub(self._channel)

    async def list_models(self) -> tuple[Model, ...]:
        """Returns the catalog, in the order in which to offer it."""
        response = await invoke(self._stub.ListModels, generation_pb2.ListModelsRequest())
        return tuple(model_of(model) for model in response.models)

    async def quote(
        self,
        user_id: str,
        kind: Kind,
        model: str,
        resolution: str,
        prompt: str,
        *,
        negative_prompt: str = "",
        image_uri: str = "",
        aspect_ratio: str = "",
        seed: int | None = None,
    ) -> Quote:
        """Says what a video would cost and when it would be there, without creating anything.

        A request that `create` would refuse for its fields is refused in the same words.
        """
        request = generation_pb2.QuoteGenerationRequest(
            user_id=user_id,
            kind=named_on_wire(kind, "KIND_UNSPECIFIED"),
            model=model,
            resolution=resolution,
            prompt=prompt,
            negative_prompt=negative_prompt,
            image_uri=image_uri,
            aspect_ratio=aspect_ratio,
            seed=seed,
        )
        return quote_of(await invoke(self._stub.QuoteGeneration, request))

    async def upload_image(self, user_id: str, content: bytes) -> UploadedImage:
        """Stores a JPEG, PNG or WebP file of at most 10 MiB to start videos from."""
        request = generation_pb2.UploadImageRequest(user_id=user_id, content=content)
        return image_of(await invoke(self._stub.UploadImage, request))

    async def create(
        self,
        user_id: str,
        kind: Kind,
        model: str,
        resolution: str,
        prompt: str,
        *,
        negative_prompt: str = "",
        image_uri: str = "",
        aspect_ratio: str = "",
        seed: int | None = None,
        generation_id: str | None = None,
        quote_token: str = "",
    ) -> Generation:
        """Starts the making of a video and returns it as it is now.

        `generation_id` is the key of the call. None takes a new one; a caller that may have to
        repeat the call brings one of `new_generation_id`. `quote_token` takes the price of a quote.
        """
        request = generation_pb2.CreateGenerationRequest(
            user_id=user_id,
            generation_id=_key(generation_id),
            kind=named_on_wire(kind, "KIND_UNSPECIFIED"),
            model=model,
            resolution=resolution,
            prompt=prompt,
            negative_prompt=negative_prompt,
            image_uri=image_uri,
            aspect_ratio=aspect_ratio,
            seed=seed,
            quote_token=quote_token,
        )
        return generation_of(await invoke(self._stub.CreateGeneration, request))

    async def get(self, user_id: str, generation_id: str) -> Generation:
        """Returns a generation as it is now."""
        request = generation_pb2.GetGenerationRequest(user_id=user_id, generation_id=generation_id)
        return generation_of(await invoke(self._stub.GetGeneration, request))

    async def list(
        self,
        user_id: str,
        page_size: int = 0,
        page_token: str = "",
        *,
        status: Status | None = None,
        kind: Kind | None = None,
        query: str = "",
    ) -> GenerationPage:
        """Returns a page of a user's history, newest first; 0 takes 50 generations.

        `query` leaves only those whose prompt contains it.
        """
        request = generation_pb2.ListGenerationsRequest(
            user_id=user_id,
            page_size=page_size,
            page_token=page_token,
            status=None if status is None else named_on_wire(status, "STATUS_UNSPECIFIED"),
            kind=None if kind is None else named_on_wire(kind, "KIND_UNSPECIFIED"),
            query=query,
        )
        response = await invoke(self._stub.ListGenerations, request)
        return GenerationPage(
            tuple(generation_of(generation) for generation in response.generations),
            response.next_page_token,
        )

    async def cancel(self, user_id: str, generation_id: str) -> Generation:
        """Cancels a generation whose video does not exist yet, and returns it as it then is.

        Not being final, it is still being canceled: if the provider finishes first, the user gets
        the video and pays for it.
        """
        request = generation_pb2.CancelGenerationRequest(
            user_id=user_id, generation_id=generation_id
        )
        return generation_of(await invoke(self._stub.CancelGeneration, request))

    async def retry(
        self,
        user_id: str,
        generation_id: str,
        *,
        new_generation_id: str | None = None,
        keep_seed: bool = False,
    ) -> Generation:
        """Makes a generation that FAILED or was CANCELED again, and returns the new one.

        `new_generation_id` is the key of the call, as for `create`. `keep_seed` takes the seed that
        it last ran with.
        """
        request = generation_pb2.RetryGenerationRequest(
            user_id=user_id,
            generation_id=generation_id,
            new_generation_id=_key(new_generation_id),
            keep_seed=keep_seed,
        )
        return generation_of(await invoke(self._stub.RetryGeneration, request))

    async def delete(self, user_id: str, generation_ids: Sequence[str]) -> DeletedGenerations:
        """Removes 1 to 100 ended generations from a user's history, and their videos."""
        request = generation_pb2.DeleteGenerationsRequest(
            user_id=user_id, generation_ids=generation_ids
        )
        response = await invoke(self._stub.DeleteGenerations, request)
        return DeletedGenerations(
            tuple(response.deleted_ids),
            tuple(response.unfinished_ids),
            tuple(response.unknown_ids),
        )

    async def stats(self) -> Stats:
        """Tells operators how the service is doing."""
        return stats_of(await invoke(self._stub.GetStats, generation_pb2.GetStatsRequest()))

    async def parked(self, page_size: int = 0, page_token: str = "") -> ParkedPage:
        """Returns for operators a page of what is parked, oldest first; 0 takes 50 of it."""
        request = generation_pb2.ListParkedRequest(page_size=page_size, page_token=page_token)
        return parked_page_of(await invoke(self._stub.ListParked, request))

    async def resume(self, generation_id: str, stage: Stage | None = None) -> Generation:
        """Lets a parked generation go on, for operators: at `stage`, else where it stopped.

        REFUNDING gives the credits back.
        """
        request = generation_pb2.ResumeGenerationRequest(
            generation_id=generation_id, stage=f"STAGE_{stage}" if stage else None
        )
        return generation_of(await invoke(self._stub.ResumeGeneration, request))

    async def history(
        self,
        user_id: str,
        page_size: int = 0,
        *,
        status: Status | None = None,
        kind: Kind | None = None,
        query: str = "",
    ) -> AsyncGenerator[Generation]:
        """Yields a user's history, newest first, asking for pages as they are used."""
        page_token = ""
        while True:
            page = await self.list(
                user_id, page_size, page_token, status=status, kind=kind, query=query
            )
            for generation in page.generations:
                yield generation
            page_token = page.next_page_token
            if not page_token:
                return

    async def watch(
        self,
        user_id: str,
        generation_ids: Sequence[str] = (),
        updated_after: datetime | None = None,
        patience_s: float = PATIENCE_S,
        heard: Heard = lambda _: None,
    ) -> AsyncGenerator[Generation]:
        """Yields the generations of a user: those named and the unfinished ones, then each change.

        Goes on when the service went away and came back, and never yields an older version after a
        newer one. Raises Unavailable when the service stays away for `patience_s`. It has no end of
        its own: leave it by `contextlib.aclosing`, or the service streams on. `heard` is told
        whether the service has this watch.
        """
        versions: dict[str, int] = {}

        def open_stream() -> grpc.aio.UnaryStreamCall[
            generation_pb2.WatchGenerationsRequest, generation_pb2.WatchGenerationsResponse
        ]:
            # A later stream begins where the one before it ended.
            return self._stub.WatchGenerations(
                generation_pb2.WatchGenerationsRequest(
                    user_id=user_id,
                    generation_ids=generation_ids,
                    updated_after=None if updated_after is None else timestamp(updated_after),
                )
            )

        async with contextlib.aclosing(watch_again(open_stream, patience_s, heard)) as responses:
            async for response in responses:
                generation = generation_of(response.generation)
                updated_after = max(updated_after or EPOCH, generation.updated_at)
                if generation.version < versions.get(generation.generation_id, 0):
                    continue
                # At the end; what has not changed for longest is forgotten.
                versions.pop(generation.generation_id, None)
                versions[generation.generation_id] = generation.version
                if len(versions) > VERSIONS_MAX:
                    del versions[next(iter(versions))]
                yield generation

    async def known(
        self, user_id: str, updated_after: datetime | None = None
    ) -> AsyncGenerator[Generation]:
        """Yields the unfinished generations of a user and those updated after a moment, and ends.

        One may come twice. The updated come last, oldest first: who is cut off goes on behind the
        newest that it saw. Leave it early by `contextlib.aclosing`.
        """
        request = generation_pb2.WatchGenerationsRequest(
            user_id=user_id,
            updated_after=None if updated_after is None else timestamp(updated_after),
            known_only=True,
        )
        call = self._stub.WatchGenerations(request, timeout=KNOWN_S)
        async with contextlib.aclosing(read_stream(call)) as responses:
            async for response in responses:
                yield generation_of(response.generation)


def _key(given: str | None) -> str:
    return new_generation_id() if given is None else given
