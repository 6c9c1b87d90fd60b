"""The delivery listener: output and uploaded files, as `replicate.delivery` serves them."""

from pathlib import Path

from aiohttp import web

from services.simulator.accounts import Accounts
from services.simulator.addresses import Addresses
from services.simulator.clock import date_header
from services.simulator.conditions import Conditions, WasReset
from services.simulator.faults.action import Operation
from services.simulator.faults.fault import FILE, Subject
from services.simulator.faults.files import spoiled_file
from services.simulator.faults.sending import sever
from services.simulator.faults.world import World
from services.simulator.journal import FAULT, SUBJECT, Journal
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

    async def get_video(request: web.Request) -> web.StreamResponse:
        prediction_id = request.match_info["id"]
        prediction = predictions.of_any_account(prediction_id)
        if prediction is None:
            raise web.HTTPNotFound
        subject = subject_of_prediction(Operation.FILE, prediction)
        world.strike(subject)
        return await give(request, subject, predictions.video(prediction_id), "video/mp4")

    async def get_upload(request: web.Request) -> web.StreamResponse:
        upload = uploads.find(request.match_info["id"])
        if upload is None:
            raise web.HTTPNotFound
        subject = Subject(Operation.FILE, upload.account)
        world.strike(subject)
        return await give(request, subject, uploads.path(upload), upload.content_type)

    async def give(
        request: web.Request, subject: Subject, path: Path | None, content_type: str
    ) -> web.StreamResponse:
        request[SUBJECT] = subject
        authorization = request.headers.get("Authorization")
        if conditions.switches.files_need_authorization:
            account = accounts.authenticate(authorization)
            if account is None or account.key != subject.account:
                raise web.HTTPUnauthorized
        if path is None:
            raise web.HTTPNotFound
        action = conditions.faults.fire(subject, FILE)
        if action is None:
            return web.FileResponse(path, headers={"Content-Type": content_type})
        request[FAULT] = action.kind
        try:
            return await spoiled_file(
                request, path, content_type, action, addresses.api, conditions.sleep
            )
        except WasReset:
            return sever(request)

    application = web.Application(middlewares=[journal.middleware("delivery")])
    application.on_response_prepare.append(date_header(conditions.clock))
    application.add_routes(
        [
            web.get("/xezq/{id}/output.mp4", get_video),
            web.get("/files/{id}", get_upload),
        ]
    )
    return application
