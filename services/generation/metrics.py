"""What the generation service measures."""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta

from services.generation.catalog import Catalog
from services.generation.estimates import RunTimes
from services.generation.events import Event, PredictionSeen, Source, Submitted
from services.generation.failures import fault_of
from services.generation.open_figures import OpenFigures
from services.generation.prediction import Prediction
from services.generation.reconciliation import Finding, Reconciliation
from services.generation.state import (
    Failure,
    FailureCode,
    Generation,
    Kind,
    Request,
    Stage,
)
from services.runtime.database import Database
from services.runtime.metrics import OTHER, Metrics, PoolMetrics

__all__ = ["GenerationMetrics"]

ESTIMATES_MAX = 10_000
"""Remembered at once; of those above, nobody learns whether they held."""
TIMELY_S = 90.0
"""How long after the end was known a webhook about it may come; the provider repeats for 60 s."""
OUTPUT_LIFE = timedelta(hours=1)
"""How long the provider keeps a video."""
_UNFINISHED = [stage for stage in Stage if not stage.is_final]
_TELLERS = {Source.WEBHOOK: "webhook", Source.POLL: "poll"}
"""Who else tells of an end, does so by chance: a search, or the answer to the create."""


class GenerationMetrics:
    """Counts what happens to generations, once it is durable, and shows what is under way."""

    def __init__(self, catalog: Catalog, metrics: Metrics | None = None) -> None:
        """Takes the measures of the process; without them it counts for nobody."""
        metrics = metrics or Metrics()
        self._catalog = catalog
        self._batch_size = metrics.histogram("batch_size")
        self._pools = PoolMetrics(metrics)
        self._created = metrics.counter("generations_created_total")
        self._ended = metrics.counter("generations_ended_total")
        self._completion_s = metrics.histogram("completion_seconds")
        self._stage_s = metrics.histogram("stage_seconds")
        self._settle_s = metrics.histogram("settle_seconds")
        self._charged = metrics.counter("charged_credits_total")
        self._refunded = metrics.counter("refunded_credits_total")
        self._requests = metrics.counter("provider_requests_total")
        self._provider_s = metrics.counter("provider_seconds_total")
        self._provider_usd = metrics.counter("provider_dollars_total")
        self._outcomes = metrics.counter("outcomes_total")
        self._told = metrics.counter("terminal_webhooks_total")
        self._webhooks_asked = metrics.gauge("webhooks_asked")
        self._archive_margin_s = metrics.histogram("archive_margin_seconds")
        self._eta_hits = metrics.counter("eta_hits_total")
        self._orphans_charged = metrics.counter("orphans_charged_total")
        self._generations = metrics.gauge("generations")
        self._ready_age_s = metrics.gauge("ready_age_seconds")
        self._overdue = metrics.gauge("generations_overdue")
        self._unsettled = metrics.gauge("unsettled_credits")
        self._paused = metrics.gauge("submissions_paused")
        self._orphans = metrics.gauge("orphans_live")
        self._figures_read = metrics.gauge("figures_read_timestamp")
        self._findings = metrics.gauge("reconciliation_findings")
        self._reconciled = metrics.gauge("reconciled_timestamp")
        self._times: Mapping[tuple[str, str], RunTimes] = {}
        self._estimates: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._begin_at_zero()

    def watch_pool(self, database: Database) -> None:
        """Shows how many connections of `database` are in use, whenever somebody looks."""
        self._pools.watch(database)

    def asks_for_webhooks(self, is_asked: bool) -> None:
        """Shows whether the provider is asked to tell of ends, or is only asked about them."""
        self._webhooks_asked.set(is_asked)

    def wrote(self, commands: int) -> None:
        """Counts a batch."""
        self._batch_size.observe(commands)

    def created(self, generation: Generation) -> None:
        """Counts a generation that is new."""
        self._created.labels(generation.request.kind).inc()

    def stepped(self, before: Generation, after: Generation, event: Event) -> None:
        """Counts a step of a generation."""
        if after.stage is not before.stage:
            at = after.finished_at or after.stage_since
            self._stage_s.labels(before.stage).observe(_seconds(before.stage_since, at))
            if before.stage is Stage.ARCHIVING and after.stage is Stage.COMMITTING:
                ended_at = after.provider_ended_at or before.stage_since
                self._archive_margin_s.observe(OUTPUT_LIFE.total_seconds() - _seconds(ended_at, at))
            if after.stage is Stage.RUNNING:
                self._remember_estimate(after)
            if after.stage.is_final:
                self._end(before, after, at)
        if isinstance(event, PredictionSeen | Submitted) and _has_ended(before, after, event):
            self._outcomes.labels(_TELLERS.get(event.source, "sweep")).inc()
            is_charged = event.prediction.status == "succeeded" and after.refund_percent is None
            self._provide(after.request, event.prediction, is_charged=is_charged)

    def told(self, generation: Generation, received_at: datetime) -> None:
        """Counts a webhook about the end of a prediction, whoever had told of it before."""
        late_s = _seconds(generation.provider_ended_at or received_at, received_at)
        self._told.labels("yes" if late_s <= TIMELY_S else "no").inc()

    def orphan_ended(self, request: Request | None, prediction: Prediction) -> None:
        """Counts a prediction that nobody used, if it costs something."""
        if prediction.predict_seconds:
            self._orphans_charged.inc()
        self._provide(request, prediction, is_charged=False)

    def requested(self, operation: str, outcome: str) -> None:
        """Counts a request to the provider; both are words of ours."""
        self._requests.labels(operation, outcome).inc()

    def stands(self, figures: OpenFigures, times: Mapping[tuple[str, str], RunTimes]) -> None:
        """Shows what is under way, and takes how long models take lately."""
        at_stage = {count.stage: count for count in figures.stages}
        for stage in _UNFINISHED:
            count = at_stage.get(stage)
            self._generations.labels(stage).set(count.generations if count else 0)
        ready = at_stage.get(Stage.READY)
        self._ready_age_s.set(_seconds(ready.oldest_at, figures.read_at) if ready else 0)
        self._overdue.set(figures.overdue)
        self._unsettled.set(figures.unsettled_credits)
        self._paused.set(figures.is_paused)
        self._orphans.set(figures.live_orphans)
        self._figures_read.set(figures.read_at.timestamp())
        self._times = times

    def reconciled(self, latest: Reconciliation) -> None:
        """Shows what a comparison with the ledger left behind."""
        for finding in Finding:
            self._findings.labels(finding).set(latest.findings.get(finding, 0))
        self._reconciled.set(latest.reconciled_at.timestamp())

    def _begin_at_zero(self) -> None:
        """Shows from the start what is to be compared with what it was before."""
        for stage in _UNFINISHED:
            self._generations.labels(stage).set(0)
        for finding in Finding:
            self._findings.labels(finding).set(0)
        for kind in Kind:
            self._created.labels(kind)
        self._ended.labels(Stage.COMPLETED, "none", "none")
        for code in FailureCode:
            fault = fault_of(Failure(code, ""))
            self._ended.labels(_end_of(code), code, fault)
        for source in (*_TELLERS.values(), "sweep"):
            self._outcomes.labels(source)
        for is_timely in ("yes", "no"):
            self._told.labels(is_timely)
        for model in self._catalog.models:
            self._charged.labels(model.model)
            for is_charged in ("yes", "no"):
                self._provider_s.labels(model.model, is_charged)
                self._provider_usd.labels(model.model, is_charged)

    def _end(self, before: Generation, after: Generation, at: datetime) -> None:
        code, fault = "none", "none"
        if after.failure is not None and after.stage is not Stage.COMPLETED:
            code, fault = after.failure.code.value, fault_of(after.failure).value
        elif after.stage is Stage.CANCELED:
            fault = "user"
        self._ended.labels(after.stage, code, fault).inc()
        if before.stage in (Stage.COMMITTING, Stage.REFUNDING) and after.job_id is not None:
            self._settle_s.observe(_seconds(after.provider_ended_at or before.stage_since, at))
        if after.charged_credits:
            self._charged.labels(self._model_of(after.request)).inc(after.charged_credits)
        if after.stage in (Stage.FAILED, Stage.CANCELED):
            refunded = after.price_credits - after.charged_credits
            self._refunded.labels(after.stage).inc(refunded)
        estimate = self._estimates.pop(after.generation_id, None)
        if after.stage is Stage.COMPLETED:
            self._completion_s.observe(_seconds(after.created_at, at))
            if estimate is not None and after.submitted_at is not None:
                took_s = _seconds(after.submitted_at, at)
                for band, expected_s in zip(("likely", "latest"), estimate, strict=True):
                    self._eta_hits.labels(band, "yes" if took_s <= expected_s else "no").inc()

    def _remember_estimate(self, generation: Generation) -> None:
        request = generation.request
        times = self._times.get((request.model, request.resolution))
        if times is not None:
            expected = (times.from_submit.p50_s, times.from_submit.p90_s)
            self._estimates[generation.generation_id] = expected
            if len(self._estimates) > ESTIMATES_MAX:
                self._estimates.popitem(last=False)

    def _provide(
        self, request: Request | None, prediction: Prediction, *, is_charged: bool
    ) -> None:
        labels = (self._model_of(request), "yes" if is_charged else "no")
        self._provider_s.labels(*labels).inc(prediction.predict_seconds or 0.0)
        if request is None or not prediction.predict_seconds:
            return
        model = self._catalog.find(request.model)
        variant = model.variant(request.resolution) if model else None
        if variant is not None and variant.provider_usd is not None:
            self._provider_usd.labels(*labels).inc(variant.provider_usd)

    def _model_of(self, request: Request | None) -> str:
        """Returns the label of a model; what the catalog has no more is some other."""
        is_known = request is not None and self._catalog.find(request.model) is not None
        return request.model if request is not None and is_known else OTHER


def _has_ended(before: Generation, after: Generation, event: PredictionSeen | Submitted) -> bool:
    """Tells whether a step was the first to learn that the prediction has ended."""
    if not event.prediction.is_final or after.stage is before.stage:
        return False
    is_its_own = after.job_id == event.prediction.job_id or before.job_id == event.prediction.job_id
    return is_its_own and before.stage in (
        Stage.SUBMITTING,
        Stage.RUNNING,
        Stage.CANCELING,
        Stage.PARKED,
    )


def _end_of(code: FailureCode) -> Stage:
    """Returns how a generation ends that fails like this."""
    match code:
        case FailureCode.CANCELED:
            return Stage.CANCELED
        case FailureCode.INSUFFICIENT_CREDITS | FailureCode.ACCOUNT_NOT_FOUND:
            return Stage.REJECTED
        case _:
            return Stage.FAILED


def _seconds(since: datetime, until: datetime) -> float:
    return max((until - since).total_seconds(), 0.0)
