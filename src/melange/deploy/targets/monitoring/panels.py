"""The panels of the dashboard: the plan and the measurements, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from melange.deploy.targets.monitoring import queries

# Queries with their legends.
Lines = Sequence[tuple[str, str]]


def rows_of_panels() -> list[list[tuple[str, str, str, Lines]]]:
    """The panels, row by row: kind, title, unit, and the queries with their legends."""
    of_type = "{{type}}"
    return [
        [
            ("stat", "SLO attainment", "percentunit", [(queries.ATTAINMENT, "attainment"), (queries.TARGET, "target")]),
            ("stat", "Cost", "currencyUSD", [(queries.COST_PER_H, "now, per hour"), (queries.PLAN_COST_PER_H, "plan")]),
            ("stat", "Cost per million output tokens", "currencyUSD", [(queries.COST_PER_MTOK, "now")]),
            ("stat", "Requests", "reqps", [(queries.REQUESTS, "arriving")]),
        ],
        [
            (
                "timeseries",
                "Load against plan [replicas at the plan's maximum rate]",
                "short",
                [
                    (queries.LOAD, f"{of_type} load"),
                    (queries.PLANNED_LOAD, f"{of_type} planned"),
                    (queries.UP, f"{of_type} replicas up"),
                ],
            ),
            (
                "timeseries",
                "Shares of requests",
                "percentunit",
                [(queries.SHARE, f"{of_type} sent"), (queries.PLANNED_SHARE, f"{of_type} planned")],
            ),
        ],
        [
            (
                "timeseries",
                "SLO attainment by type",
                "percentunit",
                [(queries.ATTAINMENT_BY_TYPE, of_type), (queries.TARGET, "target")],
            ),
            (
                "timeseries",
                "SLO attainment by prompt size",
                "percentunit",
                [(queries.ATTAINMENT_BY_SIZE, "up to {{input_upto}} tokens"), (queries.TARGET, "target")],
            ),
        ],
        [
            (
                "timeseries",
                "Time to first token",
                "s",
                [(queries.TTFT_P50, f"{of_type} p50"), (queries.TTFT_P99, f"{of_type} p99")],
            ),
            ("timeseries", "Time per output token, p99", "s", [(queries.TPOT_P99, of_type)]),
            ("timeseries", "Latency, p99", "s", [(queries.LATENCY_P99, of_type)]),
        ],
        [
            (
                "timeseries",
                "Requests by prompt size",
                "reqps",
                [(queries.REQUESTS_BY_SIZE, "up to {{input_upto}} tokens")],
            ),
            (
                "timeseries",
                "Completions by length",
                "reqps",
                [(queries.COMPLETED_BY_OUTPUT, "up to {{output_upto}} tokens")],
            ),
        ],
        [
            (
                "timeseries",
                "Replicas up against plan",
                "short",
                [(queries.UP, f"{of_type} up"), (queries.PLANNED_REPLICAS, f"{of_type} planned")],
            ),
            ("timeseries", "Requests in flight", "short", [(queries.OUTSTANDING, of_type)]),
        ],
        [
            (
                "timeseries",
                "Cost per hour",
                "currencyUSD",
                [
                    (queries.COST_PER_H, "now"),
                    (queries.PLAN_COST_PER_H, "plan"),
                    (queries.REPLAN_COST_PER_H, "a plan for the live traffic"),
                ],
            ),
            ("timeseries", "Drift", "short", [(queries.DRIFT, "{{state}}")]),
        ],
        [
            ("timeseries", "Requests without an answer", "reqps", [(queries.UNSERVED, "{{reason}}")]),
            (
                "timeseries",
                "Failures, retries and ejections",
                "reqps",
                [
                    (queries.FAILURES, f"{of_type} failed"),
                    (queries.RETRIES, "retried"),
                    (queries.EJECTIONS, f"{of_type} ejected"),
                ],
            ),
        ],
    ]
