"""The delivery listener: output and uploaded files, as `replicate.delivery` serves them."""

from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from services.simulator.accounts import Accounts
from services.simulator.addresses import Addresses
from services.simulator.clock import date_header
from services.simulator.conditions import Conditions, WasReset
from services.simulator.faults.action import Operation
from services.simulator.faults.actions import ExpireNow, FileAction, SlowBytes, WrongType
from services.simulator.faults.fault import FILE, Subject
from services.simulator.faults.files import spoiled_file
from services.simulator.faults.sending import Severed, sever
from services.simulator.faults.world import World
from services.simulator.fetching import Given, WatchedFile
from services.simulator.journal import FAULT, SUBJECT, Journal
from services.simulator.prediction import Fetch
from services.simulator.predictions import Predictions
from services.simulator.subjects import subject_of_prediction
from services.simulator.uploads import Uploads

__all__ = ["delivery_application"]


def delivery_application(
    accounts: Accounts,
    predictions: Predictions,
    uploads: Uploads,
    addresses: Addresses,
    journal: Journal,
    conditions: Conditions,
    world: World,
) -> web.Application:
    """Returns the application that the delivery listener serves; usually it asks for no token."""
    delivery = _Delivery(accounts, predictions, uploads, addresses, conditions, world)
    application = web.Application(middlewares=[journal.middleware("delivery")])
    application.on_response_prepare.append(date_header(conditions.clock))
    application.add_routes(
        [
            web.get("/xezq/{id}/output.mp4", delivery.get_video),
            web.get("/files/{id}", delivery.get_upload),
        ]
    )
    return application


class _Delivery:
    """The handlers."""

    def __init__(
        self,
        accounts: Accounts,
        predictions: Predictions,
        uploads: Uploads,
        addresses: Addresses,
        conditions: Conditions,
        world: World,
    ) -> None:
        self._accounts = accounts
        self._predictions = predictions
        self._uploads = uploads
        self._addresses = addresses
        self._conditions = conditions
        self._world = world

    async def get_video(self, request: web.Request) -> web.StreamResponse:
        prediction = self._predictions.of_any_account(request.match_info["id"])
        if prediction is None:
            raise web.HTTPNotFound
        subject = subject_of_prediction(Operation.FILE, prediction)
        clock, begun_at = self._conditions.clock, self._conditions.clock.now()

        def tell(given: Given) -> None:
            fetch = Fetch(
                begun_at=begun_at,
                ended_at=clock.now(),
                status=given.status,
                first_byte=given.first_byte,
                end_byte=given.end_byte,
                size_bytes=given.size_bytes,
                is_whole=given.status == 200 and given.end_byte > 0,
                fault=request.get(FAULT),
            )
            self._predictions.record_fetch(prediction.id, fetch)

        if self._world.strike(subject):
            request[FAULT] = ExpireNow().kind
        path = self._predictions.video(prediction.id)
        return await self._give(request, subject, path, "video/mp4", tell)

    async def get_upload(self, request: web.Request) -> web.StreamResponse:
        upload = self._uploads.find(request.match_info["id"])
        if upload is None:
            raise web.HTTPNotFound
        subject = Subject(Operation.FILE, upload.account)
        self._world.strike(subject)
        path = self._uploads.path(upload)
        return await self._give(request, subject, path, upload.content_type, lambda _: None)

    async def _give(
        self,
        request: web.Request,
        subject: Subject,
        path: Path | None,
        content_type: str,
        tell: Callable[[Given], None],
    ) -> web.StreamResponse:
        request[SUBJECT] = subject
        if self._conditions.switches.files_need_authorization:
            account = self._accounts.authenticate(request.headers.get("Authorization"))
            if account is None or account.key != subject.account:
                tell(Given(401))
                raise web.HTTPUnauthorized
        if path is None:
            tell(Given(404))
            raise web.HTTPNotFound
        action = self._conditions.faults.fire(subject, FILE)
        if action is None:
            return WatchedFile(path, content_type, tell)
        request[FAULT] = action.kind
        given = Given(None)
        try:
            answer = await spoiled_file(
                request, path, content_type, action, self._addresses.api, self._conditions.sleep
            )
            given = _given(request, answer, action, path)
        except WasReset:
            return sever(request)
        finally:
            tell(given)
        return answer


def _given(
    request: web.Request, answer: web.StreamResponse, action: FileAction, path: Path
) -> Given:
    """Returns what a fault left of a file: the whole, or nothing that could be used."""
    if isinstance(answer, Severed):
        return Given(None)
    if request.method == "GET" and isinstance(action, SlowBytes | WrongType):
        size_bytes = path.stat().st_size
        return Given(answer.status, 0, size_bytes, size_bytes)
    return Given(answer.status)
