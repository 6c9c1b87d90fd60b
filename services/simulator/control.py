"""The control listener: the truth for tests, and a way to start over."""

from aiohttp import web

from services.simulator.accounts import Accounts
from services.simulator.answers import truth_answer
from services.simulator.journal import Journal
from services.simulator.predictions import Predictions
from services.simulator.settings import SimulatorSettings
from services.simulator.uploads import Uploads

__all__ = ["control_application"]


def control_application(
    settings: SimulatorSettings,
    accounts: Accounts,
    predictions: Predictions,
    uploads: Uploads,
    journal: Journal,
) -> web.Application:
    """Returns the application that the control listener serves."""

    async def get_state(request: web.Request) -> web.Response:
        wanted = request.query.get("id")
        return web.json_response(
            {
                "seed": settings.seed,
                "speed": settings.speed,
                "retention_s": settings.retention_s,
                "accounts": {account.key: account.username for account in accounts},
                "predictions": [
                    truth_answer(prediction)
                    for prediction in predictions
                    if wanted in (None, prediction.id)
                ],
            }
        )

    async def get_requests(_: web.Request) -> web.Response:
        return web.json_response({"requests": journal.answer()})

    async def reset(_: web.Request) -> web.Response:
        await predictions.reset()
        uploads.clear()
        journal.clear()
        return web.Response(status=204)

    application = web.Application()
    application.add_routes(
        [
            web.get("/control/state", get_state),
            web.get("/control/requests", get_requests),
            web.post("/control/reset", reset),
        ]
    )
    return application
