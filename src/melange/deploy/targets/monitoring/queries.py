"""Prometheus queries about a balancer, shared by the dashboard and the rules.

``SELECTOR`` stands for the labels that a user restricts all series to, ``RANGE`` for a time range. Values of several
balancers are summed. Values of the plan are the same on each balancer, so the maximum is used.
"""

from __future__ import annotations

SELECTOR, RANGE = "SELECTOR", "RANGE"


def _counted(name: str, by: str = "", labels: str = "") -> str:
    """Events per second of a counter."""
    inner = ",".join(filter(None, (labels, SELECTOR)))
    return f"sum{f' by ({by})' if by else ''} (rate(melange_{name}{{{inner}}}[{RANGE}]))"


def _planned(name: str, by: str = "type") -> str:
    """A value of the plan, which is the same on each balancer."""
    return f"max{f' by ({by})' if by else ''} (melange_{name}{{{SELECTOR}}})"


def _attainment(by: str = "") -> str:
    """Share of the requests that met every limit; by type or size, only served requests count."""
    if not by:
        met, judged = (_counted(f"slo_{what}_requests_total", labels='limit="all"') for what in ("met", "judged"))
    else:
        met, judged = (_counted(f"slo_type_{what}_requests_total", by) for what in ("met", "judged"))
    return f"{met} / {judged}"


def _quantile(quantile: float, name: str) -> str:
    return f"histogram_quantile({quantile:g}, {_counted(f'{name}_seconds_bucket', 'le, type')})"


REQUESTS = _counted("arrived_requests_total")
REQUESTS_BY_SIZE = _counted("arrived_requests_total", "input_upto")
COMPLETED_BY_OUTPUT = _counted("completed_requests_total", "output_upto")
OUTPUT_TOKENS = _counted("output_tokens_total")
UNSERVED = _counted("unserved_requests_total", "reason")
MISSED = _counted("unserved_requests_total", labels='reason=~"busy|none_up|failed"')
RETRIES, EJECTIONS = _counted("retries_total"), _counted("replica_ejections_total", "type")
FAILURES = _counted("replica_failures_total", "type")
ATTAINMENT = _attainment()
ATTAINMENT_BY_TYPE, ATTAINMENT_BY_SIZE = _attainment("type"), _attainment("input_upto")
JUDGED_BY_TYPE = _counted("slo_type_judged_requests_total", "type")
TARGET = f"scalar({_planned('slo_target', '')})"
SHARE = f"{_counted('sent_requests_total', 'type')} / ignoring(type) group_left {_counted('sent_requests_total')}"
PLANNED_SHARE = _planned("planned_share")
LOAD, PLANNED_LOAD = f"sum by (type) (melange_load{{{SELECTOR}}})", _planned("planned_load")
# A replica counts as the share of processes, over all balancers, that consider it up.
UP = f"sum by (type) (avg by (type, url) (melange_replica_up{{{SELECTOR}}}))"
PLANNED_REPLICAS = _planned("planned_replicas")
OUTSTANDING = f"sum by (type) (melange_replica_outstanding{{{SELECTOR}}})"
COST_PER_H = f"sum ({UP} * {_planned('replica_cost_usd_per_hour')})"
PLAN_COST_PER_H = _planned("plan_cost_usd_per_hour", "")
REPLAN_COST_PER_H = _planned("replan_cost_usd_per_hour", "")
COST_PER_MTOK = f"{COST_PER_H} / ({OUTPUT_TOKENS} * 3600 / 1e6)"
DRIFT = _planned("drift_state", "state")
DRIFT_CHECKED = _planned("drift_checked_timestamp_seconds", "")
TTFT_P50, TTFT_P99 = _quantile(0.5, "ttft"), _quantile(0.99, "ttft")
TPOT_P99, LATENCY_P99 = _quantile(0.99, "tpot"), _quantile(0.99, "latency")


def asked(query: str, selector: str, length: str) -> str:
    """A query for the given labels and time range.

    >>> asked(OUTPUT_TOKENS, 'job="chat"', "5m")
    'sum (rate(melange_output_tokens_total{job="chat"}[5m]))'
    """
    return query.replace(SELECTOR, selector).replace(RANGE, length).replace(",}", "}")
