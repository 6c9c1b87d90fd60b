"""The delivery listener: output and uploaded files, as `replicate.delivery` serves them."""

from aiohttp import web

from services.simulator.journal import Journal
from services.simulator.predictions import Predictions
from services.simulator.uploads import Uploads

__all__ = ["delivery_application"]


def delivery_application(
    predictions: Predictions, uploads: Uploads, journal: Journal
) -> web.Application:
    """Returns the application that the delivery listener serves; no token is asked for."""

    async def get_video(request: web.Request) -> web.StreamResponse:
        path = predictions.video(request.match_info["id"])
        if path is None or not path.exists():
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={"Content-Type": "video/mp4"})

    async def get_upload(request: web.Request) -> web.StreamResponse:
        upload = uploads.find(request.match_info["id"])
        if upload is None:
            raise web.HTTPNotFound
        return web.FileResponse(uploads.path(upload), headers={"Content-Type": upload.content_type})

    application = web.Application(middlewares=[journal.middleware("delivery")])
    application.add_routes(
        [
            web.get("/xezq/{id}/output.mp4", get_video),
            web.get("/files/{id}", get_upload),
        ]
    )
    return application
