"""The dashboard that shows the processes themselves."""

from deploy.observability.panels import RATE, Board, Panel, Row

__all__ = ["BOARD"]

SERVICES = "credits|generation|webhook|web"
_POOL_SHARE = """\
max by (job, pool) (
  reelworks_database_pool_in_use / reelworks_database_pool_size
)"""
_LEFT = "min by (job) (reelworks_certificate_{}_timestamp > 0) - time()"

BOARD = Board(
    "services",
    "Reelworks: services",
    "The processes themselves: calls between them, databases, memory.",
    (
        Row(
            "Processes",
            (
                Panel(
                    "Reachable",
                    "Processes that Prometheus can read.",
                    ((f'sum by (job) (up{{job=~"{SERVICES}"}})', "{{job}}"),),
                    "none",
                    5,
                ),
                Panel(
                    "Memory",
                    "Resident, of the largest process of a service.",
                    (
                        (
                            f'max by (job) (process_resident_memory_bytes{{job=~"{SERVICES}"}})',
                            "{{job}}",
                        ),
                    ),
                    "bytes",
                    5,
                ),
                Panel(
                    "Processor",
                    "Cores in use by the busiest process of a service.",
                    (
                        (
                            (
                                "max by (job) (rate(process_cpu_seconds_total"
                                f'{{job=~"{SERVICES}"}}{RATE}))'
                            ),
                            "{{job}}",
                        ),
                    ),
                    "none",
                    5,
                    red_above=0.9,
                ),
                Panel(
                    "Database connections",
                    "In use, as a share of its pool, where that is greatest: 1 is all of it.",
                    ((_POOL_SHARE, "{{job}} {{pool}}"),),
                    "percentunit",
                    5,
                    red_above=1,
                ),
                Panel(
                    "Certificates",
                    "Until the first of a service expires, and until it should be replaced.",
                    (
                        (_LEFT.format("expires"), "{{job}} expires"),
                        (_LEFT.format("late"), "{{job}} is late"),
                    ),
                    "dtdurations",
                    4,
                    red_below=0,
                ),
            ),
        ),
        Row(
            "Calls answered",
            (
                Panel(
                    "Rate",
                    "By gRPC service.",
                    (
                        (
                            f"sum by (service) (rate(reelworks_rpc_server_seconds_count{RATE}))",
                            "{{service}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Failures",
                    "Calls that were not answered with OK, by status.",
                    (
                        (
                            (
                                "sum by (service, code) (rate(reelworks_rpc_server_seconds_count"
                                f'{{code!="OK"}}{RATE}))'
                            ),
                            "{{service}} {{code}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "99 of 100 within",
                    "By method; streams left out.",
                    (
                        (
                            (
                                "histogram_quantile(0.99, sum by (le, method) "
                                "(rate(reelworks_rpc_server_seconds_bucket"
                                f'{{method!~"Watch.*"}}{RATE})))'
                            ),
                            "{{method}}",
                        ),
                    ),
                    "s",
                ),
            ),
        ),
        Row(
            "Calls made",
            (
                Panel(
                    "Rate",
                    "By who calls and whom.",
                    (
                        (
                            (
                                "sum by (job, service) "
                                f"(rate(reelworks_rpc_client_seconds_count{RATE}))"
                            ),
                            "{{job}} → {{service}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Failures",
                    "Calls that did not end with OK, by status.",
                    (
                        (
                            (
                                "sum by (job, service, code) "
                                "(rate(reelworks_rpc_client_seconds_count"
                                f'{{code!="OK"}}{RATE}))'
                            ),
                            "{{job}} → {{service}} {{code}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "99 of 100 within",
                    "By who calls and which method; streams left out.",
                    (
                        (
                            (
                                "histogram_quantile(0.99, sum by (le, job, method) "
                                "(rate(reelworks_rpc_client_seconds_bucket"
                                f'{{method!~"Watch.*"}}{RATE})))'
                            ),
                            "{{job}} → {{method}}",
                        ),
                    ),
                    "s",
                ),
            ),
        ),
        Row(
            "Eyes",
            (
                Panel(
                    "Age of the figures",
                    "How long ago a service read from its database what its gauges say.",
                    (
                        (
                            "time() - (max by (job) (reelworks_figures_read_timestamp) > 0)",
                            "{{job}}",
                        ),
                    ),
                    "s",
                    12,
                    red_above=120,
                ),
                Panel(
                    "Age of the last comparison",
                    "How long ago generations were compared with the ledger.",
                    (("time() - (max(reelworks_reconciled_timestamp) > 0)", "comparison"),),
                    "s",
                    12,
                    red_above=1800,
                ),
            ),
        ),
    ),
)
