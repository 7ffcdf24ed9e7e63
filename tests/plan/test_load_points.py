"""The load points to run before a plan is rented, and what their results do."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from melange.catalog.bundled import find_model
from melange.errors import InputError
from melange.plan.disaggregated import DisaggregatedPlan
from melange.plan.load_points import LoadPoint, load_points
from melange.plan.plan import Plan
from melange.present.terminal.layout import as_text
from melange.present.terminal.suggestions import load_points_part
from melange.profile.formats.measurement_files import read_measurements
from melange.replica.capacity import Sizes, mean_step_s, prompt_times_s
from melange.replica.occupancy import replicas_like
from melange.service.disaggregation import in_pools
from melange.service.fleet_session import FleetSession
from melange.service.regional_session import RegionalSession
from melange.service.session import Session

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {ttft_ms: 1000, tpot_ms: 80}
workload: {dataset: azure-conversation, rate: 32}
offers: {providers: [aws], regions: [us-east-1], gpus: [L4, L40S, A10G, H100-80GB]}
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A service in a folder of its own."""
    (tmp_path / "service.yaml").write_text(SERVICE)
    return tmp_path / "service.yaml"


def result_of(plan: Plan, point: LoadPoint, slower: float) -> dict[str, float | str]:
    """What `vllm bench serve` writes on a server whose steps take this many times as long as planned."""
    names = [one.type_name for one in plan.replica_types]
    engine = plan.question.profile.engines[names.index(point.replica_type)]
    assert engine
    replicas = replicas_like(engine.scaled(slower))
    sizes = Sizes(
        inputs=np.full((1, 1, 1), float(point.input_tokens)), outputs=np.full((1, 1, 1), float(point.output_tokens))
    )
    batch = np.full((1, 1, 1), float(point.concurrency))
    for _ in range(20):  # those that read their prompts do not run
        step_s = float(mean_step_s(replicas, sizes, batch)[0, 0, 0])
        own_s = float(prompt_times_s(replicas, sizes, batch)[0][0, 0, 0])
        batch = np.full_like(batch, point.concurrency / (1 + own_s / (point.output_tokens * step_s)))
    latency_s = own_s + point.output_tokens * step_s
    return {
        "model_id": point.model,
        "completed": point.requests,
        "total_input_tokens": point.requests * point.input_tokens,
        "total_output_tokens": point.requests * point.output_tokens,
        "request_throughput": point.concurrency / latency_s,
        "request_rate": "inf",
        "max_concurrency": point.concurrency,
        "duration": point.requests / point.concurrency * latency_s,
        "mean_ttft_ms": own_s * 1e3,
        "mean_tpot_ms": step_s * 1e3,
    }


def test_results_in_the_places_that_commands_name_correct_the_plan(service: Path) -> None:
    """Measured until no used type uses an estimate: at most a few points, each recovering the true steps."""
    folder, counted = service.parent / "results", 0
    random = np.random.default_rng(3)
    slower = {}
    plan = Session(service).plan()
    while points := load_points(plan):
        for point in points:
            options = shlex.split(point.commands()["vllm bench serve"].replace("\\\n", " "))
            place = service.parent / options[options.index("--result-dir") + 1]
            place.mkdir(parents=True)
            slower[point.replica_type] = float(random.uniform(0.8, 1.4))
            result = result_of(plan, point, slower[point.replica_type])
            (place / options[options.index("--result-filename") + 1]).write_text(json.dumps(result))
            counted += 1
        plan = Session(service, anchors=[str(folder)]).plan()
    assert 1 <= counted <= 6
    plain = Session(service).profile()
    names = [one.name for one in plain.replica_types]
    for r in np.flatnonzero(plan.instances):
        before, after = plain.engines[names.index(plan.replica_types[r].name)], plan.engines[r]
        assert before
        assert after
        size = Sizes(inputs=np.full((1, 1, 1), 800.0), outputs=np.full((1, 1, 1), 180.0))
        step = [mean_step_s(replicas_like(one), size, np.full((1, 1, 1), 60.0))[0, 0, 0] for one in (before, after)]
        assert step[1] / step[0] == pytest.approx(slower[plan.replica_types[r].type_name], rel=0.08)


def test_commands_name_the_file_of_the_service(service: Path) -> None:
    """Also in a file of a plan that was read again."""
    own = service.rename(service.with_name("chat bot.yaml"))
    path = Session(own).plan().save(service.parent / "plan.json")
    for plan in (Session(own).plan(), Plan.read(path)):
        for point in plan.to_json()["load_points"]:
            assert "melange measure 'chat bot.yaml' --url" in point["commands"]["melange measure"]


def test_plans_of_several_name_their_files(service: Path) -> None:
    """Pools, services on shared pools, and regions, by closed form and certified."""
    own = service.rename(service.with_name("chat.yaml"))
    pools = Session(own, settings=["plan.disaggregate=true", "slo={ttft_ms: 2000, tpot_ms: 80}"])
    fleet = service.with_name("fleet.yaml")
    fleet.write_text("services:\n  - {name: chat, file: chat.yaml}\n")
    regions = RegionalSession(own, settings=["regions={origins: {us: {share: 1, at: us-east-1}}}"])
    joint = in_pools(pools, Session.plan, quick=True)
    assert isinstance(joint, DisaggregatedPlan)
    for plans in (joint.plans, FleetSession(fleet).plan().plans, regions.plan().plans, regions.answer().plans):
        assert {one.service_file for one in plans.values()} == {"chat.yaml"}


def test_points_of_a_model_of_a_folder_need_its_tokenizer(service: Path) -> None:
    """The tools look for one on the hub by the model's name, which is the folder's; quoted in their commands."""
    folder = service.parent / "our own"
    folder.mkdir()
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps({**config, **sizes, **heads, "max_position_embeddings": 131072}))
    plan = Session(service, settings=["model=our own"]).plan()
    assert plan.model == "our own"
    (caution,) = (one for one in plan.cautions if one.kind == "local-model")
    assert "--tokenizer" in caution.message
    assert all("'our own'" in one.command() for one in load_points(plan))
    assert "local-model" not in [one.kind for one in Session(service).plan().cautions]


def test_a_point_is_what_a_replica_would_run(service: Path) -> None:
    """The mean request of a type, at as many in flight as the plan puts on a replica."""
    plan = Session(service).plan()
    (point, *_) = load_points(plan)
    names = [one.type_name for one in plan.replica_types]
    r = names.index(point.replica_type)
    served = plan.share[r] * plan.workload.request_rate
    assert point.input_tokens == round(float((served * plan.workload.input_tokens).sum() / served.sum()))
    per_replica_s = served.sum() / plan.instances[r]
    # Little's law: a request may stay a second and 80 ms a token at most.
    assert 1 <= point.concurrency <= per_replica_s * (1 + 0.08 * point.output_tokens)
    assert point.requests >= 100
    assert point.model == find_model(point.model).name


def test_commands_are_whole_shell_words(service: Path) -> None:
    """Names with spaces are quoted, lines end in a backslash, and every tool gets size and load."""
    point = LoadPoint(
        replica_type="aws/us-east-1/g6.12xlarge tp2",
        model="meta-llama/Llama-3.1-8B-Instruct",
        engine="vllm",
        input_tokens=1200,
        output_tokens=200,
        concurrency=30,
        requests=150,
    )
    for tool, command in point.commands("my service.yaml").items():
        words = shlex.split(command.replace("\\\n", " "))
        assert any(word.startswith("results/aws/us-east-1/g6.12xlarge tp2") for word in words), tool
        if tool != "melange measure":
            joined = " ".join(words)
            assert "1200" in joined
            assert "200" in joined
            assert "30" in words
        assert max(map(len, command.splitlines())) <= 120
    assert point.command().startswith("vllm bench serve")


def test_a_folder_names_its_files(tmp_path: Path) -> None:
    """By the folders above them, or their own name; a name in the file counts first, and tools' other files do not."""
    point = {"input_tokens": 500, "output_tokens": 200, "concurrency": 8, "tpot_s": 0.045}
    (tmp_path / "aws" / "g6 tp2").mkdir(parents=True)
    (tmp_path / "aws" / "g6 tp2" / "one.json").write_text(json.dumps([point]))
    (tmp_path / "L4.json").write_text(json.dumps([point]))
    (tmp_path / "other.json").write_text(json.dumps([point | {"accelerator": "A10G"}]))
    (tmp_path / "notes.txt").write_text("no result")
    found = {one.replica_type or one.accelerator for one in read_measurements(tmp_path)}
    assert found == {"aws/g6 tp2", "L4", "A10G"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no results"):
        read_measurements(tmp_path / "empty")


def test_a_terminal_shows_commands_that_can_be_copied(service: Path) -> None:
    """No line is wider than 80 columns, and without its line ends a command is the same."""
    plan = Session(service).plan()
    console = Console(width=80, file=io.StringIO())
    part = load_points_part(plan, "service.yaml")
    assert part is not None
    console.print(part)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 80
    joined = shown.replace(" \\\n  ", " ")
    assert all(one.command("service.yaml").replace(" \\\n  ", " ") in joined for one in load_points(plan))


def test_a_long_name_in_a_command_is_not_broken(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line end within a quoted folder would be part of its name, and what is cut off could not be copied."""
    monkeypatch.setenv("COLUMNS", "60")
    plan = Session(service, settings=["engine=vllm==0.11.0", "offers.gpus=[L40S]"]).plan()
    part, points = load_points_part(plan, "service.yaml"), load_points(plan)
    assert part is not None
    assert any(" " in point.folder for point in points)
    assert all(f"  --result-dir {shlex.quote(point.folder)}\n" in as_text([part]) for point in points)


@pytest.mark.parametrize("hit_rate", [0.3, 0.8])
def test_no_point_has_more_in_flight_than_fits(service: Path, hit_rate: float) -> None:
    """Prompt tokens from a prefix cache take no time, which a load point counts as the plan's rates do."""
    given = service.read_text().replace("rate: 32", f"rate: 32, prefix_hit_rate: {hit_rate}")
    service.write_text(given + "engine: {enable_prefix_caching: true, max_num_seqs: 96}\n")
    plan = Session(service).plan()
    points = load_points(plan)
    assert points
    for point in points:
        assert 1 <= point.concurrency <= 96, point
        r = [one.type_name for one in plan.replica_types].index(point.replica_type)
        sent = (plan.share[r] * plan.workload.request_rate).sum()
        replicas = plan.instances[r] * plan.replica_types[r].replicas_per_instance
        # Little's law: a request may stay a second and 80 ms a token at most.
        assert point.concurrency <= sent / replicas * (1 + 0.08 * point.output_tokens)
