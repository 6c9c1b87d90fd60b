"""The control listener: faults, switches and the truth, for tests, and a way to start over."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.simulator.accounts import Accounts
from services.simulator.answers import truth_answer
from services.simulator.complaints import invalid_fields
from services.simulator.conditions import Conditions
from services.simulator.entries import Entry, loaded_entry
from services.simulator.faults.action import Seconds
from services.simulator.faults.actions import Offset
from services.simulator.faults.fault import Fault
from services.simulator.faults.profiles import Profile
from services.simulator.journal import Journal
from services.simulator.judging.case import Truth
from services.simulator.judging.terms import Terms
from services.simulator.judging.verdict import Verdict, judge
from services.simulator.ledger import Ledger, settle
from services.simulator.prediction import Prediction
from services.simulator.predictions import Predictions
from services.simulator.registry import Registry
from services.simulator.settings import SimulatorSettings
from services.simulator.uploads import Uploads

__all__ = ["REQUESTS_MAX", "ClockChange", "Weather", "control_application"]

FAULTS_MAX = 1000
REQUESTS_MAX = 5000
"""How many entries of the journal one answer gives."""


class ClockChange(BaseModel):
    """The body of `PATCH /control/clock`; what is not given stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    skew_s: Offset | None = None
    """By how much what is shown is ahead of what is lived by."""
    jumped_s: Offset | None = None
    """By how much the stand-in lives ahead of the machine."""


class _Page(BaseModel):
    """The query of `GET /control/requests`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=REQUESTS_MAX)] = REQUESTS_MAX


class Weather(BaseModel):
    """The body of `PUT /control/profile`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile
    lasts_s: Seconds | None = None
    """How long its faults last; None means until they are removed."""


def control_application(
    settings: SimulatorSettings,
    accounts: Accounts,
    registry: Registry,
    predictions: Predictions,
    uploads: Uploads,
    journal: Journal,
    conditions: Conditions,
) -> web.Application:
    """Returns the application that the control listener serves."""
    control = _Control(settings, accounts, registry, predictions, uploads, journal, conditions)
    application = web.Application(middlewares=[_complaints])
    application.add_routes(
        [
            web.get("/control/state", control.get_state),
            web.get("/control/requests", control.get_requests),
            web.get("/control/ledger", control.get_ledger),
            web.get("/control/violations", control.get_violations),
            web.post("/control/violations", control.find_violations),
            web.get("/control/clock", control.get_clock),
            web.patch("/control/clock", control.change_clock),
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
        registry: Registry,
        predictions: Predictions,
        uploads: Uploads,
        journal: Journal,
        conditions: Conditions,
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._prices = {model.full_name: model.price for model in registry}
        self._predictions = predictions
        self._uploads = uploads
        self._journal = journal
        self._conditions = conditions

    async def get_state(self, request: web.Request) -> web.Response:
        wanted = request.query.get("id")
        switches = self._conditions.switches
        chosen = [one for one in self._predictions if wanted in (None, one.id)]
        state = {
            "seed": self._settings.seed,
            "speed": self._settings.speed,
            "retention_s": self._settings.retention_s,
            "clock": self._clock(),
            "accounts": {account.key: account.username for account in self._accounts},
            "missing_predictions": self._predictions.missing,
        }
        return await _answer(
            lambda: {**state, "predictions": [truth_answer(one, switches) for one in chosen]}
        )

    async def get_requests(self, request: web.Request) -> web.Response:
        page = _Page.model_validate(dict(request.query))
        documents = self._journal.documents(page.after, page.limit)
        return await _answer(
            lambda: {
                "requests": [json.loads(one) for one in documents],
                "missing_requests": self._journal.missing,
            }
        )

    async def get_ledger(self, _: web.Request) -> web.Response:
        chosen = list(self._predictions)
        return await _answer(lambda: asdict(self._ledger(chosen)))

    async def get_violations(self, request: web.Request) -> web.Response:
        query: dict[str, Any] = dict(request.query)
        if "adopted" in query:
            query["adopted"] = request.query.getall("adopted")
        return await self._violations(Terms.model_validate(query))

    async def find_violations(self, request: web.Request) -> web.Response:
        return await self._violations(Terms.model_validate(await _object(request)))

    async def get_clock(self, _: web.Request) -> web.Response:
        return web.json_response(self._clock())

    async def change_clock(self, request: web.Request) -> web.Response:
        change, clock = ClockChange.model_validate(await _object(request)), self._conditions.clock
        if change.skew_s is not None:
            clock.skew_s = change.skew_s
        if change.jumped_s is not None:
            clock.jump_to(change.jumped_s)
        return await self.get_clock(request)

    def _clock(self) -> dict[str, float]:
        clock = self._conditions.clock
        return {"jumped_s": clock.jumped_s, "skew_s": clock.skew_s}

    def _ledger(self, predictions: list[Prediction]) -> Ledger:
        switches = self._conditions.switches
        return settle(
            predictions,
            self._prices,
            self._settings.speed,
            switches.failed_charged,
            switches.canceled_before_start_charged,
            self._predictions.missing,
        )

    async def _violations(self, terms: Terms) -> web.Response:
        entries: list[Entry] = []
        last = 0
        # Page by page, so that others are served meanwhile and the text of one page is there only.
        while page := self._journal.documents(last, REQUESTS_MAX):
            entries += await asyncio.to_thread(_loaded, page)
            last = entries[-1].number
        predictions, now = list(self._predictions), self._conditions.clock.now()
        missing = (self._predictions.missing, self._journal.missing)

        def find() -> dict[str, Any]:
            truth = Truth(
                predictions=predictions,
                entries=entries,
                charges={one.prediction: one for one in self._ledger(predictions).charges},
                now=now,
                retention_s=self._settings.retention_s,
            )
            verdict: Verdict = judge(truth, terms)
            known = replace(verdict, missing_predictions=missing[0], missing_requests=missing[1])
            return asdict(known)

        return await _answer(find)

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
        if not self._conditions.faults.has_room(FAULTS_MAX):
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


def _loaded(page: list[str]) -> list[Entry]:
    return [loaded_entry(json.loads(one)) for one in page]


async def _answer(find: Callable[[], dict[str, Any]]) -> web.Response:
    """Answers with what `find` returns, which may take long and waits in a thread."""
    text = await asyncio.to_thread(lambda: json.dumps(find(), ensure_ascii=False))
    return web.Response(text=text, content_type="application/json")


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
