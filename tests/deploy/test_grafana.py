"""The dashboard and the rules: every metric exists, Prometheus takes every query, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from deploy_cases import two_types

from melange.deploy.manifest import Manifest
from melange.deploy.render import render
from melange.errors import InputError

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
HOSTILE = '"}) or vector(1) #'


@pytest.fixture
def manifest() -> Manifest:
    """The files of a small plan."""
    return render(two_types(), "grafana", selector='job="chat"')


def expressions(manifest: Manifest) -> dict[str, str]:
    """Every query by where it is."""
    groups = yaml.safe_load(manifest.files["rules.yaml"])["groups"]
    found = {rule.get("alert") or rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}
    for panel in json.loads(manifest.files["dashboard.json"])["panels"]:
        found |= {f"{panel['title']} {one['refId']}": one["expr"] for one in panel["targets"]}
    return found


def promtool(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run promtool in a folder."""
    return subprocess.run([str(PROMTOOL), *words], cwd=folder, capture_output=True, text=True, timeout=60)


def test_every_metric_exists_in_a_balancers_answer(manifest: Manifest) -> None:
    """Of the names in the queries; the recorded ones are the rules' own."""
    from balance_cases import small_plan

    from melange.deploy.addresses import addresses_of
    from melange.deploy.live import exposition
    from melange.deploy.live.balancer import Balancer
    from melange.deploy.live.counters import Counters
    from melange.deploy.live.settings import BalancerSettings

    plan = small_plan()
    counters = Counters(1, 2, *plan.workload.buckets.shape)
    balancer = Balancer(plan, BalancerSettings(), counters, 0)
    balancer.list_replicas(addresses_of([("", "L4=http://a:1"), ("", "A100=http://b:1")], plan))
    counters.table[0] = 1.0
    text = exposition.metrics_text(balancer, counters)
    there = set(re.findall(r"^(melange_\w+)", text, re.MULTILINE))
    asked = {name for expr in expressions(manifest).values() for name in re.findall(r"melange_\w+", expr)}
    assert len(asked) > 20
    assert asked - there == set()


def test_every_series_has_the_users_labels(manifest: Manifest) -> None:
    """No query reads balancers of somebody else."""
    for place, expr in expressions(manifest).items():
        for labels in re.findall(r"melange_\w+\{([^}]*)\}", expr):
            assert 'job="chat"' in labels, place
        assert len(re.findall(r"melange_\w+", expr)) == len(re.findall(r"melange_\w+\{", expr)), place


@needs_promtool
def test_prometheus_takes_every_rule_and_query(manifest: Manifest, tmp_path: Path) -> None:
    """The dashboard's too, as rules; a spoilt copy is refused."""
    manifest.write(tmp_path)
    found = promtool(tmp_path, "check", "rules", "rules.yaml")
    assert found.returncode == 0, found.stderr
    asked = [one.replace("$__rate_interval", "5m") for one in expressions(manifest).values()]
    rules = [{"record": f"test:query{k}", "expr": expr} for k, expr in enumerate(asked)]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    found = promtool(tmp_path, "check", "rules", "queries.yaml")
    assert found.returncode == 0, found.stderr
    (tmp_path / "spoilt.yaml").write_text((tmp_path / "rules.yaml").read_text().replace("sum (rate(", "sum (rote(", 1))
    assert promtool(tmp_path, "check", "rules", "spoilt.yaml").returncode != 0


SERIES = """
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'melange_slo_judged_requests_total{limit="all", job="chat"}', values: '0+600x400'}
      - {series: 'melange_slo_met_requests_total{limit="all", job="chat"}', values: '0+MET x400'}
      - {series: 'melange_slo_target{job="chat"}', values: '0.99x400'}
      - {series: 'melange_drift_state{state="short", job="chat"}', values: 'DRIFT x400'}
      - {series: 'melange_load{type="L4", job="chat"}', values: 'LOAD x400'}
      - {series: 'melange_replica_up{type="L4", url="http://a", job="chat"}', values: '1x400'}
      - {series: 'melange_replica_up{type="L4", url="http://b", job="chat"}', values: '0.5x400'}
      - {series: 'melange_planned_replicas{type="L4", job="chat"}', values: '2x400'}
    alert_rule_test:
"""
ALERTS = ("MelangeSloBurnFast", "MelangeSloBurnSlow", "MelangePlanStale", "MelangeTypeOverloaded")


@pytest.mark.heavy
@needs_promtool
@pytest.mark.parametrize(
    ("met", "drift", "load", "fires"),
    [
        (598, 0, 1.4, set()),
        (480, 0, 1.4, {"MelangeSloBurnFast", "MelangeSloBurnSlow"}),
        (555, 0, 1.4, {"MelangeSloBurnSlow"}),
        (598, 1, 1.6, {"MelangePlanStale", "MelangeTypeOverloaded"}),
    ],
)
def test_alerts_fire_when_they_should(
    met: int, drift: int, load: float, fires: set[str], manifest: Manifest, tmp_path: Path
) -> None:
    """The budget burning fast or slowly, a plan that is short, a type with too much load; and none of them."""
    manifest.write(tmp_path)
    rules = {
        rule["alert"]: rule
        for group in yaml.safe_load(manifest.files["rules.yaml"])["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    series = SERIES.replace("MET ", f"{met}").replace("DRIFT ", f"{drift}").replace("LOAD ", f"{load}")
    for name in ALERTS:
        label = {"MelangePlanStale": {"state": "short"}, "MelangeTypeOverloaded": {"type": "L4"}}.get(name, {})
        about = rules[name]["annotations"]["summary"]
        for key, value in label.items():
            about = about.replace("{{ $labels." + key + " }}", value)
        one = {"exp_labels": {**rules[name]["labels"], **label}, "exp_annotations": {"summary": about}}
        test = {"eval_time": "390m", "alertname": name, "exp_alerts": [one] if name in fires else []}
        series += f"      - {json.dumps(test)}\n"
    (tmp_path / "test.yaml").write_text(series)
    found = promtool(tmp_path, "test", "rules", "test.yaml")
    assert found.returncode == 0, found.stderr + found.stdout


@pytest.mark.parametrize("selector", [HOSTILE, 'job="a"} or x{', "job", 'job="a",', 'job="a\nb"', 'job="$x"'])
def test_a_selector_cannot_break_out_of_a_query(selector: str) -> None:
    """What is no list of labels is refused."""
    with pytest.raises(InputError, match="selector"):
        render(two_types(), "grafana", selector=selector)


def test_a_hostile_model_name_stays_a_text() -> None:
    """In the dashboard's JSON, the rules' YAML, and their names."""
    from plan_cases import answering

    plan = answering(two_types(), model='x"}\n- {{ template "bad" }} ${datasource}')
    manifest = render(plan, "grafana")
    dashboard = json.loads(manifest.files["dashboard.json"])
    assert re.fullmatch(r"melange-[a-z0-9-]+", dashboard["uid"])
    assert set(yaml.safe_load(manifest.files["rules.yaml"])) == {"groups"}
    with pytest.raises(InputError, match="name must be"):
        render(plan, "grafana", name="A b")


def test_panels_have_their_own_place(manifest: Manifest) -> None:
    """None lies on another, each has queries with letters of their own and a data source."""
    panels = json.loads(manifest.files["dashboard.json"])["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert len({one["refId"] for one in panel["targets"]}) == len(panel["targets"])
        assert panel["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in panels}) == len(panels)
