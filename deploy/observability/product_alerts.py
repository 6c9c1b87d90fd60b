"""Alerts about money, generations and the provider; most of them bear nothing at all."""

from deploy.observability.alerting import Alert, Case, Condition, Severity

__all__ = ["ALERTS"]

PAGE, TICKET = Severity.PAGE, Severity.TICKET

_DIFFERENT = (
    "CHARGED_WITHOUT_VIDEO|NOT_PAID|NOT_CHARGED|NOT_COMMITTED|NOT_REFUNDED|PARKED_UNRESERVED"
)
_UNCLEAR = "UNMATCHED|UNREADABLE"
_FINDING = "reelworks_reconciliation_findings"
_OVERDUE = "reelworks_generations_overdue"
_PARKED = 'reelworks_generations{stage="PARKED"}'
_REQUESTS = "reelworks_provider_requests_total"
_FAILED = f'{_REQUESTS}{{outcome=~"failed|unanswered"}}'
_COST = "sum(increase(reelworks_provider_dollars_total[1d]))"
_MODEL = 'model="t2v-14B"'

_MONEY = (
    Alert(
        name="LedgerViolated",
        job="credits",
        summary="The ledger does not agree with itself.",
        conditions={PAGE: Condition("max by (invariant) (reelworks_ledger_violations) > 0")},
        cases=(
            Case(
                {
                    'reelworks_ledger_violations{invariant="I1",instance="a"}': "0x5 1x5",
                    'reelworks_ledger_violations{invariant="I1",instance="b"}': "0x10",
                    'reelworks_ledger_violations{invariant="I2",instance="a"}': "0x10",
                },
                "8m",
                (PAGE,),
                labels=({"invariant": "I1"},),
            ),
            Case({'reelworks_ledger_violations{invariant="I1"}': "0x10"}, "8m"),
        ),
    ),
    Alert(
        name="ReservationsOverdue",
        job="credits",
        summary="Credits are still reserved 5 minutes after their reservation expired.",
        conditions={PAGE: Condition("max(reelworks_reservations_overdue) > 0")},
        cases=(
            Case({"reelworks_reservations_overdue": "0x5 2x5"}, "8m", (PAGE,)),
            Case({"reelworks_reservations_overdue": "0x10"}, "8m"),
        ),
    ),
    Alert(
        name="GenerationsAndLedgerDiffer",
        job="generation",
        summary="What generations cost and what the ledger says of it are not the same.",
        conditions={
            PAGE: Condition(f'max by (finding) ({_FINDING}{{finding=~\n  "{_DIFFERENT}"}}) > 0'),
            TICKET: Condition(f'max by (finding) ({_FINDING}{{finding=~"{_UNCLEAR}"}}) > 0'),
        },
        cases=(
            Case(
                {f'{_FINDING}{{finding="NOT_PAID"}}': "0x5 1x5"},
                "8m",
                (PAGE,),
                labels=({"finding": "NOT_PAID"},),
            ),
            Case(
                {f'{_FINDING}{{finding="UNMATCHED"}}': "0x5 1x5"},
                "8m",
                (TICKET,),
                labels=({"finding": "UNMATCHED"},),
            ),
            Case(
                {
                    f'{_FINDING}{{finding="NOT_PAID"}}': "0x10",
                    f'{_FINDING}{{finding="UNMATCHED"}}': "0x10",
                    # What is parked has an alert of its own.
                    f'{_FINDING}{{finding="PARKED"}}': "1x10",
                },
                "8m",
            ),
        ),
    ),
    Alert(
        name="OrphanCharged",
        job="generation",
        summary="The provider bills a prediction that no generation used.",
        conditions={PAGE: Condition("sum(increase(reelworks_orphans_charged_total[1h])) > 0")},
        cases=(
            Case({"reelworks_orphans_charged_total": "0x20 1x20"}, "30m", (PAGE,)),
            Case({"reelworks_orphans_charged_total": "3x120"}, "100m"),
        ),
    ),
    Alert(
        name="ProviderCostAboveEarnings",
        job="generation",
        summary="In a day the provider cost more than the credits that were charged are worth.",
        conditions={
            PAGE: Condition(
                f"{_COST}\n"
                "> (sum(increase(reelworks_charged_credits_total[1d])) or vector(0))\n"
                "  * reelworks:dollars_per_credit\n"
                # What a day of almost nothing costs is no news.
                f"and {_COST} > 5",
                "15m",
            )
        },
        cases=(
            Case(
                {
                    f'reelworks_provider_dollars_total{{{_MODEL},charged="yes"}}': "0+0.5x120",
                    f'reelworks_provider_dollars_total{{{_MODEL},charged="no"}}': "0+0.6x120",
                    f"reelworks_charged_credits_total{{{_MODEL}}}": "0+10x120",
                },
                "100m",
                (PAGE,),
            ),
            Case(
                {
                    f'reelworks_provider_dollars_total{{{_MODEL},charged="yes"}}': "0+0.5x120",
                    f'reelworks_provider_dollars_total{{{_MODEL},charged="no"}}': "0+0.1x120",
                    f"reelworks_charged_credits_total{{{_MODEL}}}": "0+10x120",
                },
                "100m",
            ),
        ),
    ),
)

_WORK = (
    Alert(
        name="GenerationsOverdue",
        job="generation",
        summary="A generation is open although it should have ended.",
        conditions={
            PAGE: Condition(f'max({_OVERDUE}) > 0\nor max({_FINDING}{{finding="OVERDUE"}}) > 0')
        },
        cases=(
            Case({_OVERDUE: "0x5 1x5"}, "8m", (PAGE,)),
            Case({_OVERDUE: "0x10", f'{_FINDING}{{finding="OVERDUE"}}': "0x5 1x5"}, "8m", (PAGE,)),
            Case({_OVERDUE: "0x10", f'{_FINDING}{{finding="OVERDUE"}}': "0x10"}, "8m"),
        ),
    ),
    Alert(
        name="GenerationsParked",
        job="generation",
        summary="A generation stopped, and waits for an operator.",
        conditions={PAGE: Condition(f"max({_PARKED}) > 0")},
        cases=(
            Case({_PARKED: "0x5 1x5"}, "8m", (PAGE,)),
            Case({_PARKED: "0x10", 'reelworks_generations{stage="READY"}': "9x10"}, "8m"),
        ),
    ),
    Alert(
        name="QueueOld",
        job="generation",
        summary="Generations wait long to be submitted to the provider.",
        conditions={
            PAGE: Condition("max(reelworks_ready_age_seconds) > 1800", "1m"),
            TICKET: Condition("max(reelworks_ready_age_seconds) > 600", "5m"),
        },
        cases=(
            Case({"reelworks_ready_age_seconds": "0+60x60"}, "35m", (PAGE, TICKET)),
            Case({"reelworks_ready_age_seconds": "0+60x60"}, "20m", (TICKET,)),
            Case({"reelworks_ready_age_seconds": "500x60"}, "35m"),
        ),
    ),
    Alert(
        name="SubmissionsPaused",
        job="generation",
        summary="Nothing is submitted to the provider any more.",
        conditions={PAGE: Condition("max(reelworks_submissions_paused) > 0", "10m")},
        cases=(
            Case({"reelworks_submissions_paused": "0x5 1x20"}, "20m", (PAGE,)),
            # A provider that throttles us pauses it for seconds.
            Case({"reelworks_submissions_paused": "0x5 1x3 0x20"}, "20m"),
        ),
    ),
    Alert(
        name="ProviderFails",
        job="generation",
        summary="More than a fifth of the requests to the provider fail.",
        conditions={
            TICKET: Condition(
                f"sum(rate({_FAILED}[10m]))\n/ sum(rate({_REQUESTS}[10m])) > 0.2\n"
                f"and sum(increase({_FAILED}[10m])) >= 10",
                "5m",
            )
        },
        cases=(
            Case(
                {
                    f'{_REQUESTS}{{operation="get",outcome="unanswered"}}': "0+30x30",
                    f'{_REQUESTS}{{operation="get",outcome="ok"}}': "0+70x30",
                },
                "25m",
                (TICKET,),
            ),
            Case(
                {
                    f'{_REQUESTS}{{operation="get",outcome="unanswered"}}': "0+10x30",
                    f'{_REQUESTS}{{operation="get",outcome="ok"}}': "0+90x30",
                },
                "25m",
            ),
        ),
    ),
    Alert(
        name="ArchiveLate",
        job="generation",
        summary="A video was saved after more than half of the hour for which the provider has it.",
        conditions={
            TICKET: Condition(
                'sum(increase(reelworks_archive_margin_seconds_bucket{le="1800.0"}[1h])) > 0'
            )
        },
        cases=(
            Case(
                {'reelworks_archive_margin_seconds_bucket{le="1800.0"}': "0x20 1x20"},
                "30m",
                (TICKET,),
            ),
            Case({'reelworks_archive_margin_seconds_bucket{le="1800.0"}': "1x120"}, "100m"),
        ),
    ),
)

ALERTS = (*_MONEY, *_WORK)
