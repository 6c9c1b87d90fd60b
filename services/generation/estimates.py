"""Estimates when videos will be there, from how long the like took lately; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from services.generation.catalog import Catalog
from services.generation.gate import GatePolicy
from services.generation.state import Generation, Stage

__all__ = [
    "Eta",
    "Line",
    "Run",
    "RunTimes",
    "Spread",
    "eta_of",
    "eta_of_new",
    "mean_provider_s",
    "run_times",
]

RUNS_MIN = 10
"""Fewer runs than this say less than the catalog does."""
LATEST_TO_LIKELY = 2.0
"""How much longer than usual one in ten takes, until it was measured."""
PROGRESS_MIN = 0.1
"""Before so much is done, what was done so far says little about the rest."""
SETTLING_S = 2.0
"""How long the provider's end and the video in our storage usually lie apart, until measured."""


@dataclass(frozen=True, slots=True)
class Eta:
    """When something will be there."""

    likely_at: datetime
    """Half of the like took less."""
    latest_at: datetime
    """Nine of ten took less."""


@dataclass(frozen=True, slots=True)
class Run:
    """How long one completed generation took, in seconds to its completion."""

    model: str
    resolution: str
    provider_s: float
    """From its submission to the provider's end."""
    from_submit_s: float
    from_start_s: float | None
    """None if the provider never told of its start."""
    from_end_s: float
    """From the provider's end."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something takes, in seconds."""

    p50_s: float
    p90_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class RunTimes:
    """How long a model takes at one resolution, until the video is there."""

    from_submit: Spread
    from_start: Spread
    from_end: Spread


@dataclass(frozen=True, slots=True)
class Line:
    """Those that wait for the provider, as of one moment, and how fast they are served."""

    now: datetime
    ready: int
    """How many wait to be submitted."""
    positions: Mapping[str, int]
    """Places of those that come first, from 1 on, by generation id."""
    in_flight: int
    """How many predictions are under way."""
    paused_until: datetime | None
    policy: GatePolicy
    provider_s: float
    """How long a prediction is under way on the average."""
    times: Mapping[tuple[str, str], RunTimes]
    """By model and resolution."""

    def position(self, generation: Generation) -> int | None:
        """Returns its place among those that wait, from 1 on; None if it does not wait.

        What came since, or waits behind all whose places are known, is taken for the last.
        """
        if generation.stage is not Stage.READY:
            return None
        return self.positions.get(generation.generation_id, self.ready + 1)

    def per_s(self) -> float:
        """Returns how many a second can be submitted in the long run."""
        return min(self.policy.rate_per_s, self.policy.in_flight_max / max(self.provider_s, 0.001))

    def wait_s(self, position: int) -> float:
        """Returns after how many seconds the one at `position` is submitted."""
        paused_s = 0.0
        if self.paused_until is not None:
            paused_s = max((self.paused_until - self.now).total_seconds(), 0.0)
        free = max(self.policy.in_flight_max - self.in_flight, 0)
        # The first take the free places, as fast as the gate lets them; the others wait for ends.
        sent_s = (position - 1) / self.policy.rate_per_s
        ended_s = max(position - free, 0) * self.provider_s / self.policy.in_flight_max
        return paused_s + max(sent_s, ended_s)


def run_times(catalog: Catalog, runs: Sequence[Run]) -> dict[tuple[str, str], RunTimes]:
    """Returns how long each model takes: as measured, or as the catalog says if that is too few."""
    times = {}
    for model in catalog.models:
        for variant in model.variants:
            key = (model.model, variant.resolution)
            like = [run for run in runs if (run.model, run.resolution) == key]
            started = [run.from_start_s for run in like if run.from_start_s is not None]
            times[key] = RunTimes(
                _spread([run.from_submit_s for run in like], variant.run_s + SETTLING_S),
                _spread(started, variant.run_s + SETTLING_S),
                _spread([run.from_end_s for run in like], SETTLING_S),
            )
    return times


def mean_provider_s(catalog: Catalog, runs: Sequence[Run]) -> float:
    """Returns how long a prediction is under way on the average, of all models together."""
    if len(runs) >= RUNS_MIN:
        return sum(run.provider_s for run in runs) / len(runs)
    said = [variant.run_s for model in catalog.models for variant in model.variants]
    return sum(said) / len(said)


def eta_of(generation: Generation, line: Line) -> Eta | None:
    """Returns when a generation's video will be there; None if that cannot be said.

    That is so when it ends without one, waits for an operator, or took longer than nine of ten and
    tells of no progress.
    """
    times = line.times.get((generation.request.model, generation.request.resolution))
    if times is None or generation.refund_percent is not None:
        return None
    match generation.stage:
        case Stage.RESERVING:
            return _queued(line.ready + 1, times, line)
        case Stage.READY:
            return _queued(line.position(generation) or 1, times, line)
        case Stage.SUBMITTING:
            if generation.uncertain_since is not None:
                return None
            return _arriving(generation.stage_since, times.from_submit, line.now)
        case Stage.RUNNING:
            if generation.started_at is not None:
                usual = _arriving(generation.started_at, times.from_start, line.now)
                return _as_it_goes(generation, generation.started_at, times, usual, line.now)
            submitted_at = generation.submitted_at or generation.stage_since
            return _arriving(submitted_at, times.from_submit, line.now)
        case Stage.ARCHIVING | Stage.COMMITTING:
            ended_at = generation.provider_ended_at or generation.stage_since
            return _arriving(ended_at, times.from_end, line.now)
        case (
            Stage.CANCELING
            | Stage.REFUNDING
            | Stage.PARKED
            | Stage.REJECTED
            | Stage.COMPLETED
            | Stage.FAILED
            | Stage.CANCELED
        ):
            return None
        case unreachable:
            assert_never(unreachable)


def eta_of_new(model: str, resolution: str, line: Line) -> Eta | None:
    """Returns when the video of a generation that is created now would be there."""
    times = line.times.get((model, resolution))
    return None if times is None else _queued(line.ready + 1, times, line)


def _queued(position: int, times: RunTimes, line: Line) -> Eta:
    wait_s = line.wait_s(position)
    return Eta(
        line.now + timedelta(seconds=wait_s + times.from_submit.p50_s),
        line.now + timedelta(seconds=wait_s + times.from_submit.p90_s),
    )


def _arriving(since: datetime, spread: Spread, now: datetime) -> Eta | None:
    latest_at = since + timedelta(seconds=spread.p90_s)
    if now >= latest_at:
        return None
    likely_at = since + timedelta(seconds=spread.p50_s)
    # Of those that took longer than half, half are there after about half of what is left.
    return Eta(likely_at if now < likely_at else now + (latest_at - now) / 2, latest_at)


def _as_it_goes(
    generation: Generation, started_at: datetime, times: RunTimes, usual: Eta | None, now: datetime
) -> Eta | None:
    """Returns the usual estimate, corrected the more by its own progress the further that is."""
    done = generation.progress_percent / 100
    # As of its last news: what has passed since then is no slowness.
    took = generation.updated_at - started_at
    if done < PROGRESS_MIN or took <= timedelta(0):
        return usual
    ends_at = started_at + took / done
    likely_at = max(ends_at + timedelta(seconds=times.from_end.p50_s), now)
    slower_s = (ends_at - generation.updated_at).total_seconds() * (LATEST_TO_LIKELY - 1)
    latest_at = max(ends_at + timedelta(seconds=slower_s + times.from_end.p90_s), likely_at)
    if usual is None:
        return Eta(likely_at, latest_at) if latest_at > now else None
    return Eta(
        usual.likely_at + (likely_at - usual.likely_at) * done,
        usual.latest_at + (latest_at - usual.latest_at) * done,
    )


def _spread(measured: Sequence[float], usual_s: float) -> Spread:
    if len(measured) < RUNS_MIN:
        latest_s = usual_s * LATEST_TO_LIKELY
        return Spread(usual_s, latest_s, latest_s)
    ordered = sorted(max(seconds, 0.0) for seconds in measured)

    def least(percent: int) -> float:
        """Returns the least that so many of a hundred do not exceed."""
        return ordered[-(-len(ordered) * percent // 100) - 1]

    return Spread(least(50), least(90), least(95))
