"""What the tools themselves say of the files: all of drawn plans' are taken, spoilt ones and none other refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hcl2
import numpy as np
import pytest
import yaml
from deploy_cases import SMALL_SHARE, plan_of, replica_type
from drawn_plans import drawn_plan
from hostile import HOSTILE, hostile_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from parsers import CHECKS, CRDS, RefusedError, check_scalers
from small_schedules import schedule_of, two_regions

from melange.deploy.render import render
from melange.deploy.scaling_rule import render_rule
from melange.deploy.targets.terraform.hcl import quoted
from melange.errors import InputError
from melange.plan.plan import Plan
from melange.plan.schedule.schedule import Schedule

# Warnings are those of the tools.
pytestmark = pytest.mark.filterwarnings("default")

# Every option that changes what is written.
OPTIONS: dict[str, list[dict[str, object]]] = {
    "kubernetes": [
        {},
        {"routing": "gateway", "scaling": "keda", "namespace": "prod", "cache_claim": "weights", "least_replicas": 1},
        {"routing": "none", "aws_nodes": "managed", "name": "chat", "version": "0.30.0", "port": 9000},
    ],
    "kserve": [{}, {"scaling": "keda", "routing": "gateway", "namespace": "prod"}, {"scaling": "wva"}],
    "llm-d": [{}, {"scaling": "fixed", "routing": "gateway"}, {"namespace": "prod"}],
    "aibrix": [{}, {"scaling": "optimizer", "routing": "gateway"}, {"scaling": "fixed"}],
    "docker-compose": [{}, {"listen": "0.0.0.0:80"}],
    "skypilot": [{}, {"layout": "one-service"}],
    "dstack": [{}, {"scaling": "rps"}],
    "terraform": [{}],
}
CASES = [(target, k) for target, some in OPTIONS.items() for k in range(len(some))]
SEEDS = range(12)


def two_kinds() -> Plan:
    """Two A10G and one L40S, by size."""
    shares = np.stack([SMALL_SHARE, 1.0 - SMALL_SHARE])
    return plan_of(
        shares,
        [2, 1],
        [replica_type("aws/us-east-1/g5.xlarge", "A10G"), replica_type("aws/us-east-1/g6e.xlarge", "L40S")],
    )


def written(target: str, folder: Path, plan: Plan, options: dict[str, object]) -> bool:
    """Write the files of a plan; False where the target says why it cannot."""
    try:
        render(plan, target, **options).write(folder)
    except InputError as error:
        if not error.hint:
            raise
        return False
    return True


@pytest.mark.parametrize(("target", "k"), CASES)
def test_the_tool_takes_the_files_of_a_plan(target: str, k: int, tmp_path: Path) -> None:
    """Two types on AWS, with every option."""
    assert written(target, tmp_path, two_kinds(), OPTIONS[target][k])
    CHECKS[target](tmp_path)


@pytest.mark.parametrize("target", CHECKS)
def test_the_tool_takes_the_files_of_drawn_plans(target: str, tmp_path: Path) -> None:
    """Twelve services; where a target cannot run one, it says what to do."""
    made = 0
    for seed in SEEDS:
        plan = drawn_plan(seed)
        for k, options in enumerate(OPTIONS[target]):
            folder = tmp_path / f"{seed}-{k}"
            if written(target, folder, plan, options):
                CHECKS[target](folder)
                made += 1
    assert made >= (1 if target == "terraform" else len(SEEDS) // 2)


@pytest.mark.parametrize("target", CHECKS)
@pytest.mark.parametrize("text", HOSTILE)
def test_names_cannot_break_out(target: str, text: str, tmp_path: Path) -> None:
    """The tool takes the files whatever model, instances and types are called, or the target refuses the names."""
    try:
        plan = hostile_plan(text)
    except InputError:
        return  # what a terminal would obey is refused as a name before any file is written
    if written(target, tmp_path, plan, {}):
        CHECKS[target](tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.lists(st.sampled_from(['"', "\\", "$", "{", "}", "%", "\n", "a", "$${", "%%{"])).map("".join))
def test_a_text_in_hcl_is_that_text(text: str) -> None:
    """As python-hcl2 reads it, escapes undone: quotes, templates and control characters are letters."""
    literal = hcl2.loads(f"a = {quoted(text)}\n")["a"]
    assert literal[0] == literal[-1] == '"'
    back = re.sub(r"\\U([0-9a-f]{8})", lambda m: json.dumps(chr(int(m[1], 16)))[1:-1], literal[1:-1])
    assert json.loads(f'"{back}"') == text


def edited(pattern: str, new: str, files: str) -> Callable[[Path], None]:
    """Spoils the first file that has the pattern."""

    def spoil(folder: Path) -> None:
        for path in sorted(folder.rglob(files)):
            text, count = re.subn(pattern, new, path.read_text(), count=1, flags=re.MULTILINE)
            if count:
                path.write_text(text)
                return
        raise AssertionError(f"{pattern} is in none of {files}")

    return spoil


def with_key(keys: tuple[str, ...], kind: str) -> Callable[[Path], None]:
    """Adds a key that there is not, below a path of keys of the first object of a kind."""

    def spoil(folder: Path) -> None:
        for path in sorted(folder.rglob("manifests/*.yaml")):
            documents = list(yaml.safe_load_all(path.read_text()))
            for document in documents:
                if document["kind"] == kind:
                    at = document
                    for key in keys:
                        at = at[key] if isinstance(at, dict) else at[int(key)]
                    at["surprise"] = "yes"
                    path.write_text(yaml.safe_dump_all(documents))
                    return
        raise AssertionError(f"no {kind}")

    return spoil


SPOILT = [
    ("kubernetes", {}, edited("replicas: [0-9]+", "replicas: two", "*.yaml")),
    ("kubernetes", {}, edited("containerPort:", "containerport:", "*.yaml")),
    ("kubernetes", {}, with_key(("spec", "template", "spec", "containers", "0"), "Deployment")),
    ("kubernetes", {}, with_key(("spec",), "PodDisruptionBudget")),
    ("kubernetes", {}, with_key(("spec",), "Service")),
    ("docker-compose", {}, edited("^services:", "servces:", "*.yaml")),
    ("skypilot", {}, edited("readiness_probe:", "readyness_probe:", "*.yaml")),
    ("skypilot", {}, edited("infra: aws", "infra: awsome", "*.yaml")),
    ("skypilot", {"layout": "one-service"}, edited("^  esac", "  esca", "*.yaml")),
    ("dstack", {}, edited("count: [0-9]+", "count: two", "*.yml")),
    ("dstack", {}, edited("spot_policy:", "sport_policy:", "*.yml")),
    ("terraform", {}, edited("^}", "", "*.tf")),
    ("terraform", {}, edited('"$', "", "*.tf")),
    ("terraform", {}, edited("^}$", "", "*.sh")),
]
IN_CRDS = [
    ("kubernetes", {"scaling": "keda"}, with_key(("spec",), "ScaledObject")),
    ("kubernetes", {"scaling": "keda"}, with_key(("spec", "triggers", "0"), "ScaledObject")),
    ("kubernetes", {"routing": "gateway"}, with_key(("spec", "rules", "0", "backendRefs", "0"), "HTTPRoute")),
    ("kubernetes", {"routing": "gateway"}, edited("weight: [0-9]+", "weight: 1.5", "*.yaml")),
    ("kubernetes", {"routing": "gateway"}, with_key(("spec", "endpointPickerRef"), "InferencePool")),
    ("kserve", {}, edited("uri: hf", "url: hf", "*.yaml")),
    ("kserve", {}, with_key(("spec", "parallelism"), "LLMInferenceService")),
    ("llm-d", {}, edited("variantCost: .*", "variantCost: cheap", "*.yaml")),
    ("aibrix", {}, edited("scalingStrategy: .*", "scalingStrategy: XPA", "*.yaml")),
    ("aibrix", {}, with_key(("spec", "metricsSources", "0"), "PodAutoscaler")),
]


@pytest.mark.parametrize(("target", "options", "spoil"), SPOILT)
def test_the_tool_refuses_a_spoilt_copy(
    target: str, options: dict[str, object], spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    """A wrong value, a misspelled key, a key too many, half a block."""
    assert written(target, tmp_path, two_kinds(), options)
    spoil(tmp_path)
    with pytest.raises(RefusedError):
        CHECKS[target](tmp_path)


@pytest.mark.skipif(not CRDS.is_dir(), reason="the schemas of custom resources are not here")
@pytest.mark.parametrize(("target", "options", "spoil"), IN_CRDS)
def test_a_schema_refuses_a_spoilt_copy(
    target: str, options: dict[str, object], spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    """Of custom resources."""
    test_the_tool_refuses_a_spoilt_copy(target, options, spoil, tmp_path)


@pytest.mark.skipif(not CRDS.is_dir(), reason="the schemas of custom resources are not here")
@pytest.mark.parametrize("target", ["keda", "cron"])
def test_keda_takes_the_scalers_of_a_schedule(target: str, tmp_path: Path) -> None:
    """With every option, and with none; a key that KEDA does not have is refused."""
    counts = np.random.default_rng(0).integers(0, 4, (168, 2))
    schedule = schedule_of(counts, two_regions(2))
    for options in ({}, {"namespace": "prod", "most": 3, "deployment": "chat"}):
        folder = tmp_path / str(len(options))
        render_rule(schedule, target, options).write(folder)
        assert list(folder.glob("scaled-object*.yaml"))
        check_scalers(folder)
    edited("pollingInterval", "pollingintervall", "scaled-object*.yaml")(folder)
    with pytest.raises(RefusedError):
        check_scalers(folder)


def week(provider: str = "aws", name: str = "") -> Schedule:
    """A schedule over a week with reserved, on-demand and spot instances of two types."""
    draw = np.random.default_rng(0)
    types = [replace(one, offer=replace(one.offer, provider=provider)) for one in two_regions(2)]
    types = [replace(one, name=f"{name}{one.name}") for one in types]
    schedule = schedule_of(draw.integers(0, 4, (168, 2)), types)
    spot = draw.integers(0, 3, (168, 2)) * np.array([1, 0])
    return replace(schedule, spot=spot, reserved=np.array([1, 0]))


OF_SCHEDULES = [("skypilot", "aws"), ("skypilot", "gcp"), ("terraform", "aws"), ("terraform", "gcp")]


@pytest.mark.parametrize(("target", "provider"), OF_SCHEDULES)
def test_the_tool_takes_the_files_of_a_schedule(target: str, provider: str, tmp_path: Path) -> None:
    """With every option, and with none."""
    for k, options in enumerate(({}, {"time_zone": "Asia/Tokyo", "name": "chat", "port": 9000, "drain_s": 60})):
        folder = tmp_path / str(k)
        render_rule(week(provider), target, options).write(folder)
        CHECKS[target](folder)


@pytest.mark.parametrize(("target", "provider"), OF_SCHEDULES)
@pytest.mark.parametrize("text", HOSTILE)
def test_names_in_schedules_cannot_break_out(target: str, provider: str, text: str, tmp_path: Path) -> None:
    """The tool takes the files whatever model, types and instances are called, or the target refuses the names."""
    try:
        schedule = week(provider, text)
        types = [replace(one, offer=replace(one.offer, instance_type=text)) for one in schedule.replica_types]
        render_rule(replace(schedule, model=text, replica_types=tuple(types)), target).write(tmp_path)
    except InputError:
        return
    CHECKS[target](tmp_path)


@pytest.mark.parametrize(
    ("target", "spoil"),
    [
        ("skypilot", edited("base_ondemand_fallback_replicas:", "base_on_demand:", "*.yaml")),
        ("skypilot", edited("use_spot: true", "use_spot: false", "*.yaml")),
        ("skypilot", edited("^def follow", "deff follow", "*.py")),
        ("terraform", edited(" = each.value", " = each.value)", "*.tf")),
    ],
)
def test_the_tool_refuses_a_spoilt_schedule(target: str, spoil: Callable[[Path], None], tmp_path: Path) -> None:
    """A misspelled key, fallback from on-demand instances, a broken script, half a bracket."""
    render_rule(week(), target).write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(RefusedError):
        CHECKS[target](tmp_path)


def test_skypilot_starts_the_instances_of_each_market(tmp_path: Path) -> None:
    """Its own autoscaler, with no instance yet: spot ones, and on-demand ones in their place until they are ready."""
    import sky
    from sky.serve.autoscalers import Autoscaler

    render_rule(week(), "skypilot").write(tmp_path)
    for path in tmp_path.rglob("*.yaml"):
        on_demand, spot = (int(one) for one in path.name.split(".")[-3:-1])
        task = sky.Task.from_yaml(str(path))
        decisions = Autoscaler.from_spec("chat", task.service).generate_scaling_decisions([], [])
        has_spot = [(one.target or {}).get("use_spot", False) for one in decisions]
        assert (has_spot.count(True), has_spot.count(False)) == (spot, on_demand + spot)
