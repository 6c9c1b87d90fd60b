"""What is promised over 30 days, and the alerts that ring when it is used up too fast.

An objective allows a share of failures, its budget. Burnt at speed 1, nothing of it is left after
the 30 days; at 14.4, a fiftieth is gone in an hour. Each alert looks at two windows at once: the
long one says that it matters, the short one that it still happens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.observability.alerting import Alert, Case, Condition, Severity

__all__ = ["BURNS", "OBJECTIVES", "WINDOWS", "Burn", "Objective", "alert", "recordings"]

FAILURES_MIN = 5
"""So many in the long window at the least: a failure or two at night call nobody."""

MINUTES = 360
"""How long the worlds of the test cases last."""
CALLS_A_MINUTE = 100_000


@dataclass(frozen=True, slots=True)
class Burn:
    """A speed of using up the budget that calls somebody."""

    factor: float
    long: str
    long_s: int
    short: str
    severity: Severity


BURNS = (
    Burn(14.4, "1h", 3_600, "5m", Severity.PAGE),
    Burn(6, "6h", 21_600, "30m", Severity.PAGE),
    Burn(3, "1d", 86_400, "2h", Severity.TICKET),
    Burn(1, "3d", 259_200, "6h", Severity.TICKET),
)
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise about a share of what happens."""

    name: str
    alert: str
    job: str
    summary: str
    """What is so while the alert rings."""
    target: float
    """The share that must be good."""
    failures: str
    """PromQL of what failed a second, with WINDOW for the window."""
    events: str
    """Of all that happened a second."""
    bad: Sequence[str]
    """Series that grow with each failure, for the tests."""
    good: Sequence[str]
    """Series that grow with each success."""

    @property
    def budget(self) -> float:
        """The share that may fail."""
        return round(1 - self.target, 6)


def _slow(metric: str, limit_s: float, labels: str = "") -> dict[str, str | Sequence[str]]:
    """Returns what an objective asks of a histogram: that it stays under a bucket's bound."""
    inner = f"{{{labels}}}" if labels else ""
    bucket = f'{metric}_bucket{{{labels + "," if labels else ""}le="{limit_s}"}}'
    events = f"sum(rate({metric}_count{inner}[WINDOW]))"
    return {
        "events": events,
        "failures": f"{events}\n- sum(rate({bucket}[WINDOW]))",
        "bad": [f"{metric}_count{inner}"],
        "good": [f"{metric}_count{inner}", bucket],
    }


_OUR_FAULT = "INTERNAL|UNKNOWN|DATA_LOSS|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED"
# A stream of balances ends with UNAVAILABLE whenever a server leaves, as its contract says.
_CREDITS_CALLS = 'service="CreditsService",method!="WatchBalance"'
_RESERVE = 'reelworks_rpc_server_seconds_count{service="CreditsService",method="Reserve",code='
_ENDED = "reelworks_generations_ended_total"

OBJECTIVES = (
    Objective(
        name="credits_calls",
        alert="CreditsCallsFail",
        job="credits",
        summary="Too many calls of the credits service fail by our fault.",
        target=0.9995,
        failures=(
            f"sum(rate(reelworks_rpc_server_seconds_count{{{_CREDITS_CALLS},\n"
            f'  code=~"{_OUR_FAULT}"}}[WINDOW])) or vector(0)'
        ),
        events=f"sum(rate(reelworks_rpc_server_seconds_count{{{_CREDITS_CALLS}}}[WINDOW]))",
        bad=[_RESERVE + '"UNAVAILABLE"}'],
        # A refusal is a good answer.
        good=[_RESERVE + '"FAILED_PRECONDITION"}'],
    ),
    Objective(
        name="reserve_under_50_ms",
        alert="ReserveSlow",
        job="credits",
        summary="Too many calls of Reserve take longer than 50 ms.",
        target=0.99,
        **_slow(  # type: ignore[arg-type]  # The names are those of the fields.
            "reelworks_rpc_server_seconds", 0.05, 'service="CreditsService",method="Reserve"'
        ),
    ),
    Objective(
        name="settled_within_60_s",
        alert="SettlementSlow",
        job="generation",
        summary="Too many predictions wait longer than a minute after their end to be settled.",
        target=0.999,
        **_slow("reelworks_settle_seconds", 60.0),  # type: ignore[arg-type]  # As above.
    ),
    Objective(
        name="shown_within_2_s",
        alert="BrowserEventsSlow",
        job="web",
        summary="Too many changes reach browsers later than 2 s after they were written.",
        target=0.99,
        **_slow("reelworks_sse_event_age_seconds", 2.0),  # type: ignore[arg-type]  # As above.
    ),
    Objective(
        name="webhook_answered_within_1_s",
        alert="WebhookAnswersSlow",
        job="webhook",
        summary="Too many webhooks are acknowledged later than after 1 s, or not for our sake.",
        target=0.999,
        failures=(
            "sum(rate(reelworks_webhook_ack_seconds_count[WINDOW]))\n"
            '- sum(rate(reelworks_webhook_ack_seconds_bucket{le="1.0"}[WINDOW]))\n'
            '+ (sum(rate(reelworks_webhook_requests_total{answer=~"5.."}[WINDOW])) or vector(0))'
        ),
        events=(
            "sum(rate(reelworks_webhook_ack_seconds_count[WINDOW]))\n"
            '+ (sum(rate(reelworks_webhook_requests_total{answer=~"5.."}[WINDOW])) or vector(0))'
        ),
        bad=['reelworks_webhook_requests_total{answer="503"}'],
        good=[
            "reelworks_webhook_ack_seconds_count",
            'reelworks_webhook_ack_seconds_bucket{le="1.0"}',
        ],
    ),
    Objective(
        name="generations_succeed",
        alert="GenerationsFail",
        job="generation",
        summary="Too many generations end without a video, by no fault of their users.",
        target=0.95,
        failures=(f'sum(rate({_ENDED}{{fault!="user",status!="COMPLETED"}}[WINDOW])) or vector(0)'),
        events=f'sum(rate({_ENDED}{{fault!="user"}}[WINDOW]))',
        bad=[f'{_ENDED}{{status="FAILED",code="MODEL_FAILED",fault="provider"}}'],
        good=[f'{_ENDED}{{status="COMPLETED",code="none",fault="none"}}'],
    ),
    Objective(
        name="completed_within_5_min",
        alert="GenerationsSlow",
        job="generation",
        summary="Too many videos are there later than 5 minutes after they were asked for.",
        target=0.95,
        **_slow("reelworks_completion_seconds", 300.0),  # type: ignore[arg-type]  # As above.
    ),
)


def recordings(objective: Objective) -> list[tuple[str, str]]:
    """Returns (record, expression) of each window's share of failures, and of their number."""
    found = []
    for window in WINDOWS:
        failures = objective.failures.replace("WINDOW", window)
        events = objective.events.replace("WINDOW", window)
        ratio = f"({_indented(failures)})\n/\n({_indented(events)} > 0)"
        found.append((f"objective:failures:ratio_rate{window}", ratio))
    for burn in BURNS:
        failures = objective.failures.replace("WINDOW", burn.long)
        number = f"({_indented(failures)}) * {burn.long_s}"
        found.append((f"objective:failures:increase{burn.long}", number))
    return found


def alert(objective: Objective) -> Alert:
    """Returns the alert of an objective."""
    return Alert(
        name=objective.alert,
        job=objective.job,
        summary=objective.summary,
        conditions={
            severity: Condition(
                "\nor\n".join(
                    _burning(objective, burn) for burn in BURNS if burn.severity is severity
                )
            )
            for severity in Severity
        },
        cases=_cases(objective),
        labels={"objective": objective.name},
    )


def _burning(objective: Objective, burn: Burn) -> str:
    chosen = f'{{objective="{objective.name}"}}'
    limit = f"{burn.factor:g} * {objective.budget:g}"
    return (
        f"(\n  objective:failures:ratio_rate{burn.long}{chosen} > {limit}\n"
        f"  and objective:failures:ratio_rate{burn.short}{chosen} > {limit}\n"
        f"  and objective:failures:increase{burn.long}{chosen} >= {FAILURES_MIN}\n)"
    )


def _cases(objective: Objective) -> Sequence[Case]:
    # Where the budget is a twentieth, nothing can burn faster than 20 times.
    fastest = min(40.0, 0.9 / objective.budget)
    both, at_work = (Severity.PAGE, Severity.TICKET), (Severity.TICKET,)
    return (
        Case(_world(objective, fastest), "1h", both),
        Case(_world(objective, 7), "6h", both),
        Case(_world(objective, 4), "6h", at_work),
        Case(_world(objective, 1.2), "6h", at_work),
        Case(_world(objective, 0.8), "6h"),
        # It is over for an hour: nobody is called at night for what was.
        Case(_world(objective, fastest, until=120), "3h", at_work),
        # All fails, but there is nearly nothing.
        Case(dict.fromkeys(objective.bad, "0x30 1x30 2x30 3x270"), "2h"),
    )


def _world(objective: Objective, burn: float, until: int = MINUTES) -> Mapping[str, str]:
    """Returns series whose failures burn so fast for so many minutes, and then not at all."""
    failing = round(CALLS_A_MINUTE * objective.budget * burn)
    series: dict[str, str] = {}
    for name in {*objective.bad, *objective.good}:
        before = failing * (name in objective.bad)
        before += (CALLS_A_MINUTE - failing) * (name in objective.good)
        after = CALLS_A_MINUTE * (name in objective.good)
        rest = f" {before * until + after}+{after}x{MINUTES - until - 1}" if until < MINUTES else ""
        series[name] = f"0+{before}x{until}{rest}"
    return dict(sorted(series.items()))


def _indented(expression: str) -> str:
    """Returns an expression that stands in parentheses, further in if it has lines."""
    if "\n" not in expression and " or " not in expression:
        return expression
    return "\n  " + expression.replace("\n", "\n  ") + "\n"
