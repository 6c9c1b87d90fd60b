"""The dashboard that shows what the generation service has to do, and how the provider does it."""

from deploy.observability.panels import RATE, Board, Panel, Row, quantiles

__all__ = ["BOARD"]

_ENDED = "reelworks_generations_ended_total"
_COMPLETION = "reelworks_completion_seconds"
_OUTCOMES = "reelworks_outcomes_total"

BOARD = Board(
    "work",
    "Reelworks: work",
    "What the generation service has to do, and how the provider does it.",
    (
        Row(
            "Queue",
            (
                Panel(
                    "Waiting for",
                    "How long the oldest generation has waited to be submitted. From 10 minutes "
                    "on there is a ticket, from 30 on somebody is called.",
                    (("max(reelworks_ready_age_seconds)", "oldest"),),
                    "s",
                    red_above=600,
                ),
                Panel(
                    "Unfinished",
                    "Generations by stage.",
                    (("max by (stage) (reelworks_generations)", "{{stage}}"),),
                    kind="stacked",
                ),
                Panel(
                    "Submissions paused",
                    "1 while nothing is submitted to the provider.",
                    (("max(reelworks_submissions_paused)", "paused"),),
                    "none",
                    red_above=0.5,
                ),
                Panel(
                    "Created",
                    "Generations recorded a minute, by kind.",
                    (
                        (
                            f"sum by (kind) (rate(reelworks_generations_created_total{RATE})) * 60",
                            "{{kind}}",
                        ),
                    ),
                ),
                Panel(
                    "Ended",
                    "Generations a minute, by status and whose fault it was.",
                    (
                        (
                            f"sum by (status, fault) (rate({_ENDED}{RATE})) * 60",
                            "{{status}}, fault: {{fault}}",
                        ),
                    ),
                ),
                Panel(
                    "Why there was no video",
                    "Failures an hour, by code.",
                    (
                        (
                            f'sum by (code) (increase({_ENDED}{{status!="COMPLETED"}}[1h])) > 0',
                            "{{code}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Time",
            (
                quantiles(
                    "From create to video",
                    "Of generations that completed. The promise is 5 minutes.",
                    _COMPLETION,
                    limit=300,
                ),
                quantiles(
                    "From the provider's end to settled",
                    "The promise is 60 s.",
                    "reelworks_settle_seconds",
                    limit=60,
                ),
                Panel(
                    "Stages, nine of ten",
                    "How long generations were at a stage when they left it.",
                    (
                        (
                            (
                                "histogram_quantile(0.9, sum by (le, stage) "
                                f"(rate(reelworks_stage_seconds_bucket{RATE})))"
                            ),
                            "{{stage}}",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Left of the provider's hour",
                    "When videos were in our storage: the tenth with the least time left. "
                    "Below half an hour there is a ticket.",
                    (
                        (
                            (
                                "histogram_quantile(0.1, sum by (le) "
                                f"(rate(reelworks_archive_margin_seconds_bucket{RATE})))"
                            ),
                            "tenth",
                        ),
                    ),
                    "s",
                    red_below=1800,
                ),
                Panel(
                    "Estimates that held",
                    "Of the completed generations, by band: half should beat the likely time, "
                    "nine of ten the latest.",
                    (
                        (
                            (
                                'sum by (band) (increase(reelworks_eta_hits_total{hit="yes"}[1h]))'
                                " / sum by (band) (increase(reelworks_eta_hits_total[1h]))"
                            ),
                            "{{band}}",
                        ),
                    ),
                    "percentunit",
                ),
                Panel(
                    "Written at once",
                    "Commands in one database transaction: 99 of 100 have at most so many.",
                    (
                        (
                            (
                                "histogram_quantile(0.99, sum by (le, job) "
                                f"(rate(reelworks_batch_size_bucket{RATE})))"
                            ),
                            "{{job}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Provider",
            (
                Panel(
                    "Requests",
                    "To the provider, by how they ended.",
                    (
                        (
                            f"sum by (outcome) (rate(reelworks_provider_requests_total{RATE}))",
                            "{{outcome}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Failed requests",
                    "By what they were for.",
                    (
                        (
                            (
                                "sum by (operation) (rate(reelworks_provider_requests_total"
                                f'{{outcome=~"failed|unanswered|throttled"}}{RATE}))'
                            ),
                            "{{operation}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Billed work",
                    "Seconds of the provider's machines an hour, by model and whether a user pays.",
                    (
                        (
                            (
                                "sum by (model, charged) "
                                "(increase(reelworks_provider_seconds_total[1h]))"
                            ),
                            "{{model}}, charged: {{charged}}",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Who told first of the end",
                    "Webhooks should; polls are the second way, sweeps the third.",
                    ((f"sum by (source) (increase({_OUTCOMES}[1h]))", "{{source}}"),),
                    kind="stacked",
                    width=12,
                ),
                Panel(
                    "Orphans",
                    "Predictions that no generation uses and that still run.",
                    (("max(reelworks_orphans_live)", "live"),),
                    width=12,
                ),
            ),
        ),
    ),
)
