"""The dashboard that shows whether the promise to users is kept."""

from deploy.observability.objectives import OBJECTIVES
from deploy.observability.panels import Board, Panel, Row, zero

__all__ = ["BOARD"]

_FAULTS = 'reelworks_generations_ended_total{fault!="user"'
_COMPLETION = "reelworks_completion_seconds"

BOARD = Board(
    "promise",
    "Reelworks: promise",
    "Whether users are charged exactly for what they got, and get what they were promised.",
    (
        Row(
            "Must be 0",
            (
                zero(
                    "Ledger violations",
                    "Sums that do not agree, found by the last verification of the whole ledger.",
                    "sum(max by (invariant) (reelworks_ledger_violations))",
                ),
                zero(
                    "Differences to the ledger",
                    "Generations that cost something else than the ledger says, parked included.",
                    "sum(max by (finding) (reelworks_reconciliation_findings))",
                ),
                zero(
                    "Overdue reservations",
                    "Open 5 minutes after they expired.",
                    "max(reelworks_reservations_overdue)",
                ),
                zero(
                    "Overdue generations",
                    "Open 5 minutes after their deadline.",
                    "max(reelworks_generations_overdue)",
                ),
                zero(
                    "Parked generations",
                    "Stopped, and waiting for an operator.",
                    'max(reelworks_generations{stage="PARKED"})',
                ),
                zero(
                    "Charged orphans, 24 h",
                    "Predictions that nobody used and that the provider bills.",
                    "sum(increase(reelworks_orphans_charged_total[1d]))",
                ),
            ),
        ),
        Row(
            "Targets, 24 h",
            (
                Panel(
                    "Success",
                    "Generations that ended with a video, without those that users canceled or "
                    "whose input was refused. Target: more than 95 %.",
                    (
                        (
                            (
                                f'sum(increase({_FAULTS},status="COMPLETED"}}[1d]))'
                                f" / sum(increase({_FAULTS}}}[1d]))"
                            ),
                            "",
                        ),
                    ),
                    "percentunit",
                    6,
                    "number",
                    red_below=0.95,
                ),
                Panel(
                    "Completed within 5 minutes",
                    "Of the videos, those that were there 5 minutes after the create. "
                    "Target: more than 95 %.",
                    (
                        (
                            (
                                f'sum(increase({_COMPLETION}_bucket{{le="300.0"}}[1d]))'
                                f" / sum(increase({_COMPLETION}_count[1d]))"
                            ),
                            "",
                        ),
                    ),
                    "percentunit",
                    6,
                    "number",
                    red_below=0.95,
                ),
                Panel(
                    "Webhooks that arrive",
                    "Predictions whose last webhook came within 90 s of their end, whoever told of "
                    "it first. Target: more than 99 %. Empty where none is asked for.",
                    (
                        (
                            (
                                "sum(increase(reelworks_terminal_webhooks_total"
                                '{timely="yes"}[1d]))'
                                " / sum(increase(reelworks_outcomes_total[1d]))"
                                " and max(reelworks_webhooks_asked) > 0"
                            ),
                            "",
                        ),
                    ),
                    "percentunit",
                    6,
                    "number",
                    red_below=0.99,
                ),
                Panel(
                    "Last verification of the ledger",
                    "How long ago; nightly is enough, more than 26 hours is not.",
                    (("time() - (max(reelworks_ledger_verified_timestamp) > 0)", ""),),
                    "dtdurations",
                    6,
                    "number",
                    red_above=26 * 3600,
                ),
            ),
        ),
        Row(
            "Budgets",
            (
                Panel(
                    "Burn, last hour",
                    "How fast each objective's budget of 30 days is used: at 1 it lasts exactly "
                    "so long, at 14.4 somebody is called.",
                    tuple(
                        (
                            (
                                f'objective:failures:ratio_rate1h{{objective="{one.name}"}}'
                                f" / {one.budget:g}"
                            ),
                            one.name.replace("_", " "),
                        )
                        for one in OBJECTIVES
                    ),
                    "none",
                    12,
                    red_above=14.4,
                ),
                Panel(
                    "Burn, last 3 days",
                    "The same over a long time: above 1 the objective will not be kept.",
                    tuple(
                        (
                            (
                                f'objective:failures:ratio_rate3d{{objective="{one.name}"}}'
                                f" / {one.budget:g}"
                            ),
                            one.name.replace("_", " "),
                        )
                        for one in OBJECTIVES
                    ),
                    "none",
                    12,
                    red_above=1,
                ),
            ),
        ),
        Row(
            "Money",
            (
                Panel(
                    "Credits that moved",
                    "By type of transaction, an hour.",
                    (
                        (
                            "sum by (type) (increase(reelworks_credits_moved_total[1h]))",
                            "{{type}}",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    "Reserved and unsettled",
                    "Credits that open reservations hold, and those of unfinished generations. "
                    "They differ while calls are under way, not for long.",
                    (
                        ("max(reelworks_reserved_credits)", "reserved, says credits"),
                        ("max(reelworks_unsettled_credits)", "unsettled, says generation"),
                    ),
                    width=8,
                ),
                Panel(
                    "Cost and earnings, 24 h",
                    "What the provider costs by the prices in the catalog, and what the credits "
                    "that were charged are sold for.",
                    (
                        (
                            "sum by (charged) (increase(reelworks_provider_dollars_total[1d]))",
                            "cost, charged to a user: {{charged}}",
                        ),
                        (
                            (
                                "sum(increase(reelworks_charged_credits_total[1d]))"
                                " * on () reelworks:dollars_per_credit"
                            ),
                            "earned",
                        ),
                    ),
                    "currencyUSD",
                    8,
                ),
                Panel(
                    "Charged and given back",
                    "Credits of generations that ended, an hour.",
                    (
                        ("sum(increase(reelworks_charged_credits_total[1h]))", "charged"),
                        (
                            "sum by (status) (increase(reelworks_refunded_credits_total[1h]))",
                            "given back, {{status}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Differences to the ledger",
                    "By what is wrong, as the last comparison found it.",
                    (
                        (
                            "max by (finding) (reelworks_reconciliation_findings) > 0",
                            "{{finding}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
    ),
)
