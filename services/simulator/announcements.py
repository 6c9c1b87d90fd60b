"""Decides which events are sent to whom and when, and writes their bodies."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

from services.simulator.accounts import Accounts
from services.simulator.conditions import Conditions
from services.simulator.faults.action import Operation
from services.simulator.faults.fault import EVENT
from services.simulator.faults.webhook_actions import (
    AfterRetention,
    DelayWebhook,
    DropWebhook,
    DuplicateWebhook,
    EventAction,
    Flood,
    Regress,
    Reorder,
)
from services.simulator.plan import stream
from services.simulator.prediction import Prediction, Status, as_of
from services.simulator.settings import SimulatorSettings
from services.simulator.subjects import subject_of_prediction
from services.simulator.tasks import BackgroundTasks
from services.simulator.webhooks import Delivery, WebhookSender

__all__ = ["Announcer"]

WEBHOOK_ID_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
MOMENT_S = 1e-6
"""The shortest time that two events of a prediction are apart."""

Work = Callable[[], Coroutine[None, None, None]]


class Announcer:
    """Sends events in the background, each as the fault wants it that fires at it."""

    def __init__(
        self,
        settings: SimulatorSettings,
        accounts: Accounts,
        conditions: Conditions,
        tasks: BackgroundTasks,
        sender: WebhookSender,
        answer: Callable[[Prediction], dict[str, Any]],
    ) -> None:
        """Takes `answer`, which says what a read of a prediction shows now."""
        self._settings = settings
        self._accounts = accounts
        self._conditions = conditions
        self._tasks = tasks
        self._sender = sender
        self._answer = answer
        self._held: dict[str, Delivery] = {}

    def announce(self, prediction: Prediction, event: str) -> None:
        """Sends one event, if somebody wants it."""
        delivery = self._delivery(prediction, event)
        if delivery is None:
            return
        action = self._conditions.faults.fire(delivery.subject, EVENT)
        held = self._held.pop(prediction.id, None)
        if isinstance(action, Reorder) and not delivery.final:
            # What was held already goes now: it has waited for this one.
            self._held[prediction.id] = delivery
            works: list[Work] = []
        else:
            works = self._works(prediction, delivery, action)
        if held is not None:
            works = [partial(_in_turn, *works, partial(self._sender.deliver, held))]
        for work in works:
            self._tasks.spawn(work())

    def forget(self, prediction_id: str) -> None:
        """Forgets what is held back for a prediction."""
        self._held.pop(prediction_id, None)

    def _delivery(self, prediction: Prediction, event: str) -> Delivery | None:
        switches = self._conditions.switches
        account = self._accounts.find(prediction.account)
        # Replicate promises no webhook for an aborted prediction.
        aborted = prediction.status is Status.ABORTED and not switches.aborted_webhook
        silent = prediction.plan.silent or aborted or event not in prediction.events
        if prediction.webhook is None or account is None or silent:
            return None
        moment = time.time_ns() if event == "logs" else event
        if switches.webhook_id_per == "prediction":
            moment = "all"
        return Delivery(
            subject=subject_of_prediction(Operation.WEBHOOK, prediction, event),
            prediction_id=prediction.id,
            event=event,
            webhook_id=self._webhook_id(prediction, moment),
            address=prediction.webhook,
            body=self._body(prediction),
            account=account,
            final=event == "completed",
        )

    def _works(
        self, prediction: Prediction, delivery: Delivery, action: EventAction | None
    ) -> list[Work]:
        """Returns what sends the event as the fault wants it; all of it may run at once."""

        def deliver(one: Delivery) -> Work:
            return partial(self._sender.deliver, one)

        match action:
            case None | Reorder():  # Behind the last event comes none that it could wait for.
                return [deliver(delivery)]
            case DropWebhook():
                self._sender.lose(delivery, action.kind)
                return []
            case DuplicateWebhook():
                copies = [
                    delivery
                    if action.same_id
                    else replace(delivery, webhook_id=self._webhook_id(prediction, ("copy", copy)))
                    for copy in range(action.copies)
                ]
                return [deliver(one) for one in (delivery, *copies)]
            case DelayWebhook():
                return [
                    partial(_in_turn, partial(asyncio.sleep, action.delay_s), deliver(delivery))
                ]
            case AfterRetention():
                return [partial(self._after_retention, prediction, delivery)]
            case Regress():
                changed_at = prediction.completed_at or prediction.started_at or 0.0
                earlier = as_of(prediction, changed_at - MOMENT_S) or prediction
                echo = replace(
                    delivery,
                    webhook_id=self._webhook_id(prediction, ("echo", delivery.event)),
                    body=self._body(earlier),
                    final=False,
                )
                return [partial(_in_turn, deliver(delivery), deliver(echo))]
            case Flood():
                return [deliver(delivery), partial(self._flood, delivery, action)]
            case _:
                assert_never(action)

    async def _after_retention(self, prediction: Prediction, delivery: Delivery) -> None:
        ended_at = prediction.completed_at or self._conditions.clock.now()
        await self._conditions.clock.sleep_until(ended_at + self._settings.retention_s)
        await self._sender.deliver(replace(delivery, body=self._body(prediction)))

    async def _flood(self, delivery: Delivery, flood: Flood) -> None:
        for _ in range(int(flood.per_second * flood.flood_s)):
            await asyncio.sleep(1 / flood.per_second)
            self._tasks.spawn(self._sender.deliver(replace(delivery, final=False)))

    def _webhook_id(self, prediction: Prediction, moment: object) -> str:
        draw = stream(self._settings.seed, "webhook", prediction.id, moment)
        return "msg_" + "".join(draw.choices(WEBHOOK_ID_ALPHABET, k=27))

    def _body(self, prediction: Prediction) -> bytes:
        answer = self._answer(prediction)
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


async def _in_turn(*works: Work) -> None:
    for work in works:
        await work()
