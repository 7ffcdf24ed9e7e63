"""The commands through their real entry point, as a user runs them."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forked import command

import melange

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``melange`` in an empty folder."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "dumb"}
        return command(*arguments, cwd=tmp_path, environment=environment)

    return run


def write(path: Path, text: str) -> Path:
    """Write a file and hand its path back."""
    path.write_text(text)
    return path


RELEASE = json.loads((ROOT / "examples" / "release.json").read_text())
SERVICE = """\
model: meta-llama/Llama-3.1-8B
slo: {tpot_ms: 120}
workload: {dataset: arena, rate: 8}
offers: {gpus: [L4, A10G, A100-80GB], providers: [aws, gcp], regions: [us-east-1, us-central1]}
"""


def test_a_plan_prints_its_parts_in_order(run: Run) -> None:
    """The answer, the mix, the single types, the proof, the warnings."""
    done = run("plan", "--quick", ROOT / "examples" / "chat.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    first = done.stdout.splitlines()[0]
    assert "USD/h" in first
    assert "per million tokens" in first
    assert "cheapest single type" in first
    places = [done.stdout.index(part) for part in ("The mix", "Where each size goes", "With one type only", "Optimal:")]
    assert places == sorted(places)
    assert done.stdout.rindex("warning: ") > places[-1]


def test_json_is_a_plan_and_nothing_else(run: Run) -> None:
    """Machines get one document on stdout, and nothing on stderr."""
    done = run("plan", "--quick", ROOT / "examples" / "chat.yaml", "--json")
    plan = json.loads(done.stdout)
    assert done.stderr == ""
    assert {"cost_per_h", "replicas", "share", "gap", "single_type", "warnings"} <= set(plan)
    paid = sum(plan["instances"][item["name"]] * item["offer"]["cost_per_h"] for item in plan["replica_types"])
    assert plan["cost_per_h"] == pytest.approx(paid)
    for baseline in plan["single_type"].values():
        assert (baseline["cost_per_h"] is None) == bool(baseline["reason"])


@pytest.mark.parametrize(("factor", "cost"), [(1, 6.70), (2, 5.69), (4, 5.69), (8, 5.69)])
def test_the_authors_example_costs_what_it_costs_there(run: Run, tmp_path: Path, factor: int, cost: float) -> None:
    """A configuration of the release is planned as it is, with the release's own meaning."""
    config = write(tmp_path / "example.json", json.dumps(RELEASE | {"slice_factor": factor}))
    plan = json.loads(run("plan", config, "--json").stdout)
    assert plan["cost_per_h"] == pytest.approx(cost, abs=1e-9)
    assert (plan["gap"], plan["headroom"], plan["slices"]) == (0, 0, factor)


def test_continuous_shares_save_more_on_the_authors_example(run: Run, tmp_path: Path) -> None:
    """4.68 USD/h: buckets split at any weight."""
    config = write(tmp_path / "example.json", json.dumps(RELEASE))
    plan = json.loads(run("plan", config, "--json", "--set", "plan.shares=continuous").stdout)
    assert plan["cost_per_h"] == pytest.approx(4.68, abs=1e-9)


def test_the_stages_by_themselves_end_at_the_same_plan(run: Run, tmp_path: Path) -> None:
    """workload, profile and plan pass files, and their plan is the service's."""
    service = write(tmp_path / "service.yaml", SERVICE)
    assert run("workload", service, "--out", "workload.json").returncode == 0
    assert run("profile", service, "--workload", "workload.json", "--out", "profile.json").returncode == 0
    staged = json.loads(
        run("plan", "--quick", "--workload", "workload.json", "--profile", "profile.json", "--json").stdout
    )
    whole = json.loads(run("plan", "--quick", service, "--json", "--out", "plan.json").stdout)
    assert (staged["cost_per_h"], staged["replicas"]) == (whole["cost_per_h"], whole["replicas"])
    assert json.loads((tmp_path / "plan.json").read_text()) == whole


def test_profiles_of_several_types_are_planned_together(run: Run, tmp_path: Path) -> None:
    """Each file adds its types; two with one of the same name are refused by both files, for a proxy too."""
    traffic = melange.dataset("arena", request_rate=8.0)
    catalog, model, slo = melange.load_catalog(), melange.find_model("Llama-3.1-8B"), melange.Slo(tpot_s=0.12)
    chosen = {"providers": ["aws"], "regions": ["us-east-1"], "markets": ["on-demand"]}
    traffic.save(tmp_path / "w.json")
    for gpu in ("L4", "A10G"):
        offers = catalog.select(gpus=[gpu], **chosen).offers
        melange.estimate(model, offers, slo, traffic).save(tmp_path / f"{gpu}.json")
    both = melange.estimate(model, catalog.select(gpus=["L4", "A10G"], **chosen).offers, slo, traffic)
    inputs = ("--workload", "w.json", "--profile", "L4.json")
    joined = run("plan", "--quick", *inputs, "--profile", "A10G.json", "--json", "--out", "plan.json")
    assert joined.returncode == 0, joined.stderr
    found = json.loads(joined.stdout)
    assert found["cost_per_h"] == melange.solve(traffic, both).cost_per_h
    used = next(name for name, count in found["replicas"].items() if count)
    address = ("--replica", f"{used}=http://127.0.0.1:9")
    for words in (("plan", "--quick", *inputs), ("balance", "plan.json", *address, "--profile", "L4.json")):
        done = run(*words, "--profile", "L4.json")
        assert done.returncode == 2
        assert "L4.json and L4.json: replica_types: both contain" in done.stderr


def test_what_init_writes_can_be_planned(run: Run, tmp_path: Path) -> None:
    """From nothing to a plan in two commands; a file that exists is not overwritten."""
    assert run("init").returncode == 0
    assert run("plan", "--quick", "service.yaml").returncode == 0
    again = run("init")
    assert (again.returncode, "already exists" in again.stderr) == (2, True)


def test_settings_reach_the_plan(run: Run, tmp_path: Path) -> None:
    """More traffic costs more."""
    service = write(tmp_path / "service.yaml", SERVICE)
    costs = [
        json.loads(run("plan", "--quick", service, "--json", "--set", f"workload.rate={rate}").stdout)["cost_per_h"]
        for rate in (4, 64)
    ]
    assert costs[0] < costs[1]


def test_explain_adds_its_answers(run: Run, tmp_path: Path) -> None:
    """As a page and as JSON."""
    service = write(tmp_path / "service.yaml", SERVICE)
    page = run("plan", "--quick", service, "--explain")
    assert page.returncode == 0, page.stderr
    assert page.stdout.index("Optimal:") < page.stdout.index("What would change the answer")
    assert "explain" in json.loads(run("plan", "--quick", service, "--explain", "--json").stdout)


def test_a_trace_becomes_a_workload(run: Run, tmp_path: Path) -> None:
    """A request log in Azure's shape: three rows over two seconds."""
    log = write(
        tmp_path / "log.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.0000000,20,10\n2023-11-16 18:15:47.0000000,90,60\n2023-11-16 18:15:48.0000000,90,60\n",
    )
    done = run("workload", log, "--json", "--rate", "3", "--input-edges", "25,100", "--output-edges", "50,100")
    assert json.loads(done.stdout)["request_rate"] == [[pytest.approx(1.0), 0.0], [0.0, pytest.approx(2.0)]]


def test_the_catalog_filters(run: Run) -> None:
    """Only what was asked for, as a table and as JSON."""
    offers = json.loads(
        run("catalog", "offers", "--gpu", "L4", "--provider", "gcp", "--market", "spot", "--json").stdout
    )
    assert offers
    assert {(o["accelerator"], o["provider"], o["market"]) for o in offers} == {("L4", "gcp", "spot")}
    assert "meta-llama/Llama-2-7b-hf" in run("catalog", "models").stdout
    assert "A10G" in run("catalog", "accelerators").stdout


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("rate: 8", "rate: -8"), "service.yaml:3: workload.rate: must be > 0 and finite, got -8"),
        (("rate: 8", "rate: .nan"), "service.yaml:3: must be a number, got NaN"),
        (("Llama-3.1-8B", "Llama-3.1-8C"), "did you mean 'meta-llama/Llama-3.1-8B'"),
        (("A10G", "A10H"), "unknown gpu 'A10H'; did you mean 'A10"),
        (("gcp]", "gpc]"), "unknown provider 'gpc'; did you mean 'gcp'"),
        (("slo:", "sloo:"), "unknown key 'sloo'; did you mean 'slo'"),
        (("tpot_ms: 120", "tpot_ms: 1"), "no replica type can serve"),
        (("dataset: arena", "dataset: arenna"), "did you mean 'arena'"),
        (("dataset: arena", "dataset: {arena: 0.8, sharegpt: 0.3}"), "1.1"),
        (("dataset: arena", "trace: absent.parquet"), "absent.parquet"),
        (("tpot_ms: 120", "tpot_ms: 120, statistic: p101"), "'mean' or 'p50' to 'p99.9'"),
    ],
)
def test_a_service_that_cannot_be_planned_says_why(
    run: Run, tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    """error: and exit code 2, nothing on stdout, nothing written."""
    assert change[0] in SERVICE
    service = write(tmp_path / "service.yaml", SERVICE.replace(*change))
    done = run("plan", "--quick", service, "--json", "--out", "plan.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["service.yaml"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"workload_distribution": [[0.2, 0.1], [0.5, 0.3]]}, "workload_distribution"),
        ({"workload_distribution": [[0.2, 0.1, 0.7]]}, "workload_distribution"),
        ({"total_request_rate": -1}, "total_request_rate"),
        ({"gpu_info": {"A10G": {"cost": 0, "tputs": [[2, 1], [5, 2]]}}}, "cost"),
        ({"gpu_info": {"A10G": {"cost": 1, "tputs": [[2, -1], [5, 2]]}}}, "tputs"),
        ({"slice_factor": 0}, "slice"),
    ],
)
def test_a_release_configuration_that_means_nothing_says_why(
    run: Run, tmp_path: Path, change: dict, complaint: str
) -> None:
    """Field named, exit code 2, nothing on stdout."""
    config = write(tmp_path / "example.json", json.dumps(RELEASE | change))
    done = run("plan", config)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert complaint in done.stderr


def test_an_unwritable_path_is_refused(run: Run, tmp_path: Path) -> None:
    """Nothing half-written, nothing printed as if it were saved."""
    done = run("plan", write(tmp_path / "example.json", json.dumps(RELEASE)), "--out", "absent/plan.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "absent/plan.json: cannot be written" in done.stderr


def test_dropping_what_cannot_be_served_says_what_was_left_out(run: Run, tmp_path: Path) -> None:
    """A limit that long prompts break on the one type there is: refused with the reason, or planned for the rest."""
    config = RELEASE | {"gpu_info": {"A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 0]]}}}
    path = write(tmp_path / "example.json", json.dumps(config))
    refused = run("plan", path)
    assert refused.returncode == 2
    assert "--drop-unservable" in refused.stderr
    rest = json.loads(run("plan", path, "--drop-unservable", "--json").stdout)
    assert rest["served_fraction"] == pytest.approx(0.8)
    assert rest["unservable"]
    assert "80.0% of the requests" in run("plan", path, "--drop-unservable").stdout


def test_a_percentile_is_planned_by_simulation_and_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A p99 takes no less than the mean does; its rates lie in the cache, where a second run finds the same plan."""
    monkeypatch.setenv("MELANGE_CACHE", str(tmp_path / "cache"))
    service = write(
        tmp_path / "service.yaml",
        "model: meta-llama/Llama-3.1-8B\nslo: {tpot_ms: 60}\n"
        "workload: {dataset: arena, rate: 8, buckets: {input: [1000, 16000], output: [500, 2000]}}\n"
        "offers: {gpus: [L4, L40S], providers: [aws], regions: [us-east-1]}\n"
        "profile: {tensor_parallel: 1}\n",
    )
    mean = json.loads(run("plan", "--quick", service, "--json").stdout)
    far = json.loads(run("plan", "--quick", service, "--json", "--set", "slo.statistic=p99").stdout)
    assert far["slo"]["statistic"] == "p99"
    assert far["cost_per_h"] >= mean["cost_per_h"]
    kept = json.loads((tmp_path / "cache" / "rates.json").read_text())
    assert kept
    again = json.loads(run("plan", "--quick", service, "--json", "--set", "slo.statistic=p99").stdout)
    assert again["replicas"] == far["replicas"]
    assert json.loads((tmp_path / "cache" / "rates.json").read_text()) == kept


@pytest.mark.parametrize("flags", [("--rate", "3"), ("--dataset", "arena"), ("--from", "1m"), ("--size", "upper")])
def test_flags_of_traffic_beside_a_service_are_refused(run: Run, tmp_path: Path, flags: tuple[str, str]) -> None:
    """The service describes its own traffic; what would change it is named."""
    (tmp_path / "service.yaml").write_text(
        "model: meta-llama/Llama-3.1-8B-Instruct\nslo: {tpot_ms: 80}\nworkload: {dataset: arena, rate: 4}\n"
    )
    done = run("workload", "service.yaml", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{flags[0]}: service.yaml describes its own traffic" in done.stderr
    assert "--set workload.KEY=VALUE" in done.stderr


def test_a_page_and_a_plan_do_not_share_a_file(run: Run) -> None:
    """The second would replace the first."""
    done = run("plan", "service.yaml", "--report", "out.html", "--out", "out.html")
    assert done.returncode == 2
    assert "--out and --report both name out.html" in done.stderr


SMALL = """\
model: meta-llama/Llama-3.1-8B
slo: {tpot_ms: 120}
workload: {dataset: arena, rate: 2}
offers: {gpus: [L40S], providers: [aws], regions: [us-east-1]}
profile: {tensor_parallel: 1}
"""


def test_a_plan_is_certified_by_default(run: Run, tmp_path: Path) -> None:
    """The first sentence and the file say what share of requests met the SLO."""
    service = write(tmp_path / "service.yaml", SMALL)
    done = run("plan", service, "--out", "plan.json")
    assert done.returncode == 0, done.stderr
    assert "certified: " in done.stdout.splitlines()[0]
    assert "(target 99%)" in done.stdout.splitlines()[0]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["kind"], plan["holds"], plan["target"]) == ("certified", True, 0.99)
    assert plan["attainment"] >= plan["low"] >= 0.99
    other = run("plan", service, "--incumbent", "plan.json", "--set", "model=mistralai/Mistral-7B-v0.1")
    assert other.returncode == 2
    assert "is a plan for meta-llama/Llama-3.1-8B, but the service has mistralai/Mistral-7B-v0.1" in other.stderr
    changed = run("plan", service, "--incumbent", "plan.json", "--explain")
    assert "No change: this is the current fleet" in changed.stdout
    assert "What would change the answer by closed form" in changed.stdout


def test_a_quick_plan_says_that_nothing_was_simulated(run: Run, tmp_path: Path) -> None:
    """On the page and for machines; flags of simulations are refused beside it."""
    service = write(tmp_path / "service.yaml", SMALL)
    assert "nothing was simulated" in run("plan", service, "--quick").stdout.splitlines()[0]
    plan = json.loads(run("plan", service, "--quick", "--json").stdout)
    assert (plan["kind"], plan["holds"], plan["attainment"], plan["not_simulated"]) == ("closed form", None, None, "")
    for flags in (("--certify",), ("--burstiness", "2")):
        done = run("plan", service, "--quick", *flags)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--quick" in done.stderr


def test_a_plan_that_cannot_be_simulated_says_why(run: Run) -> None:
    """The authors' configuration has no SLO: the closed form by default, an error for those who insist."""
    release = ROOT / "examples" / "release.json"
    done = run("plan", release)
    assert done.returncode == 0
    assert "nothing was simulated: the profile names no SLO" in done.stdout.splitlines()[0]
    assert json.loads(run("plan", release, "--json").stdout)["not_simulated"] == "the profile names no SLO"
    insisted = run("plan", release, "--certify")
    assert (insisted.returncode, insisted.stdout) == (2, "")


def test_a_share_that_is_missed_is_written_and_ends_with_1(run: Run, tmp_path: Path) -> None:
    """Planned on means, simulated once: the plan is printed and saved, and scripts see that it does not hold."""
    service = write(tmp_path / "service.yaml", SERVICE)
    settings = ("--set", "slo.statistic=mean", "--set", "slo.attainment=0.9999")
    done = run("plan", service, *settings, "--out", "plan.json")
    assert done.returncode == 1
    assert "not certified: " in done.stdout.splitlines()[0]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["kind"], plan["holds"], plan["status"]) == ("simulated", False, "optimal")
    assert 0 < plan["low"] < 0.9999


@pytest.mark.heavy
def test_a_service_with_a_log_is_validated_on_it_as_it_came(run: Run, tmp_path: Path) -> None:
    """It is what the plan was certified on; lines in a pipe end where their words end."""
    random = np.random.default_rng(3)
    times = np.sort(np.concatenate([random.uniform(0, 3000, 1500), random.uniform(1000, 1100, 500)]))
    rows = [f"{at:.3f},{random.integers(50, 900)},{random.integers(10, 200)}" for at in times]
    (tmp_path / "log.csv").write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]) + "\n")
    log = "workload: {trace: log.csv, columns: {arrival: arrival_s, input: input_tokens, output: output_tokens}}"
    text = "\n".join(log if line.startswith("workload:") else line for line in SMALL.splitlines())
    service = write(tmp_path / "service.yaml", text + "\n")
    answer = json.loads(run("plan", service, "--json").stdout)
    shown = json.loads(run("validate", service, "--json").stdout)
    assert shown["attainment"]["value"] == pytest.approx(answer["attainment"])
    assert "as recorded" in shown["source"]
    page = run("validate", service, "--quick", "--arrivals", "poisson").stdout
    assert "Poisson" in page
    assert not [line for line in page.splitlines() if line.endswith(" ")]


def test_runs_that_end_before_the_fleet_has_filled_get_a_warning(run: Run, tmp_path: Path) -> None:
    """Drawn or with the sizes of a log, four times as many requests are needed at four times the rate."""
    service = write(tmp_path / "service.yaml", SMALL)
    rows = "".join(f"{at},{200 + at % 7},{50 + at % 5}\n" for at in range(300))
    log = write(tmp_path / "log.csv", "arrival_s,input_tokens,output_tokens\n" + rows)
    assert run("plan", service, "--quick", "--out", "plan.json").returncode == 0

    def needed(*arguments: str | Path) -> int:
        page = " ".join(run("validate", "plan.json", "--requests", "100", *arguments).stdout.split())
        return int(page.split("may look better: ")[1].split()[0].replace(",", ""))

    once = needed()
    assert needed("--trace", log, "--arrivals", "poisson") == once
    assert needed("--scale", "4") == pytest.approx(4 * once, abs=4)


def test_a_service_is_validated_with_the_plan_that_it_is_answered_with(run: Run, tmp_path: Path) -> None:
    """Certified, or by closed form where asked; a plan in a file is planned already."""
    service = write(tmp_path / "service.yaml", SMALL)
    held = json.loads(run("validate", service, "--json", "--requests", "2000").stdout)
    assert held["holds"]
    assert run("validate", service, "--quick", "--requests", "2000").returncode == 0
    refused = run("validate", "plan.json", "--quick")
    assert refused.returncode == 2
    assert "plan.json is a plan" in refused.stderr
