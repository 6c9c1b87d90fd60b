"""The API listener: `/v1/…` as Replicate answers it."""

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import BodyPartReader, web

from services.simulator.accounts import Account, Accounts
from services.simulator.addresses import Addresses
from services.simulator.answers import (
    account_answer,
    created_answer,
    file_answer,
    model_answer,
    version_answer,
)
from services.simulator.creates import (
    Target,
    cancel_after_s,
    check_input,
    model_target,
    read_body,
    version_target,
    wait_s,
)
from services.simulator.journal import Journal
from services.simulator.listing import page_of
from services.simulator.prediction import FINAL, Prediction
from services.simulator.predictions import CreateRequest, Predictions
from services.simulator.problems import (
    InvalidField,
    Problem,
    invalid_input,
    malformed,
    method_not_allowed,
    not_found,
    unauthenticated,
)
from services.simulator.registry import Registry
from services.simulator.uploads import Upload, Uploads

__all__ = ["api_application"]

BODY_BYTES_MAX = 16 * 1024 * 1024
METADATA_BYTES_MAX = 64 * 1024
CREATES_PER_MINUTE = 600
DEFAULT_EVENTS = frozenset({"output"})
"""Events without a filter, besides those that are always sent."""
ALWAYS_SENT = frozenset({"start", "completed"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_ACCOUNT = web.RequestKey("account", Account)


def api_application(
    accounts: Accounts,
    registry: Registry,
    predictions: Predictions,
    uploads: Uploads,
    addresses: Addresses,
    journal: Journal,
) -> web.Application:
    """Returns the application that the API listener serves."""
    api = _Api(registry, predictions, uploads, addresses)
    application = web.Application(
        middlewares=[journal.middleware("api"), _Gate(accounts).answer],
        client_max_size=BODY_BYTES_MAX,
    )
    application.add_routes(
        [
            web.post("/v1/predictions", api.create_by_version),
            web.get("/v1/predictions", api.list_predictions),
            web.get("/v1/predictions/{id}", api.get_prediction),
            web.post("/v1/predictions/{id}/cancel", api.cancel_prediction),
            web.get("/v1/models/{owner}/{name}", api.get_model),
            web.get("/v1/models/{owner}/{name}/versions/{id}", api.get_version),
            web.post("/v1/models/{owner}/{name}/predictions", api.create_by_model),
            web.get("/v1/webhooks/default/secret", api.get_secret),
            web.post("/v1/files", api.create_file),
            web.get("/v1/files", api.list_files),
            web.get("/v1/files/{id}", api.get_file),
            web.delete("/v1/files/{id}", api.delete_file),
            web.get("/v1/account", api.get_account),
        ]
    )
    return application


class _Gate:
    """Lets known tokens through and puts every error into Replicate's shape."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    @property
    def answer(self) -> Any:
        """Returns the aiohttp middleware."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                account = self._accounts.authenticate(request.headers.get("Authorization"))
                if account is None:
                    raise unauthenticated()
                request[_ACCOUNT] = account
                return await handler(request)
            except Problem as problem:
                return _json(problem.body, problem.status)
            except web.HTTPMethodNotAllowed as refusal:
                return _json(method_not_allowed(refusal.method).body, 405)
            except web.HTTPRequestEntityTooLarge:
                return _json(malformed(413, "Request too large", "The body is too large").body, 413)
            except web.HTTPNotFound:
                return _json(not_found().body, 404)

        return answer


class _Api:
    """The handlers."""

    def __init__(
        self,
        registry: Registry,
        predictions: Predictions,
        uploads: Uploads,
        addresses: Addresses,
    ) -> None:
        self._registry = registry
        self._predictions = predictions
        self._uploads = uploads
        self._addresses = addresses
        self._creates = _CreateCounter()

    async def create_by_model(self, request: web.Request) -> web.Response:
        target = model_target(self._registry, _model_name(request))
        text = await _text(request)
        return await self._create(request, target, text, read_body(text, with_version=False))

    async def create_by_version(self, request: web.Request) -> web.Response:
        text = await _text(request)
        body = read_body(text, with_version=True)
        target = version_target(self._registry, body["version"])
        return await self._create(request, target, text, body)

    async def _create(
        self, request: web.Request, target: Target, text: str, body: dict[str, Any]
    ) -> web.Response:
        deadline_s = cancel_after_s(request.headers.get("Cancel-After"))
        check_input(target, body["input"])
        wanted = frozenset(body.get("webhook_events_filter", DEFAULT_EVENTS))
        prefer = request.headers.get("Prefer")
        account = request[_ACCOUNT]
        prediction = self._predictions.create(
            account,
            CreateRequest(
                model=target.model,
                version=target.version,
                shown_version=target.shown,
                input=body["input"],
                body=text,
                webhook=body.get("webhook"),
                events=wanted | ALWAYS_SENT,
                cancel_after_s=deadline_s,
                prefer=prefer,
            ),
        )
        headers = self._creates.headers(account)
        open_s = wait_s(prefer)
        if open_s is None:
            return _json(created_answer(prediction, self._addresses), 201, headers)
        return await self._answer_when_finished(prediction, open_s, headers)

    async def _answer_when_finished(
        self, prediction: Prediction, open_s: int, headers: dict[str, str]
    ) -> web.Response:
        headers["Preference-Applied"] = f"wait={open_s}"
        prediction = await self._predictions.wait(prediction, open_s)
        if prediction.status not in FINAL:
            return _json(created_answer(prediction, self._addresses), 202, headers)
        answer = self._predictions.answer(prediction)
        video = self._predictions.video(prediction.id)
        if video is not None:
            content = base64.b64encode(video.read_bytes()).decode()
            answer["output"] = f"data:video/mp4;base64,{content}"
        return _json(answer, 201, headers)

    async def get_prediction(self, request: web.Request) -> web.Response:
        return _json(self._predictions.answer(self._prediction(request)))

    async def cancel_prediction(self, request: web.Request) -> web.Response:
        canceled = self._predictions.cancel(self._prediction(request))
        return _json(self._predictions.answer(canceled))

    async def list_predictions(self, request: web.Request) -> web.Response:
        page = page_of(self._predictions.newest_first(request[_ACCOUNT]), request.query)
        address = f"{self._addresses.api}/v1/predictions"
        return _json(
            {
                "previous": page.previous_query and f"{address}?{page.previous_query}",
                "next": page.next_query and f"{address}?{page.next_query}",
                "results": [self._predictions.answer(one) for one in page.predictions],
            }
        )

    async def get_model(self, request: web.Request) -> web.Response:
        return _json(model_answer(model_target(self._registry, _model_name(request)).model))

    async def get_version(self, request: web.Request) -> web.Response:
        model = model_target(self._registry, _model_name(request)).model
        for version in model.versions:
            if version.id == request.match_info["id"]:
                return _json(version_answer(version))
        raise not_found()

    async def get_secret(self, request: web.Request) -> web.Response:
        return _json({"key": request[_ACCOUNT].secret})

    async def get_account(self, request: web.Request) -> web.Response:
        return _json(account_answer(request[_ACCOUNT]))

    async def create_file(self, request: web.Request) -> web.Response:
        if not request.content_type.startswith("multipart/"):
            raise malformed(400, "Invalid upload", "The body must be multipart/form-data")
        upload: Upload | None = None
        metadata: dict[str, Any] = {}
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            if part.name == "content":
                upload = await self._uploads.add(
                    request[_ACCOUNT],
                    part.filename or "file",
                    part.headers.get("Content-Type", "application/octet-stream"),
                    _chunks(part),
                )
            elif part.name == "metadata":
                metadata = _metadata(await part.read(decode=True))
        if upload is None:
            raise invalid_input([InvalidField("required", "", "content is required")])
        if metadata:
            upload = self._uploads.describe(upload, metadata)
        return _json(file_answer(upload, self._addresses), 201)

    async def list_files(self, request: web.Request) -> web.Response:
        files = [
            file_answer(upload, self._addresses) for upload in self._uploads.of(request[_ACCOUNT])
        ]
        return _json({"previous": None, "next": None, "results": files})

    async def get_file(self, request: web.Request) -> web.Response:
        return _json(file_answer(self._upload(request), self._addresses))

    async def delete_file(self, request: web.Request) -> web.Response:
        self._uploads.remove(self._upload(request))
        return web.Response(status=204)

    def _prediction(self, request: web.Request) -> Prediction:
        prediction = self._predictions.find(request[_ACCOUNT], request.match_info["id"])
        if prediction is None:
            raise not_found()
        return prediction

    def _upload(self, request: web.Request) -> Upload:
        upload = self._uploads.find(request.match_info["id"])
        if upload is None or upload.account != request[_ACCOUNT].key:
            raise not_found()
        return upload


class _CreateCounter:
    """Counts creates a minute, for the two headers that tell how many are left."""

    def __init__(self) -> None:
        self._minute = 0
        self._counts: dict[str, int] = {}

    def headers(self, account: Account) -> dict[str, str]:
        """Counts one create and returns the headers of its answer."""
        minute, second = divmod(int(time.time()), 60)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        count = self._counts[account.key] = self._counts.get(account.key, 0) + 1
        return {
            "ratelimit-remaining": str(max(0, CREATES_PER_MINUTE - count)),
            "ratelimit-reset": str(60 - second),
        }


def _model_name(request: web.Request) -> str:
    return f"{request.match_info['owner']}/{request.match_info['name']}"


async def _text(request: web.Request) -> str:
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError:
        raise malformed(400, "Invalid JSON", "The request body is not valid UTF-8") from None


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(1 << 16):
        yield chunk


def _metadata(content: bytes | bytearray) -> dict[str, Any]:
    try:
        if len(content) > METADATA_BYTES_MAX:
            raise ValueError
        metadata = json.loads(content)
        if not isinstance(metadata, dict):
            raise ValueError
    except ValueError:
        raise malformed(400, "Invalid metadata", "metadata must be a JSON object") from None
    return metadata


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")
