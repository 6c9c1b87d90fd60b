"""Computes the table of docs/scale.md: `python -m docs.arithmetic`.

Every line is a formula over the inputs below it in the page; change an input here and run it again.
"""

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE", "Inputs", "main", "renewed"]

PAGE = Path(__file__).parent / "scale.md"
JOBS_A_DAY = (10_000, 1_000_000)
_TABLE = re.compile(r"(<!-- scale -->\n).*?(<!-- end of scale -->)", re.DOTALL)
_DAY_S = 86_400
_KIB, _GIB = 1024, 1024**3
_GB = 10**9


@dataclass(frozen=True)
class Inputs:
    """What the table is computed from."""

    peak: float = 3.0
    """The busiest hour against the mean."""
    run_s: float = 60.0
    """Of a prediction, at the provider: 39 s at 480p and 150 s at 720p, mixed 4 to 1."""
    creates_a_minute_max: int = 600
    """Of one account at the provider."""
    webhooks_a_job: int = 2
    polls_per_s: float = 5.0
    """Of one replica of generation."""
    ledger_calls_a_job: int = 2
    """Reserve, and Commit or Refund."""
    service_cpu_ms_a_job: float = 31.2
    """Of generation."""
    all_cpu_ms_a_job: float = 40.2
    """Of generation and credits, without web and PostgreSQL."""
    credits_bytes_a_job: int = 1_800
    generation_bytes_a_job: int = 9_300
    webhook_bytes_a_job: int = 5_000
    webhook_kept_days: int = 30
    rows_a_job: int = 18
    """Of credits 3, of generation 13, of webhook 2."""
    video_bytes: int = 2_000_000
    storage_dollars_a_gb_month: float = 0.023
    provider_dollars_a_job: float = 0.61
    """5 s of video at 0.09 dollars a second (480p) and 0.25 (720p), mixed 4 to 1."""
    visits_a_job: float = 1 / 3
    visit_s: float = 900.0
    stream_kib: float = 213.0
    events_a_job: int = 5
    event_ms: float = 2.0
    """Processor time of web for an event to one browser."""
    busy: float = 0.5
    """How much of a processor is planned to be used at the busiest."""
    connections_a_replica: int = 22


def main() -> None:
    """Writes the table anew."""
    old = PAGE.read_text()
    new = renewed(old)
    if new != old:
        PAGE.write_text(new)
        sys.stdout.write("docs/scale.md is up to date now\n")


def renewed(page: str) -> str:
    """Returns the page with its table as it comes out."""
    table = "\n".join(_table(Inputs()))
    return _TABLE.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", page)


def _table(inputs: Inputs) -> Iterator[str]:
    heads = " | ".join(f"{jobs:,}" for jobs in JOBS_A_DAY)
    yield f"| jobs a day | how | {heads} |"
    yield "|---|---|" + "--:|" * len(JOBS_A_DAY)
    columns = [list(_lines(jobs, inputs)) for jobs in JOBS_A_DAY]
    for row in zip(*columns, strict=True):
        name, how, _ = row[0]
        yield f"| {name} | {how} | " + " | ".join(value for _, _, value in row) + " |"


def _lines(jobs: int, i: Inputs) -> Iterator[tuple[str, str, str]]:
    """Yields name, formula and value of each line."""
    mean = jobs / _DAY_S
    busiest = mean * i.peak
    yield "creates a second, mean", "jobs ÷ 86,400", f"{mean:.2f}"
    yield "creates a second, busiest", f"mean × {i.peak:g}", f"{busiest:.2f}"
    yield "creates a minute, busiest", "× 60", f"{busiest * 60:,.0f}"
    accounts = math.ceil(busiest * 60 / i.creates_a_minute_max)
    yield "provider's limits needed", f"÷ {i.creates_a_minute_max}, up", f"{accounts}"
    flat = math.ceil(mean * 60 / i.creates_a_minute_max)
    yield "the same, if people wait in the queue at the peak", "from the mean", f"{flat}"
    running = busiest * i.run_s
    yield "predictions under way", f"busiest × {i.run_s:g} s", f"{running:,.0f}"
    yield from _rates(busiest, running, i)
    yield from _data(jobs, i)
    yield from _people(busiest, i)
    dollars = jobs * i.provider_dollars_a_job
    yield "provider's bill a day", f"jobs × ${i.provider_dollars_a_job:g}", f"${dollars:,.0f}"


def _rates(busiest: float, running: float, i: Inputs) -> Iterator[tuple[str, str, str]]:
    hooks, moves = busiest * i.webhooks_a_job, busiest * i.ledger_calls_a_job
    yield "webhooks a second", f"busiest × {i.webhooks_a_job}", f"{hooks:.1f}"
    yield "Reserve, Commit and Refund a second", f"busiest × {i.ledger_calls_a_job}", f"{moves:.1f}"
    cpu = busiest * i.service_cpu_ms_a_job / 1000
    yield "processors of generation", f"busiest × {i.service_cpu_ms_a_job:g} ms", f"{cpu:.2f}"
    workers = max(2, math.ceil(cpu / i.busy))
    yield "replicas of generation", f"÷ {i.busy:g}, up, at least 2", f"{workers}"
    polls = min(running / 2, workers * i.polls_per_s)
    how = f"the less of under way ÷ 2 s and replicas × {i.polls_per_s:g}"
    yield "polls a second", how, f"{polls:.0f}"
    replicas = 3 + workers + 2
    connections = replicas * i.connections_a_replica
    how = f"(3 of credits + generation + 2 of webhook) × {i.connections_a_replica}"
    yield "connections to PostgreSQL, at most", how, f"{connections:,}"
    bits = busiest * i.video_bytes * 8 / 10**6
    how = f"busiest × {i.video_bytes / 10**6:g} MB × 8, each way"
    yield "videos over the network", how, f"{bits:.1f} Mbit/s"


def _data(jobs: int, i: Inputs) -> Iterator[tuple[str, str, str]]:
    yield "rows a day", f"jobs × {i.rows_a_job}", f"{jobs * i.rows_a_job:,}"
    lasting = i.credits_bytes_a_job + i.generation_bytes_a_job
    year = jobs * lasting * 365
    how = f"jobs × ({i.credits_bytes_a_job:,} + {i.generation_bytes_a_job:,}) B"
    yield "credits and generation grow by, a day", how, f"{jobs * lasting / _GB:.2f} GB"
    yield "the same, a year", "× 365", f"{year / _GB:,.0f} GB"
    inbox = jobs * i.webhook_bytes_a_job * i.webhook_kept_days
    how = f"jobs × {i.webhook_bytes_a_job:,} B × {i.webhook_kept_days} days"
    yield "webhook's inbox holds", how, f"{inbox / _GB:,.1f} GB"
    videos = jobs * i.video_bytes
    yield "videos a day", f"jobs × {i.video_bytes / 10**6:g} MB", f"{videos / _GB:,.0f} GB"
    month = 30 * videos / _GB * i.storage_dollars_a_gb_month
    how = f"× 30 × ${i.storage_dollars_a_gb_month:g} a GB and month"
    yield "a month of videos costs, a month", how, f"${month:,.0f}"


def _people(busiest: float, i: Inputs) -> Iterator[tuple[str, str, str]]:
    streams = busiest * i.visits_a_job * i.visit_s
    how = f"busiest × {i.visits_a_job:.2f} visits × {i.visit_s:g} s"
    yield "streams of events open", how, f"{streams:,.0f}"
    memory = streams * i.stream_kib * _KIB / _GIB
    yield "their memory, web and behind", f"× {i.stream_kib:g} KiB", f"{memory:.2f} GiB"
    events = busiest * i.events_a_job
    yield "events a second", f"busiest × {i.events_a_job}", f"{events:.1f}"
    cpu = events * i.event_ms / 1000
    yield "processors of web for them", f"× {i.event_ms:g} ms", f"{cpu:.2f}"


if __name__ == "__main__":
    main()
