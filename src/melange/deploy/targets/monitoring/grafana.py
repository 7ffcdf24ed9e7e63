"""Grafana and Prometheus: a dashboard that compares the plan with measurements, and its alerts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from melange.deploy.as_yaml import yaml_text
from melange.deploy.heading import comments, heading_of, one_line
from melange.deploy.manifest import Manifest
from melange.deploy.target import Target, option
from melange.deploy.targets.monitoring.alert_rules import rules_of
from melange.deploy.targets.monitoring.panels import Lines, rows_of_panels
from melange.deploy.targets.monitoring.queries import asked
from melange.errors import InputError
from melange.plan.plan import Plan

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_SELECTOR = re.compile(r'([A-Za-z_]\w*(=|!=|=~|!~)"[^"\\\n{}$]*"(,(?=.)|$))*')
_ABOUT = """\
Alert rules of {name} on the metrics of melange balance (/metrics). Load them with rule_files in prometheus.yml, and
dashboard.json with Grafana's import. Scrape every balancer by its own address, not through a Service that chooses one.
"""
# Grafana 10 and newer read this version of the dashboard schema.
_SCHEMA = 39
_WIDTH = 24
_Panel = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrafanaOptions:
    """Options of the dashboard and the rules.

    Parameters
    ----------
    name
        Name of the service; None: from the model's name.
    selector
        Labels of its series in PromQL syntax; empty: all balancers that Prometheus knows.
    """

    name: str | None = option(None, "What the service is called; null: from the model's name.")
    selector: str = option("", 'Labels of its balancers in Prometheus: job="chat".')

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise InputError(f"name must be lower-case letters, digits and dashes, at most 40, got {self.name!r}")
        if not _SELECTOR.fullmatch(self.selector):
            raise InputError(
                f"selector must be labels of Prometheus, got {self.selector!r}", hint='for example job="chat"'
            )


def _render(plan: Plan, options: GrafanaOptions, written: date) -> Manifest:
    name = options.name or _slug(plan.model)
    heading = comments([*heading_of(plan, written), _ABOUT.format(name=name)])
    rules = yaml_text([rules_of(name, options.selector)])
    dashboard = json.dumps(dashboard_of(name, options.selector, plan), indent=1)
    return Manifest(target="grafana", files={"rules.yaml": f"{heading}\n\n{rules}", "dashboard.json": f"{dashboard}\n"})


def _slug(model: str) -> str:
    found = re.sub(r"[^a-z0-9]+", "-", model.rpartition("/")[2].lower()).strip("-")[:32].strip("-")
    return found if found[:1].isalpha() else f"llm-{found}".rstrip("-")


def dashboard_of(name: str, selector: str, plan: Plan) -> dict[str, Any]:
    """The dashboard of a service."""
    panels: list[_Panel] = []
    for row in rows_of_panels():
        width = _WIDTH // len(row)
        top = panels[-1]["gridPos"]["y"] + panels[-1]["gridPos"]["h"] if panels else 0
        for k, (kind, title, unit, lines) in enumerate(row):
            place = {"x": k * width, "y": top, "w": width, "h": 4 if kind == "stat" else 8}
            panels.append(_panel(len(panels) + 1, kind, title, unit, lines, place, selector))
    about = f"Plan {plan.fingerprint}: {plan.cost_per_h:.2f} USD/h, SLO {plan.slo or 'not named'}"
    return {
        "uid": f"melange-{name}",
        "title": f"Melange: {name}",
        "description": one_line(about),
        "tags": ["melange"],
        "timezone": "browser",
        "schemaVersion": _SCHEMA,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "panels": panels,
    }


def _panel(number: int, kind: str, title: str, unit: str, lines: Lines, place: dict[str, int], selector: str) -> _Panel:
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {
            "refId": chr(ord("A") + k),
            "datasource": source,
            "expr": asked(query, selector, "$__rate_interval"),
            "legendFormat": legend,
            "range": True,
        }
        for k, (query, legend) in enumerate(lines)
    ]
    limits = {"min": 0, **({"max": 1} if unit == "percentunit" else {})}
    return {
        "id": number,
        "type": kind,
        "title": title,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, **limits}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
        if kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "textMode": "value_and_name"},
        "targets": targets,
    }


TARGET = Target(
    name="grafana",
    about="A Grafana dashboard of plan against reality, and Prometheus alert rules, on melange balance's metrics.",
    options=GrafanaOptions,
    render=_render,
)
