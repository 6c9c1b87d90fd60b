"""Lets predictions live: creates, runs, ends and forgets them."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.runtime.telemetry import get_logger
from services.simulator.accounts import Account, Accounts
from services.simulator.addresses import Addresses
from services.simulator.announcements import Announcer
from services.simulator.answers import View, prediction_answer
from services.simulator.conditions import Conditions
from services.simulator.faults.action import Operation
from services.simulator.faults.fault import LIFE
from services.simulator.faults.lives import afflicted, shaped_output
from services.simulator.images import ImageFetcher, ImageUnavailable
from services.simulator.plan import draw_plan
from services.simulator.prediction import (
    FINAL,
    Attempt,
    Fetch,
    Prediction,
    Status,
    Step,
    finish,
    loaded_prediction,
    next_step,
    remove_data,
    start,
    with_attempt,
    with_fetch,
)
from services.simulator.problems import failure
from services.simulator.registry import Model, Registry, Version
from services.simulator.renderer import Renderer
from services.simulator.settings import SimulatorSettings
from services.simulator.store import Store
from services.simulator.subjects import group_of, subject_of_prediction
from services.simulator.tasks import BackgroundTasks
from services.simulator.video import UnreadableImage, VideoOrder
from services.simulator.webhooks import WebhookSender

__all__ = ["CreateRequest", "Predictions"]

IN_FLIGHT_MAX = 50_000
"""How many unfinished predictions there may be; more are refused with 503."""
REMOVED_MAX = 10_000
"""How many predictions without data are remembered; the oldest leave first."""
SWEEP_PAUSE_S_MAX = 5.0
LOGS_PAUSE_S = 0.5
"""Least time between two `logs` webhooks of a prediction, at any speed."""
CRASH_ERROR = "Director: unexpected error handling prediction (code: E6716)"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A create that has been checked."""

    model: Model
    version: Version
    shown_version: str
    input: dict[str, Any]
    body: str
    """As it came."""
    webhook: str | None
    events: frozenset[str]
    cancel_after_s: float | None
    prefer: str | None
    path: str
    headers: tuple[tuple[str, str], ...]
    """Without the token."""
    deployment: str | None


class Predictions:
    """All predictions of all accounts.

    Memory is bounded: no more than 50,000 live at a time, after retention a finished prediction
    loses input, logs and video, and of those the newest 10,000 are kept.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        folder: Path,
        accounts: Accounts,
        registry: Registry,
        store: Store,
        renderer: Renderer,
        addresses: Addresses,
        conditions: Conditions,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._accounts = accounts
        self._registry = registry
        self._store = store
        self._renderer = renderer
        self._addresses = addresses
        self._conditions = conditions
        self._clock = conditions.clock
        self._tasks = BackgroundTasks()
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._predictions: dict[str, Prediction] = {}
        self._with_data: deque[str] = deque()
        self._without_data: deque[str] = deque()
        self._first_attempts: dict[str, asyncio.Event] = {}
        self._missing = 0

    def open(self, webhooks: WebhookSender, images: ImageFetcher) -> None:
        """Goes on with what an earlier process left, and begins to sweep."""
        self._announcer = Announcer(
            self._settings, self._accounts, self._conditions, self._tasks, webhooks, self.answer
        )
        self._images = images
        for half_made in (self._folder / "videos").glob("*.part"):
            half_made.unlink()
        loaded = [loaded_prediction(document) for document in self._store.documents("prediction")]
        for prediction in sorted(loaded, key=lambda one: one.completed_at or 0.0):
            self._predictions[prediction.id] = prediction
            if prediction.status not in FINAL:
                self._begin(prediction)
            elif prediction.data_removed:
                self._without_data.append(prediction.id)
            else:
                self._with_data.append(prediction.id)
                if not prediction.settled:
                    # Its delivery was cut off, or had not begun.
                    self._announcer.announce(prediction, "completed")
        self._tasks.spawn(self._sweep())

    async def close(self) -> None:
        """Stops all lives and deliveries where they are."""
        await self._tasks.cancel_all()

    def create(self, account: Account, request: CreateRequest) -> Prediction:
        """Returns a new prediction, whose life has begun; raises a Problem if too many live."""
        if len(self._lives) >= IN_FLIGHT_MAX:
            raise failure(503)
        number = self._store.next_number(account.key, "prediction")
        plan = draw_plan(
            self._settings.seed, account.key, number, request.model.run_s, request.input
        )
        now = self._clock.now()
        prediction = Prediction(
            id=plan.prediction_id,
            account=account.key,
            number=number,
            model=request.model.full_name,
            version_id=request.version.id,
            shown_version=request.shown_version,
            input=request.input,
            request=request.body,
            prefer=request.prefer,
            webhook=request.webhook,
            events=request.events,
            created_at=now,
            deadline=None if request.cancel_after_s is None else now + request.cancel_after_s,
            plan=plan,
            request_path=request.path,
            request_headers=request.headers,
            group=group_of(request.webhook, request.input),
            deployment=request.deployment,
            output_s=request.model.output_s(request.version, request.input),
        )
        life = self._conditions.faults.fire(subject_of_prediction(Operation.LIFE, prediction), LIFE)
        prediction = replace(prediction, plan=afflicted(plan, life))
        self._keep(prediction)
        self._begin(prediction)
        _log.info("created", prediction=prediction.id, model=prediction.model)
        return prediction

    def find(self, account: Account, prediction_id: str) -> Prediction | None:
        """Returns a prediction of `account`."""
        prediction = self._predictions.get(prediction_id)
        return prediction if prediction and prediction.account == account.key else None

    def of_any_account(self, prediction_id: str) -> Prediction | None:
        """Returns a prediction whosesoever it is."""
        return self._predictions.get(prediction_id)

    def newest_first(self, account: Account, older_than_s: float = 0.0) -> list[Prediction]:
        """Returns the predictions of an account, without the youngest."""
        latest = self._clock.now() - older_than_s
        mine = (
            one
            for one in self._predictions.values()
            if one.account == account.key and (not older_than_s or one.created_at <= latest)
        )
        return sorted(mine, key=lambda one: one.number, reverse=True)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self._predictions.values())

    def cancel(self, prediction: Prediction) -> Prediction:
        """Returns the prediction as it is after a cancel; a finished one does not change."""
        if prediction.status in FINAL:
            return prediction
        life = self._lives.get(prediction.id)
        if life is not None:
            life.cancel()
        return self._end(prediction, Step.CANCEL)

    async def wait(self, prediction: Prediction, timeout_s: float) -> Prediction:
        """Returns the prediction once it has finished, or after `timeout_s`."""
        life = self._lives.get(prediction.id)
        if life is not None:
            await asyncio.wait({life}, timeout=timeout_s)
        return self._predictions.get(prediction.id, prediction)

    async def first_attempt(self, prediction_id: str, timeout_s: float) -> None:
        """Returns once the first webhook of a prediction was sent, or after `timeout_s`."""
        attempted = self._first_attempts.setdefault(prediction_id, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await attempted.wait()
        except TimeoutError:
            return
        finally:
            self._first_attempts.pop(prediction_id, None)

    @property
    def view(self) -> View:
        """How predictions are shown now."""
        return View(
            addresses=self._addresses,
            speed=self._settings.speed,
            now=self._clock.now(),
            skew_s=self._clock.skew_s,
            webhook_echoed=self._conditions.switches.webhook_echoed,
            model_aliased=self._conditions.switches.model_alias,
        )

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """Returns what a read of the prediction shows now."""
        view = self.view
        if self._expired(prediction, view.now):
            prediction = remove_data(prediction)
        output = None
        if prediction.status is Status.SUCCEEDED and not prediction.data_removed:
            output = shaped_output(
                prediction.plan.output,
                self._addresses.output(prediction.id),
                self._video_path(prediction.id),
            )
        return prediction_answer(prediction, self._version(prediction), output, view)

    def video(self, prediction_id: str) -> Path | None:
        """Returns the file of a succeeded prediction until its retention ends."""
        prediction = self._predictions.get(prediction_id)
        if prediction is None or prediction.status is not Status.SUCCEEDED:
            return None
        gone = prediction.data_removed or self._expired(prediction, self._clock.now())
        path = self._video_path(prediction_id)
        return path if not gone and path.exists() else None

    def expire(self, prediction_id: str) -> None:
        """Ends the retention of a finished prediction now."""
        if prediction_id in self._with_data:
            self._with_data.remove(prediction_id)
            self._remove_data(prediction_id)

    async def reset(self) -> None:
        """Forgets all predictions; numbers, and with them ids, go on."""
        await self._tasks.cancel_all()
        for prediction_id in list(self._predictions):
            self._forget(prediction_id)
        self._with_data.clear()
        self._without_data.clear()
        self._missing = 0
        self._tasks.spawn(self._sweep())

    def record_attempt(self, prediction_id: str, attempt: Attempt, settled: bool) -> None:
        """Puts a webhook attempt on record."""
        prediction = self._predictions.get(prediction_id)
        if prediction is not None:
            self._keep(with_attempt(prediction, attempt, settled))
        if (attempted := self._first_attempts.get(prediction_id)) is not None:
            attempted.set()

    def record_fetch(self, prediction_id: str, fetch: Fetch) -> None:
        """Puts a fetch of a video on record."""
        prediction = self._predictions.get(prediction_id)
        if prediction is not None:
            self._keep(with_fetch(prediction, fetch))

    @property
    def missing(self) -> int:
        """How many predictions were forgotten to bound memory, since the start or a reset."""
        return self._missing

    def _begin(self, prediction: Prediction) -> None:
        life = self._tasks.spawn(self._live(prediction.id))
        self._lives[prediction.id] = life
        life.add_done_callback(lambda _: self._lives.pop(prediction.id, None))

    async def _live(self, prediction_id: str) -> None:
        """Takes a prediction from where it is to its end."""
        prediction = self._predictions[prediction_id]
        if prediction.status is Status.STARTING:
            at, step = next_step(prediction, self._settings.speed)
            await self._clock.sleep_until(at)
            if step is not Step.START:
                self._end(prediction, step)
                return
            prediction = start(prediction, self._clock.now())
            self._keep(prediction)
            self._announcer.announce(prediction, "start")
        logs = self._tasks.spawn(self._send_logs(prediction_id))
        try:
            step, error = await self._run(prediction)
        finally:
            logs.cancel()
        self._end(self._predictions[prediction_id], step, error)

    async def _run(self, prediction: Prediction) -> tuple[Step, str | None]:
        """Runs a prediction and returns how it ends, with the error if it could not be run."""
        at, step = next_step(prediction, self._settings.speed)
        error: str | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._clock.sleep_until(at))
                group.create_task(self._make_video(prediction, step))
        except* (ImageUnavailable, UnreadableImage) as failures:
            step, error = Step.FAIL, str(failures.exceptions[0])
        # Whatever goes wrong in here must end the prediction, as a crash does at Replicate.
        except* Exception as failures:  # noqa: BLE001
            _log.error("run failed", prediction=prediction.id, exc_info=failures)
            step, error = Step.FAIL, CRASH_ERROR
        return step, error

    async def _make_video(self, prediction: Prediction, step: Step) -> None:
        """Makes the video while the prediction runs, if it is going to succeed.

        The image is fetched in any case, as a model does first of all.
        """
        image: bytes | None = None
        if self._version(prediction).takes_image:
            image = await self._images.fetch(str(prediction.input.get("image")))
        if step is Step.SUCCEED:
            await self._renderer.make(self._order(prediction, image))

    def _order(self, prediction: Prediction, image: bytes | None) -> VideoOrder:
        model = self._registry.find(prediction.model)
        assert model is not None
        version, given = self._version(prediction), prediction.input
        return VideoOrder(
            path=self._video_path(prediction.id),
            prediction_id=prediction.id,
            prompt=str(given.get("prompt", "")),
            model=prediction.model,
            size=model.sizes[version.value(given, "aspect_ratio", "16:9")],
            frames=model.frame_count(version, given),
            frames_per_second=model.frame_rate(version, given),
            seed=prediction.plan.seed,
            image=image,
            stamp=self._folder / "stamps" if self._settings.video == "stamp" else None,
        )

    def _end(self, prediction: Prediction, step: Step, error: str | None = None) -> Prediction:
        """Ends a prediction; nothing waits in here, so nobody sees it half ended."""
        ended = finish(prediction, step, self._clock.now(), self._settings.speed, error)
        self._keep(ended)
        self._with_data.append(ended.id)
        _log.info("ended", prediction=ended.id, status=ended.status, error=ended.error)
        if ended.status is Status.SUCCEEDED:
            self._announcer.announce(ended, "output")
        self._announcer.announce(ended, "completed")
        return ended

    async def _send_logs(self, prediction_id: str) -> None:
        """Sends `logs` webhooks until the run ends, to those who asked for them."""
        told = ""
        while "logs" in self._predictions[prediction_id].events:
            await asyncio.sleep(LOGS_PAUSE_S)
            prediction = self._predictions[prediction_id]
            logs = self.answer(prediction)["logs"]
            if logs != told:
                told = logs
                self._announcer.announce(prediction, "logs")

    async def _sweep(self) -> None:
        """Removes the data of finished predictions once their retention has passed."""
        pause_s = min(SWEEP_PAUSE_S_MAX, self._settings.retention_s / 2)
        while True:
            await asyncio.sleep(pause_s)
            now = self._clock.now()
            while self._with_data and self._expired(self._predictions[self._with_data[0]], now):
                self._remove_data(self._with_data.popleft())
            while len(self._without_data) > REMOVED_MAX:
                self._forget(self._without_data.popleft())
                self._missing += 1

    def _remove_data(self, prediction_id: str) -> None:
        self._video_path(prediction_id).unlink(missing_ok=True)
        self._keep(remove_data(self._predictions[prediction_id]))
        self._without_data.append(prediction_id)

    def _keep(self, prediction: Prediction) -> None:
        self._predictions[prediction.id] = prediction
        self._store.put("prediction", prediction.id, prediction)

    def _forget(self, prediction_id: str) -> None:
        self._predictions.pop(prediction_id, None)
        self._announcer.forget(prediction_id)
        self._store.delete("prediction", prediction_id)
        self._video_path(prediction_id).unlink(missing_ok=True)

    def _expired(self, prediction: Prediction, now: float) -> bool:
        ended_at = prediction.completed_at
        return ended_at is not None and ended_at + self._settings.retention_s <= now

    def _version(self, prediction: Prediction) -> Version:
        found = self._registry.find_version(prediction.version_id)
        # A data folder can be older than the model files.
        found = found or self._registry.find_version(prediction.model)
        assert found is not None
        return found[1]

    def _video_path(self, prediction_id: str) -> Path:
        return self._folder / "videos" / f"{prediction_id}.mp4"
