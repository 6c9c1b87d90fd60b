"""Alerts about silence: processes that are away, figures that are old, measures that vanished."""

import re
from collections.abc import Iterable, Sequence

from deploy.observability.alerting import Alert, Case, Condition, Severity
from services.runtime.measures import DECLARED, PREFIX, Kind

__all__ = ["ALERTS", "WATCHDOG", "missing_measures"]

PAGE, TICKET = Severity.PAGE, Severity.TICKET

JOBS = ("credits", "generation", "webhook", "web")
_POOL = "reelworks_database_pool_in_use"
_POOL_SIZE = "reelworks_database_pool_size"
_WRITER = '{job="credits",pool="writer"}'
_READER = '{job="credits",pool="reader"}'
_EXPIRES = "reelworks_certificate_expires_timestamp"
_LATE = "reelworks_certificate_late_timestamp"
_FIGURES = "reelworks_figures_read_timestamp"
_CALLS = "reelworks_rpc_server_seconds_count"
_BROKEN = f'{_CALLS}{{code=~"INTERNAL|UNKNOWN|DATA_LOSS"}}'
_CREATE = f'{_CALLS}{{job="generation",method="CreateGeneration",code='
_PAGES = "reelworks_http_seconds_count"
_FAILED_PAGES = f'{_PAGES}{{status=~"5.."}}'
_HTTP = f'{_PAGES}{{route="/api/generations",method="GET",status='
_ALL_UP = {f'up{{job="{job}",instance="a"}}': "1x60" for job in JOBS}


def _web_fails(share: float, window: str) -> str:
    return (
        f"sum(rate({_FAILED_PAGES}[{window}]))\n/ sum(rate({_PAGES}[{window}])) > {share:g}\n"
        f"and sum(increase({_FAILED_PAGES}[{window}])) >= 10"
    )


def _pages(failed: int, good: int) -> dict[str, str]:
    return {f'{_HTTP}"503"}}': f"0+{failed}x60", f'{_HTTP}"200"}}': f"0+{good}x60"}


_PROCESSES = (
    Alert(
        name="ServiceDown",
        job="",
        summary="No process of a service can be reached.",
        conditions={
            PAGE: Condition(
                f'sum by (job) (up{{job=~"{"|".join(JOBS)}"}}) == 0\n'
                + "\n".join(f'or absent(up{{job="{job}"}})' for job in JOBS),
                "1m",
            )
        },
        cases=(
            Case(
                {**_ALL_UP, 'up{job="credits",instance="a"}': "1x5 0x55"},
                "8m",
                (PAGE,),
                labels=({"job": "credits"},),
            ),
            # Nobody even knows of it any more.
            Case(
                {**_ALL_UP, 'up{job="web",instance="a"}': "1x5 _x55"},
                "20m",
                (PAGE,),
                labels=({"job": "web"},),
            ),
            Case(
                {
                    **_ALL_UP,
                    'up{job="credits",instance="a"}': "1x5 0x55",
                    'up{job="credits",instance="b"}': "1x60",
                },
                "8m",
            ),
        ),
    ),
    Alert(
        name="ProcessDown",
        job="",
        summary="A process cannot be reached for its measures.",
        conditions={TICKET: Condition(f'up{{job=~"{"|".join(JOBS)}"}} == 0', "5m")},
        cases=(
            Case(
                {'up{job="credits",instance="a"}': "1x5 0x55"},
                "15m",
                (TICKET,),
                labels=({"job": "credits", "instance": "a"},),
            ),
            Case({'up{job="credits",instance="a"}': "1x60"}, "15m"),
        ),
    ),
    Alert(
        name="CallsBreak",
        job="",
        summary="A service answers calls with errors that nobody foresaw.",
        conditions={
            TICKET: Condition(f"sum by (job) (increase({_BROKEN}[15m])) >= 5"),
        },
        cases=(
            Case(
                {f'{_CREATE}"INTERNAL"}}': "0+1x60"},
                "20m",
                (TICKET,),
                labels=({"job": "generation"},),
            ),
            Case(
                {
                    f'{_CREATE}"INTERNAL"}}': ("0x10 1x50"),
                    f'{_CREATE}"OK"}}': "0+50x60",
                },
                "20m",
            ),
        ),
    ),
    Alert(
        name="StudioFails",
        job="web",
        summary="Too many requests of the studio fail by our fault.",
        conditions={
            PAGE: Condition(_web_fails(0.1, "5m"), "2m"),
            TICKET: Condition(_web_fails(0.01, "30m"), "5m"),
        },
        cases=(
            Case(_pages(20, 80), "40m", (PAGE, TICKET)),
            Case(_pages(3, 97), "40m", (TICKET,)),
            Case(_pages(1, 999), "40m"),
        ),
    ),
    Alert(
        name="DatabasePoolFull",
        job="",
        summary="All connections of a pool to a database have been in use for minutes.",
        conditions={
            TICKET: Condition(
                f"max by (job, pool) (\n  min_over_time({_POOL}[5m]) >= {_POOL_SIZE}\n)"
            )
        },
        cases=(
            # The readers are free all the while.
            Case(
                {
                    f"{_POOL}{_WRITER}": "3x30",
                    f"{_POOL_SIZE}{_WRITER}": "3x30",
                    f"{_POOL}{_READER}": "0x30",
                    f"{_POOL_SIZE}{_READER}": "3x30",
                },
                "20m",
                (TICKET,),
                labels=({"job": "credits", "pool": "writer"},),
            ),
            Case(
                {f"{_POOL}{_WRITER}": "10x3 9 10x3 2x30", f"{_POOL_SIZE}{_WRITER}": "10x40"}, "8m"
            ),
            # Many, of pools that have many.
            Case(
                {
                    f"{_POOL}{_WRITER}": "7x30",
                    f"{_POOL_SIZE}{_WRITER}": "10x30",
                    f"{_POOL}{_READER}": "7x30",
                    f"{_POOL_SIZE}{_READER}": "10x30",
                },
                "20m",
            ),
        ),
    ),
    Alert(
        name="CertificateExpires",
        job="",
        summary="A process shows a certificate that should have been replaced.",
        conditions={
            # One of 90 days is late for 18 of them, one of a day for five hours.
            PAGE: Condition(f"max by (job) ({_EXPIRES} > 0 < time() + 2 * 3600)"),
            TICKET: Condition(f"max by (job) ({_LATE} > 0 < time())", "15m"),
        },
        cases=(
            # The clock of these worlds begins at 0.
            Case(
                {f'{_EXPIRES}{{job="credits"}}': "9000x60", f'{_LATE}{{job="credits"}}': "600x60"},
                "40m",
                (PAGE, TICKET),
                labels=({"job": "credits"},),
            ),
            Case(
                {
                    f'{_EXPIRES}{{job="credits"}}': "1555200x60",
                    f'{_LATE}{{job="credits"}}': "600x60",
                },
                "40m",
                (TICKET,),
                labels=({"job": "credits"},),
            ),
            # One of a day, replaced when it was due.
            Case(
                {
                    f'{_EXPIRES}{{job="credits"}}': "28200x10 86400x50",
                    f'{_LATE}{{job="credits"}}': "10800x10 69120x50",
                },
                "40m",
            ),
            # Without certificates.
            Case(
                {f'{_EXPIRES}{{job="credits"}}': "0x60", f'{_LATE}{{job="credits"}}': "0x60"}, "40m"
            ),
        ),
    ),
)

_EYES = (
    Alert(
        name="FiguresStale",
        job="",
        summary="A service cannot read its figures from its database, so alerts on them are blind.",
        conditions={
            TICKET: Condition(f"time() - max by (job) ({_FIGURES}) > 120", "3m"),
        },
        cases=(
            Case(
                {f'{_FIGURES}{{job="credits"}}': "60x30"},
                "20m",
                (TICKET,),
                labels=({"job": "credits"},),
            ),
            Case({f'{_FIGURES}{{job="credits"}}': "0+60x30"}, "20m"),
        ),
    ),
    Alert(
        name="LedgerNotVerified",
        job="credits",
        summary="The ledger has not been proven for more than a day.",
        conditions={
            TICKET: Condition("time() - max(reelworks_ledger_verified_timestamp) > 26 * 3600", "1h")
        },
        cases=(
            # The clock of these worlds begins at 0.
            Case({"reelworks_ledger_verified_timestamp": "-93600x120"}, "100m", (TICKET,)),
            Case({"reelworks_ledger_verified_timestamp": "-86400x120"}, "100m"),
        ),
    ),
    Alert(
        name="ReconciliationStale",
        job="generation",
        summary="Generations have not been compared with the ledger for half an hour.",
        conditions={
            TICKET: Condition("time() - max(reelworks_reconciled_timestamp) > 1800", "10m")
        },
        cases=(
            Case({"reelworks_reconciled_timestamp": "60x60"}, "50m", (TICKET,)),
            Case({"reelworks_reconciled_timestamp": "0+60x60"}, "50m"),
        ),
    ),
    Alert(
        name="RulesFail",
        job="prometheus",
        summary="Prometheus cannot evaluate a rule, so what it would say is not heard.",
        conditions={
            TICKET: Condition("sum(increase(prometheus_rule_evaluation_failures_total[15m])) > 0")
        },
        cases=(
            Case(
                {'prometheus_rule_evaluation_failures_total{rule_group="work"}': "0x5 1x30"},
                "10m",
                (TICKET,),
            ),
            Case({'prometheus_rule_evaluation_failures_total{rule_group="work"}': "4x60"}, "10m"),
        ),
    ),
)

ALERTS = (*_PROCESSES, *_EYES)

WATCHDOG = Alert(
    name="Watchdog",
    job="prometheus",
    summary="Alerts are evaluated and delivered. Who watches this one is called when it stops.",
    conditions={TICKET: Condition("vector(1)")},
    # It is never silent: its silence is what somebody else waits for.
    cases=(Case({}, "1m", (TICKET,)),),
)


def missing_measures(expressions: Iterable[str]) -> Alert:
    """Returns the alert that fires when a measure that `expressions` are about is not shown.

    A measure with labels shows nothing until something happens, so its absence says nothing; gauges
    of the database are told by each of their values from the start.
    """
    used = {word for text in expressions for word in re.findall(rf"{PREFIX}\w+", text)}
    shown = sorted(set(filter(None, map(_shown, used))))
    return Alert(
        name="MeasuresMissing",
        job="",
        summary="A process runs, and does not show a measure that alerts are about.",
        conditions={TICKET: Condition("\nor ".join(map(_absent, shown)), "10m")},
        cases=_cases(shown),
    )


def _shown(series: str) -> tuple[str, str] | None:
    """Returns service and series of what is always shown, None of what is not."""
    name = re.sub(r"_(bucket|sum|count)$", "", series.removeprefix(PREFIX))
    measure = DECLARED.get(name)
    if measure is None or (measure.labels and measure.kind is not Kind.GAUGE):
        return None
    return measure.services[0], PREFIX + name + "_count" * (measure.kind is Kind.HISTOGRAM)


def _absent(shown: tuple[str, str]) -> str:
    job, series = shown
    return (
        f'label_replace(\n  absent({series}{{job="{job}"}}),\n  "measure", "{series}", "", ""\n'
        f') and on (job) up{{job="{job}"}} == 1'
    )


def _cases(shown: Sequence[tuple[str, str]]) -> Sequence[Case]:
    world = {
        **_ALL_UP,
        **{f'{series}{{job="{job}",instance="a"}}': "0x60" for job, series in shown},
    }
    job, gone = shown[0]
    without = {name: values for name, values in world.items() if not name.startswith(gone + "{")}
    # Nobody expects measures of a process that is away.
    away = {**without, f'up{{job="{job}",instance="a"}}': "0x60"}
    return (
        Case(without, "20m", (TICKET,), labels=({"job": job, "measure": gone},)),
        Case(world, "20m"),
        Case(away, "20m"),
    )
