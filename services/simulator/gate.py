"""Stands before the API: tokens, limits, faults, and the shape of every error."""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from services.simulator.accounts import Account, Accounts
from services.simulator.addresses import Addresses
from services.simulator.conditions import Conditions, WasReset
from services.simulator.faults.action import Operation
from services.simulator.faults.answering import spoiled_answer
from services.simulator.faults.fault import ANSWER, Subject
from services.simulator.faults.sending import sever
from services.simulator.faults.world import World
from services.simulator.journal import ASKED, FAULT, SUBJECT
from services.simulator.limits import Permit
from services.simulator.predictions import Predictions
from services.simulator.problems import (
    Problem,
    malformed,
    method_not_allowed,
    not_found,
    throttled,
    unauthenticated,
)
from services.simulator.subjects import (
    asked_in,
    read_ask,
    subject_of_create,
    subject_of_prediction,
)

__all__ = ["ACCOUNT", "Gate", "json_answer", "model_name"]

ACCOUNT = web.RequestKey("account", Account)
"""Under which the gate leaves word of whose token a request carries."""

Handler = Callable[[web.Request], Awaitable[web.Response]]
AnswerType = TypeVar("AnswerType", bound=web.StreamResponse)
AnyHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """Lets known tokens through, counts their calls, and lets faults meet them."""

    def __init__(
        self,
        accounts: Accounts,
        predictions: Predictions,
        addresses: Addresses,
        conditions: Conditions,
        world: World,
    ) -> None:
        self._accounts = accounts
        self._predictions = predictions
        self._addresses = addresses
        self._conditions = conditions
        self._world = world

    @property
    def middleware(self) -> Any:
        """Returns the aiohttp middleware that asks for a token."""

        @web.middleware
        async def answer(request: web.Request, handler: AnyHandler) -> web.StreamResponse:
            account = self._accounts.authenticate(request.headers.get("Authorization"))
            if account is None:
                return _problem_answer(unauthenticated())
            request[ACCOUNT] = account
            return await _translated(handler, request)

        return answer

    def to(self, operation: Operation, handler: Handler) -> AnyHandler:
        """Returns `handler` behind the limits and faults of `operation`."""

        async def answer(request: web.Request) -> web.StreamResponse:
            subject = await self._subject(operation, request)
            request[SUBJECT] = subject
            permit = self._permit(operation, request[ACCOUNT])
            self._world.strike(subject)

            async def handle() -> web.Response:
                done = await _translated(handler, request)
                if operation is Operation.CREATE:
                    done.headers.update(_limit_headers(permit))
                return done

            action = self._conditions.faults.fire(subject, ANSWER)
            if action is None:
                return await handle()
            request[FAULT] = action.kind
            try:
                return await spoiled_answer(
                    request,
                    handle,
                    action,
                    elsewhere=self._addresses.delivery,
                    sleep=self._conditions.sleep,
                    first_webhook=lambda most_s: self._first_webhook(request, most_s),
                )
            except WasReset:
                return sever(request)

        return answer

    def _permit(self, operation: Operation, account: Account) -> Permit:
        """Counts a call; raises a Problem if there are too many."""
        conditions = self._conditions
        permit = conditions.limits.take(
            account.key, operation is Operation.CREATE, conditions.switches, time.monotonic()
        )
        if not permit.granted:
            refusal = throttled(permit.retry_after_s, conditions.switches.retry_after_header)
            refusal.headers.update(_limit_headers(permit))
            raise refusal
        return permit

    async def _subject(self, operation: Operation, request: web.Request) -> Subject:
        account = request[ACCOUNT]
        model = model_name(request) if "owner" in request.match_info else None
        match operation:
            case Operation.CREATE:
                body = read_ask(await request.read())
                request[ASKED] = asked_in(body)
                return subject_of_create(account.key, model, body)
            case Operation.GET | Operation.CANCEL:
                prediction = self._predictions.find(account, request.match_info["id"])
                if prediction is not None:
                    return subject_of_prediction(operation, prediction)
        return Subject(operation, account.key, model=model)

    async def _first_webhook(self, request: web.Request, most_s: float) -> None:
        created = request[SUBJECT].prediction
        if created is not None:
            await self._predictions.first_attempt(created, most_s)


async def _translated(
    handler: Callable[[web.Request], Awaitable[AnswerType]], request: web.Request
) -> AnswerType | web.Response:
    """Returns the answer of `handler`, errors in Replicate's shape."""
    try:
        return await handler(request)
    except Problem as problem:
        return _problem_answer(problem)
    except web.HTTPMethodNotAllowed as refusal:
        return _problem_answer(method_not_allowed(refusal.method))
    except web.HTTPRequestEntityTooLarge:
        return _problem_answer(malformed(413, "Request too large", "The body is too large"))
    except web.HTTPNotFound:
        return _problem_answer(not_found())


def model_name(request: web.Request) -> str:
    """Returns the `owner/name` of a request's path."""
    return f"{request.match_info['owner']}/{request.match_info['name']}"


def json_answer(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Returns `body` as the API writes it."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


def _problem_answer(problem: Problem) -> web.Response:
    return json_answer(problem.body, problem.status, problem.headers)


def _limit_headers(permit: Permit) -> dict[str, str]:
    return {
        "ratelimit-remaining": str(permit.remaining),
        "ratelimit-reset": str(permit.reset_s),
    }
