"""Services that share pools, from their file: names, narrowing, the joint plan, what a file cannot say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from melange.cli.app import app
from melange.errors import InputError
from melange.plan.joint.joint_plan import JointPlan
from melange.service.fleet_file import is_fleet, read_fleet
from melange.service.fleet_session import FleetSession

SERVICE = """
model: meta-llama/Llama-3.1-8B-Instruct
slo: {{tpot_ms: 80, ttft_ms: 1000}}
workload: {{dataset: {dataset}, rate: {rate}}}
offers: {{gpus: [L4, L40S, A100-80GB], providers: [aws], regions: [us-east-1]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two services and a file of both."""
    (tmp_path / "chat.yaml").write_text(SERVICE.format(dataset="azure-conversation", rate=16))
    (tmp_path / "code.yaml").write_text(SERVICE.format(dataset="azure-code", rate=8))
    (tmp_path / "fleet.yaml").write_text(
        "services: [{file: chat.yaml, priority: 2}, code.yaml]\noffers: {max: {L40S: 2}}\n"
    )
    return tmp_path


def test_plans_both_within_the_pool(folder: Path) -> None:
    """Both fit, at no less than alone; what they take adds up, and the file says the same again."""
    found = FleetSession(folder / "fleet.yaml").plan()
    (pool,) = found.pools
    assert set(pool.taken) == {"chat", "code"}
    assert sum(pool.taken.values()) <= 2
    assert found.cost_per_h >= sum(one.apart_per_h or 0.0 for one in found.services) - 1e-6
    assert found.bound_per_h is not None
    assert found.bound_per_h <= found.cost_per_h
    again = JointPlan.from_json(json.loads(json.dumps(found.to_json())))
    assert json.loads(json.dumps(again.to_json())) == json.loads(json.dumps(found.to_json()))


def test_a_pool_that_nobody_is_short_of_changes_nothing(folder: Path) -> None:
    """Each service has its own plan."""
    from melange.service.session import Session

    found = FleetSession(folder / "fleet.yaml", settings=["offers.max={L40S: 1000}"]).plan()
    alone = [Session(folder / name).plan().cost_per_h for name in ("chat.yaml", "code.yaml")]
    assert [plan.cost_per_h for plan in found.plans.values()] == pytest.approx(alone)


def test_a_shared_region_narrows_what_a_service_may_rent(folder: Path) -> None:
    """And one with nothing left is refused, with its file."""
    with pytest.raises(InputError, match=r"chat\.yaml: offers\.regions: none of us-east-1 is among"):
        FleetSession(folder / "fleet.yaml", settings=["offers.regions=[eu-west-1]"])


def test_the_command_writes_the_page_and_each_plan(folder: Path) -> None:
    """A table of services and pools in 80 columns, the joint file, a plan for each service, a page."""
    out, report = folder / "all.json", folder / "all.html"
    said = CliRunner(env={"COLUMNS": "80"}).invoke(
        app, ["plan", str(folder / "fleet.yaml"), "--quick", "--out", str(out), "--report", str(report)]
    )
    assert said.exit_code == 0, said.output
    assert "2 services:" in said.output
    assert max(map(len, said.output.splitlines())) <= 80
    read = JointPlan.read(out)
    assert (folder / "all-chat.json").exists()
    assert (folder / "all-code.json").exists()
    page = report.read_text()
    assert f"{read.cost_per_h:,.2f} USD" in page
    assert "chat" in page
    assert "L40S" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("services: []\n", "services"),
        ("services: [a.yaml]\noffer: {}\n", "unknown key 'offer'; did you mean 'offers'"),
        ("services: [{file: a.yaml, priorty: 2}]\n", "did you mean 'priority'"),
        ("services: [a.yaml, b/a.yaml]\n", "two are named a"),
        ("services: [a.yaml]\noffers: {max: {H100: -1}}\n", "greater than or equal to 0"),
        ("services: [a.yaml]\nplan: {budget_per_h: 0}\n", "must be > 0"),
        ("services: [a.yaml]\nfolder: elsewhere", "unknown key 'folder'"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    """With the nearest known key, or what must hold."""
    path = tmp_path / "fleet.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_fleet(path)


def test_tells_a_fleet_from_a_service(folder: Path) -> None:
    """By its list of services."""
    assert is_fleet(folder / "fleet.yaml")
    assert not is_fleet(folder / "chat.yaml")
    assert not is_fleet(Path("requests.parquet"))


def test_flags_of_one_service_are_refused(folder: Path) -> None:
    """Rather than passed over."""
    said = CliRunner().invoke(app, ["plan", str(folder / "fleet.yaml"), "--explain"])
    assert said.exit_code != 0
    assert "--explain is for one fleet" in str(said.exception)


def test_a_budget_of_one_service_is_refused(folder: Path) -> None:
    """It asks for the most traffic, and all of it is planned for here."""
    path = folder / "code.yaml"
    path.write_text(path.read_text() + "plan: {budget_per_h: 5}\n")
    with pytest.raises(InputError, match=r"code\.yaml: plan\.budget_per_h"):
        FleetSession(folder / "fleet.yaml")


@pytest.mark.heavy
def test_certified_within_the_pool(folder: Path) -> None:
    """Each plan is shown to hold, and together they keep to the pool that their own would break."""
    from melange.service.session import Session

    alone = [Session(folder / name).answer() for name in ("chat.yaml", "code.yaml")]
    cards = sum(
        int(n) * t.offer.accelerators
        for plan in alone
        for n, t in zip(plan.instances, plan.replica_types, strict=True)
        if t.offer.accelerator == "L40S"
    )
    most = max(0, cards - 1)
    found = FleetSession(folder / "fleet.yaml", settings=[f"offers.max={{L40S: {most}}}"]).answer()
    assert found.holds
    assert found.cost_per_h >= sum(one.cost_per_h for one in alone) - 1e-6


@pytest.mark.parametrize("command", ["schedule", "what-if --rate x2", "explore", "validate", "profile"])
def test_commands_for_one_service_say_so(command: str, folder: Path) -> None:
    """Not that the fleet's file has no model."""
    name, *flags = command.split()
    with pytest.raises(InputError, match=r"fleet\.yaml: lists several services, but this is for one$"):
        app([name, str(folder / "fleet.yaml"), *flags], standalone_mode=False)
