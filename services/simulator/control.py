"""The control listener: faults, switches and the truth, for tests, and a way to start over."""

from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from services.simulator.accounts import Accounts
from services.simulator.answers import truth_answer
from services.simulator.complaints import invalid_fields
from services.simulator.conditions import Conditions
from services.simulator.faults.action import Seconds
from services.simulator.faults.fault import Fault
from services.simulator.faults.profiles import Profile
from services.simulator.journal import Journal
from services.simulator.predictions import Predictions
from services.simulator.settings import SimulatorSettings
from services.simulator.uploads import Uploads

__all__ = ["Weather", "control_application"]

FAULTS_MAX = 1000


class Weather(BaseModel):
    """The body of `PUT /control/profile`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile
    lasts_s: Seconds | None = None
    """How long its faults last; None means until they are removed."""


def control_application(
    settings: SimulatorSettings,
    accounts: Accounts,
    predictions: Predictions,
    uploads: Uploads,
    journal: Journal,
    conditions: Conditions,
) -> web.Application:
    """Returns the application that the control listener serves."""
    control = _Control(settings, accounts, predictions, uploads, journal, conditions)
    application = web.Application(middlewares=[_complaints])
    application.add_routes(
        [
            web.get("/control/state", control.get_state),
            web.get("/control/requests", control.get_requests),
            web.post("/control/reset", control.reset),
            web.get("/control/faults", control.get_faults),
            web.post("/control/faults", control.add_fault),
            web.delete("/control/faults", control.remove_faults),
            web.delete(r"/control/faults/{id:\d{1,9}}", control.remove_fault),
            web.get("/control/firings", control.get_firings),
            web.put("/control/profile", control.change_weather),
            web.get("/control/switches", control.get_switches),
            web.patch("/control/switches", control.change_switches),
        ]
    )
    return application


class _Control:
    """The handlers."""

    def __init__(
        self,
        settings: SimulatorSettings,
        accounts: Accounts,
        predictions: Predictions,
        uploads: Uploads,
        journal: Journal,
        conditions: Conditions,
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._predictions = predictions
        self._uploads = uploads
        self._journal = journal
        self._conditions = conditions

    async def get_state(self, request: web.Request) -> web.Response:
        wanted = request.query.get("id")
        switches, clock = self._conditions.switches, self._conditions.clock
        return web.json_response(
            {
                "seed": self._settings.seed,
                "speed": self._settings.speed,
                "retention_s": self._settings.retention_s,
                "clock": {"jumped_s": clock.jumped_s, "skew_s": clock.skew_s},
                "accounts": {account.key: account.username for account in self._accounts},
                "predictions": [
                    truth_answer(prediction, switches)
                    for prediction in self._predictions
                    if wanted in (None, prediction.id)
                ],
            }
        )

    async def get_requests(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": self._journal.answer()})

    async def reset(self, _: web.Request) -> web.Response:
        await self._predictions.reset()
        self._uploads.clear()
        self._conditions.reset()
        self._accounts.reset()
        self._journal.clear()
        return web.Response(status=204)

    async def get_faults(self, _: web.Request) -> web.Response:
        return web.json_response({"faults": [one.answer() for one in self._conditions.faults]})

    async def add_fault(self, request: web.Request) -> web.Response:
        if len(list(self._conditions.faults)) >= FAULTS_MAX:
            return _refusal(422, [{"field": "body", "rule": f"at most {FAULTS_MAX} faults"}])
        fault = Fault.model_validate(await _object(request))
        return web.json_response(self._conditions.faults.add(fault).answer(), status=201)

    async def remove_faults(self, _: web.Request) -> web.Response:
        self._conditions.faults.remove_all()
        return web.Response(status=204)

    async def remove_fault(self, request: web.Request) -> web.Response:
        removed = self._conditions.faults.remove(int(request.match_info["id"]))
        return web.Response(status=204 if removed else 404)

    async def get_firings(self, _: web.Request) -> web.Response:
        firings = [asdict(one) for one in self._conditions.faults.firings]
        return web.json_response({"firings": firings})

    async def change_weather(self, request: web.Request) -> web.Response:
        weather = Weather.model_validate(await _object(request))
        self._conditions.change_weather(weather.profile, weather.lasts_s)
        return await self.get_faults(request)

    async def get_switches(self, _: web.Request) -> web.Response:
        return web.json_response(self._conditions.switches.model_dump())

    async def change_switches(self, request: web.Request) -> web.Response:
        self._conditions.switchboard.change(await _object(request))
        return await self.get_switches(request)


@web.middleware
async def _complaints(request: web.Request, handler: Any) -> web.StreamResponse:
    """Names fields and rules of what cannot be taken."""
    try:
        answer: web.StreamResponse = await handler(request)
    except ValidationError as error:
        return _refusal(422, invalid_fields(error))
    except ValueError as error:
        return _refusal(400, [{"field": "body", "rule": f"must be a JSON object: {error}"}])
    return answer


async def _object(request: web.Request) -> dict[str, Any]:
    """Returns the body; raises ValueError if it is no JSON object."""
    body = await request.json()
    if not isinstance(body, dict):
        raise ValueError(type(body).__name__)
    return body


def _refusal(status: int, errors: list[dict[str, str]]) -> web.Response:
    return web.json_response({"errors": errors}, status=status)
