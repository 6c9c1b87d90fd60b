"""The API listener: `/v1/…` as Replicate answers it."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, assert_never

from aiohttp import BodyPartReader, web

from services.simulator.accounts import Accounts
from services.simulator.addresses import Addresses
from services.simulator.answers import (
    account_answer,
    created_answer,
    file_answer,
    model_answer,
    version_answer,
)
from services.simulator.clock import date_header
from services.simulator.conditions import Conditions
from services.simulator.creates import (
    Target,
    cancel_after_s,
    check_input,
    check_webhook,
    deployment_target,
    model_target,
    read_body,
    version_target,
    wait_s,
)
from services.simulator.faults.action import Action, Operation
from services.simulator.faults.actions import (
    DuplicateAcrossPages,
    ListLag,
    NextOnForeignHost,
    PageShift,
)
from services.simulator.faults.fault import CANCEL, LIST, SHOWN
from services.simulator.faults.showing import shown
from services.simulator.faults.world import World
from services.simulator.gate import ACCOUNT, Gate, json_answer, model_name
from services.simulator.journal import FAULT, SUBJECT, Journal
from services.simulator.listing import page_of
from services.simulator.prediction import FINAL, Prediction
from services.simulator.predictions import CreateRequest, Predictions
from services.simulator.problems import (
    InvalidField,
    invalid_input,
    malformed,
    not_cancelable,
    not_found,
)
from services.simulator.registry import Registry
from services.simulator.subjects import subject_of_prediction
from services.simulator.uploads import Upload, Uploads

__all__ = ["api_application"]

BODY_BYTES_MAX = 16 * 1024 * 1024
METADATA_BYTES_MAX = 64 * 1024
DEFAULT_EVENTS = frozenset({"output"})
"""Events without a filter, besides those that are always sent."""
ALWAYS_SENT = frozenset({"start", "completed"})


def api_application(
    accounts: Accounts,
    registry: Registry,
    predictions: Predictions,
    uploads: Uploads,
    addresses: Addresses,
    journal: Journal,
    conditions: Conditions,
    world: World,
) -> web.Application:
    """Returns the application that the API listener serves."""
    api = _Api(accounts, registry, predictions, uploads, addresses, conditions)
    gate = Gate(accounts, predictions, addresses, conditions, world)
    application = web.Application(
        middlewares=[journal.middleware("api"), gate.middleware],
        client_max_size=BODY_BYTES_MAX,
    )
    application.on_response_prepare.append(date_header(conditions.clock))
    for method, path, operation, handler in (
        ("POST", "/predictions", Operation.CREATE, api.create_by_version),
        ("GET", "/predictions", Operation.LIST, api.list_predictions),
        ("GET", "/predictions/{id}", Operation.GET, api.get_prediction),
        ("POST", "/predictions/{id}/cancel", Operation.CANCEL, api.cancel_prediction),
        ("GET", "/models/{owner}/{name}", Operation.MODEL, api.get_model),
        ("GET", "/models/{owner}/{name}/versions/{id}", Operation.MODEL, api.get_version),
        ("POST", "/models/{owner}/{name}/predictions", Operation.CREATE, api.create_by_model),
        (
            "POST",
            "/deployments/{owner}/{name}/predictions",
            Operation.CREATE,
            api.create_by_deployment,
        ),
        ("GET", "/webhooks/default/secret", Operation.SECRET, api.get_secret),
        ("POST", "/files", Operation.UPLOAD, api.create_file),
        ("GET", "/files", Operation.UPLOAD, api.list_files),
        ("GET", "/files/{id}", Operation.UPLOAD, api.get_file),
        ("DELETE", "/files/{id}", Operation.UPLOAD, api.delete_file),
        ("GET", "/account", Operation.ACCOUNT, api.get_account),
    ):
        application.router.add_route(method, f"/v1{path}", gate.to(operation, handler))
    return application


class _Api:
    """The handlers."""

    def __init__(
        self,
        accounts: Accounts,
        registry: Registry,
        predictions: Predictions,
        uploads: Uploads,
        addresses: Addresses,
        conditions: Conditions,
    ) -> None:
        self._accounts = accounts
        self._registry = registry
        self._predictions = predictions
        self._uploads = uploads
        self._addresses = addresses
        self._conditions = conditions

    async def create_by_model(self, request: web.Request) -> web.Response:
        target = self._model(request)
        text = await _text(request)
        return await self._create(request, target, text, read_body(text, with_version=False))

    async def create_by_deployment(self, request: web.Request) -> web.Response:
        target = deployment_target(self._model(request))
        text = await _text(request)
        return await self._create(request, target, text, read_body(text, with_version=False))

    async def create_by_version(self, request: web.Request) -> web.Response:
        text = await _text(request)
        body = read_body(text, with_version=True)
        schemas = self._conditions.switches.schemas
        target = version_target(self._registry, body["version"], schemas)
        return await self._create(request, target, text, body)

    async def _create(
        self, request: web.Request, target: Target, text: str, body: dict[str, Any]
    ) -> web.Response:
        deadline_s = cancel_after_s(request.headers.get("Cancel-After"))
        check_webhook(body.get("webhook"), self._conditions.switches.http_webhooks)
        check_input(target, body["input"])
        wanted = frozenset(body.get("webhook_events_filter", DEFAULT_EVENTS))
        prefer = request.headers.get("Prefer")
        prediction = self._predictions.create(
            request[ACCOUNT],
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
                path=request.raw_path,
                headers=_named_headers(request),
                deployment=target.deployment,
            ),
        )
        request[SUBJECT] = subject_of_prediction(Operation.CREATE, prediction)
        open_s = wait_s(prefer)
        if open_s is None:
            return json_answer(self._created(request, prediction), 201)
        return await self._answer_when_finished(request, prediction, open_s)

    async def _answer_when_finished(
        self, request: web.Request, prediction: Prediction, open_s: int
    ) -> web.Response:
        headers = {"Preference-Applied": f"wait={open_s}"}
        prediction = await self._predictions.wait(prediction, open_s)
        if prediction.status not in FINAL:
            return json_answer(self._created(request, prediction), 202, headers)
        answer = self._predictions.answer(prediction)
        video = self._predictions.video(prediction.id)
        if video is not None:
            content = base64.b64encode(video.read_bytes()).decode()
            answer["output"] = f"data:video/mp4;base64,{content}"
        return json_answer(answer, 201, headers)

    async def get_prediction(self, request: web.Request) -> web.Response:
        answer = self._shown(request, Operation.GET, self._prediction(request))
        if answer is None:
            raise not_found()
        return json_answer(answer)

    async def cancel_prediction(self, request: web.Request) -> web.Response:
        prediction = self._prediction(request)
        if prediction.status in FINAL:
            if self._conditions.switches.cancel_finished_status != 200:
                raise not_cancelable()
            return json_answer(self._shown(request, Operation.CANCEL, prediction))
        race = self._conditions.faults.fire(request[SUBJECT], CANCEL)
        _note(request, race)
        if race is None:
            canceled = self._predictions.cancel(prediction)
            return json_answer(self._shown(request, Operation.CANCEL, canceled))
        answer = self._shown(request, Operation.CANCEL, prediction)
        if race.winner == "cancel":
            self._predictions.cancel(prediction)
        return json_answer(answer)

    async def list_predictions(self, request: web.Request) -> web.Response:
        conditions = self._conditions
        action = conditions.faults.fire(request[SUBJECT], LIST)
        _note(request, action)
        lag_s = action.lag_s if isinstance(action, ListLag) else conditions.switches.list_lag_s
        shift: Literal[-1, 0, 1] = 0
        origin = self._addresses.api
        match action:
            case DuplicateAcrossPages():
                shift = -1
            case PageShift():
                shift = 1
            case NextOnForeignHost():
                origin = self._addresses.delivery
            case None | ListLag():
                pass
            case _:
                assert_never(action)
        visible = self._predictions.newest_first(request[ACCOUNT], older_than_s=lag_s)
        page = page_of(visible, request.query, conditions.clock.skew_s, shift)
        address = f"{self._addresses.api}/v1/predictions"
        items = (self._shown(request, Operation.LIST, one) for one in page.predictions)
        return json_answer(
            {
                "previous": page.previous_query and f"{address}?{page.previous_query}",
                "next": page.next_query and f"{origin}/v1/predictions?{page.next_query}",
                "results": [item for item in items if item is not None],
            }
        )

    async def get_model(self, request: web.Request) -> web.Response:
        target = self._model(request)
        given = self._conditions.switches.latest_version
        return json_answer(model_answer(target.model, target.version if given else None))

    async def get_version(self, request: web.Request) -> web.Response:
        model = self._model(request).model
        for version in model.versions:
            if version.id == request.match_info["id"]:
                return json_answer(version_answer(version))
        raise not_found()

    async def get_secret(self, request: web.Request) -> web.Response:
        now = self._conditions.clock.now()
        return json_answer({"key": self._accounts.secrets(request[ACCOUNT], now)[0]})

    async def get_account(self, request: web.Request) -> web.Response:
        return json_answer(account_answer(request[ACCOUNT]))

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
                    request[ACCOUNT],
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
        return json_answer(file_answer(upload, self._predictions.view), 201)

    async def list_files(self, request: web.Request) -> web.Response:
        files = [
            file_answer(upload, self._predictions.view)
            for upload in self._uploads.of(request[ACCOUNT])
        ]
        return json_answer({"previous": None, "next": None, "results": files})

    async def get_file(self, request: web.Request) -> web.Response:
        return json_answer(file_answer(self._upload(request), self._predictions.view))

    async def delete_file(self, request: web.Request) -> web.Response:
        self._uploads.remove(self._upload(request))
        return web.Response(status=204)

    def _model(self, request: web.Request) -> Target:
        return model_target(self._registry, model_name(request), self._conditions.switches.schemas)

    def _created(self, request: web.Request, prediction: Prediction) -> dict[str, Any] | None:
        return self._shown(
            request,
            Operation.CREATE,
            prediction,
            lambda one: created_answer(one, self._predictions.view),
        )

    def _shown(
        self,
        request: web.Request,
        operation: Operation,
        prediction: Prediction,
        answer: Callable[[Prediction], dict[str, Any]] | None = None,
    ) -> dict[str, Any] | None:
        """Returns what the answer to `operation` shows of a prediction; None for nothing."""
        action = self._conditions.faults.fire(subject_of_prediction(operation, prediction), SHOWN)
        _note(request, action)
        now = self._conditions.clock.now()
        return shown(prediction, answer or self._predictions.answer, action, now)

    def _prediction(self, request: web.Request) -> Prediction:
        prediction = self._predictions.find(request[ACCOUNT], request.match_info["id"])
        if prediction is None:
            raise not_found()
        return prediction

    def _upload(self, request: web.Request) -> Upload:
        upload = self._uploads.find(request.match_info["id"])
        if upload is None or upload.account != request[ACCOUNT].key:
            raise not_found()
        return upload


def _note(request: web.Request, action: Action | None) -> None:
    """Lets the journal name the fault."""
    if action is not None:
        request[FAULT] = action.kind


def _named_headers(request: web.Request) -> tuple[tuple[str, str], ...]:
    """Returns the header lines of a request, with the account's name in place of the token."""
    return tuple(
        (name, request[ACCOUNT].username if name.lower() == "authorization" else value)
        for name, value in request.headers.items()
    )


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
