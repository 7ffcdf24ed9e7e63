"""Run commands on one valid service, in this process, and say what was wrong with their answers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import resource
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import typer
from changes_valid import rules_of_changes
from draw_valid import Drawn
from rules_valid import (
    rules_of_costs,
    rules_of_explanation,
    rules_of_json,
    rules_of_plan,
    rules_of_report,
    rules_of_schedule,
    rules_of_text,
)

from melange.cli.app import app
from melange.deploy.render import TARGETS
from melange.errors import InfeasibleError, InputError, MelangeError
from melange.plan.plan import Plan
from melange.plan.regions.regional_plan import RegionalPlan

# A command that takes longer, or more memory, is a finding.
MOST_S, MOST_BYTES = 60.0, 2 << 30
_EXITS = (click.exceptions.Exit, SystemExit, typer.Exit)
# Fleets of more replicas take a minute to certify, which is known.
_MOST_CERTIFIED = 300


@dataclass
class Tried:
    """What was run on one service, and what was found."""

    findings: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    took_s: dict[str, float] = field(default_factory=dict)

    def add(self, command: str, found: Iterator[str]) -> None:
        """Findings of a command; a rule that fails is one too."""
        try:
            self.findings += [f"{command}: {one}" for one in found]
        except Exception as error:  # the rule met what it does not know
            self.findings.append(f"{command}: a rule failed: {where(error)}")


def where(error: BaseException) -> str:
    """An exception with its place."""
    place = traceback.extract_tb(error.__traceback__)
    ours = [one for one in place if "melange" in one.filename] or list(place)
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}: {str(error)[:300]}"


def cpu_s() -> float:
    """CPU time of this process and of its children so far [s]."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


class Runner:
    """A service in its folder, and the commands on it."""

    def __init__(self, drawn: Drawn, folder: Path) -> None:
        self.drawn, self.folder, self.tried = drawn, folder, Tried()
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in drawn.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        self.file = folder / "service.yaml"
        self.file.write_text(drawn.text, encoding="utf-8")

    def run(self, *words: str) -> str | None:
        """What a command prints; None if it ended with one of our errors, or failed."""
        command = " ".join(word.replace(str(self.folder) + "/", "") for word in words)
        said, told, begun = io.StringIO(), io.StringIO(), cpu_s()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
                app([*words], standalone_mode=False)
        except MelangeError as error:
            self._refused(command, error)
            return None
        except _EXITS as error:
            code = getattr(error, "exit_code", getattr(error, "code", 0))
            if code not in (0, 1):
                self.tried.findings.append(f"{command}: exit code {code}: {told.getvalue()[-300:]}")
                return None
        except click.ClickException as error:
            self.tried.findings.append(f"{command}: usage: {error.format_message()}")
            return None
        except Exception as error:  # what is looked for
            self.tried.findings.append(f"{command}: {where(error)}")
            return None
        finally:
            took = cpu_s() - begun
            self.tried.took_s[command] = max(took, self.tried.took_s.get(command, 0.0))
            if took > MOST_S:
                self.tried.findings.append(f"{command}: took {took:.0f} s of CPU time")
        return said.getvalue()

    def _refused(self, command: str, error: MelangeError) -> None:
        kind = type(error).__name__
        if not isinstance(error, InputError | InfeasibleError):
            self.tried.findings.append(f"{command}: {kind}: {error}")
        if isinstance(error, InfeasibleError) and not error.reasons and not error.hint:
            self.tried.findings.append(f"{command}: infeasible without a reason: {error}")
        if "that the balancer cannot use" in str(error):
            self.tried.findings.append(f"{command}: names of the catalog are refused: {error}")
        self.tried.said.append(f"{kind}: {str(error).splitlines()[0]}")

    def path(self, name: str) -> str:
        """A file in the folder."""
        return str(self.folder / name)

    def plan(self, *words: str, name: str = "plan.json") -> Plan | None:
        """Plan, and check the text and the file."""
        text = self.run("plan", str(self.file), *words, "--out", self.path(name))
        command = " ".join(("plan", *words))
        if text is None:
            return None
        self.tried.add(command, rules_of_text(text))
        written = (self.folder / name).read_text(encoding="utf-8")
        self.tried.add(command, rules_of_json(written))
        kind = str(json.loads(written)["melange"]).partition("/")[0]
        if kind == "regions":
            for region, one in RegionalPlan.read(self.folder / name).plans.items():
                self.tried.add(f"{command} {region}", rules_of_plan(one, self.drawn.sections))
        if kind == "disaggregated":
            for pool in ("prefill", "decode"):
                file = self.folder / f"{name.removesuffix('.json')}-{pool}.json"
                self.tried.add(f"{command} {pool}", rules_of_plan(Plan.read(file), self.drawn.sections))
        if kind != "plan":
            return None
        found = Plan.read(self.folder / name)
        self.tried.add(command, rules_of_plan(found, self.drawn.sections))
        if json.loads(written)["profile"]["is_whole"] and found.dumps().strip() != written.strip():
            self.tried.findings.append(f"{command}: the file changes when it is read and written")
        return found


def check(drawn: Drawn, folder: Path, *, is_small: bool = False) -> Tried:
    """Everything that is run on a service; a small check is by closed form alone."""
    os.environ["COLUMNS"] = "80"
    runner, rng = Runner(drawn, folder), random.Random(drawn.name)
    quick = runner.plan("--quick")
    if quick is not None:
        _again(runner, quick)
        if rng.random() < (1.0 if is_small else 0.5):
            runner.tried.add(
                "plan --quick", rules_of_changes(runner.file, quick, drawn.sections, rng, most=2 if is_small else 4)
            )
        certified = None
        if not is_small and rng.random() < 0.5 and sum(quick.replicas.values()) <= _MOST_CERTIFIED:
            certified = runner.plan(name="certified.json")
        best = "plan.json" if certified is None else "certified.json"
        _deploy(runner, rng, certified or quick, best)
        if not is_small and rng.random() < 0.4 and sum(quick.replicas.values()) <= _MOST_CERTIFIED:
            _validate(runner, best, certified)
    others: list[Callable[[Runner, Plan | None], None]] = [_profile, _explore, _what_if, _explain]
    if is_small:
        others = [_profile, _what_if, _explain]
    rng.choice(others)(runner, quick)
    if drawn.is_over_time and not is_small:
        _schedule(runner)
    return runner.tried


def _again(runner: Runner, before: Plan) -> None:
    """The same service gives the same plan."""
    if before.solve_s > 3:
        return
    text = runner.run("plan", str(runner.file), "--quick", "--json")
    if text is not None and before.status == "optimal":
        after = Plan.from_json(json.loads(text))
        if after.fingerprint != before.fingerprint:
            runner.tried.findings.append(f"plan --quick: twice differs: {after.cost_per_h} and {before.cost_per_h}")


def _profile(runner: Runner, quick: Plan | None) -> None:
    text = runner.run(
        "profile", str(runner.file), "--suggest-measurements", "3", "--json", "--out", runner.path("profile.json")
    )
    if text is None:
        return
    runner.tried.add("profile", rules_of_json(text))
    content = json.loads(text)
    for one in content["suggested_measurements"]:
        if one["concurrency"] is not None and not 1 <= one["concurrency"] <= 65536:
            runner.tried.findings.append(f"profile: suggestion with {one['concurrency']} in flight")
        if quick is not None and one["saves_per_h"] > 20 * quick.cost_per_h:
            runner.tried.findings.append(f"profile: a suggestion saves {one['saves_per_h']} of {quick.cost_per_h}")
    shown = runner.run("profile", str(runner.file))
    if shown is not None:
        runner.tried.add("profile", rules_of_text(shown))


def _explore(runner: Runner, quick: Plan | None) -> None:
    text = runner.run("explore", str(runner.file), "--quick", "--json", "--out", runner.path("explore.html"))
    if text is None:
        return
    runner.tried.add("explore", rules_of_json(text))
    page = (runner.folder / "explore.html").read_text(encoding="utf-8")
    if re.search(r">\s*(nan|inf|None)\s*<", page):
        runner.tried.findings.append("explore: the page shows nan, inf or None")
    content = json.loads(text)
    runner.tried.add("explore", rules_of_costs("by_rate", [one["cost_per_h"] for one in content["by_rate"]]))
    for sweep in content["by_limit"]:
        costs = [one["cost_per_h"] for one in reversed(sweep["points"])]
        runner.tried.add("explore", rules_of_costs(f"by_limit {sweep['metric']}", costs))


def _explain(runner: Runner, quick: Plan | None) -> None:
    text = runner.run("plan", str(runner.file), "--quick", "--explain", "--json")
    if text is not None:
        runner.tried.add("plan --explain", rules_of_json(text))
        if "explain" in (content := json.loads(text)):
            runner.tried.add("plan --explain", rules_of_explanation(content))
    shown = runner.run("plan", str(runner.file), "--quick", "--explain")
    if shown is not None:
        runner.tried.add("plan --explain", rules_of_text(shown))


def _what_if(runner: Runner, quick: Plan | None) -> None:
    words = ["--price", "on-demand=-10%", "--rate", "x2", "--save", "20%"]
    if quick is not None and quick.instances.any():
        used = max(zip(quick.instances, quick.replica_types, strict=True), key=lambda pair: pair[0])[1]
        words = [
            "--price",
            f"{used.offer.market}=-10%",
            "--rate",
            "x2",
            "--without",
            used.offer.accelerator,
            "--save",
            "20%",
        ]
    text = runner.run("what-if", str(runner.file), "--quick", *words, "--json")
    if text is None:
        return
    runner.tried.add("what-if", rules_of_json(text))
    content = json.loads(text)
    answers = content["answers"]
    by_label = {one["label"]: one["cost_per_h"] for one in answers}
    base = by_label.get("current")
    if quick is not None and base is not None and abs(base - quick.cost_per_h) > 0.02 * base:
        runner.tried.findings.append(f"what-if: current costs {base}, plan says {quick.cost_per_h}")
    for label, cost in by_label.items():
        budget = "budget_per_h" in runner.drawn.sections.get("plan", {})
        if cost is None or base is None or budget:
            continue
        if label.startswith("price") and cost > base * 1.02:
            runner.tried.findings.append(f"what-if: {label} costs {cost}, current {base}")
        if label.startswith(("rate", "without")) and cost < base * 0.98:
            runner.tried.findings.append(f"what-if: {label} costs {cost}, current {base}")
    shown = runner.run("what-if", str(runner.file), "--quick", *words)
    if shown is not None:
        runner.tried.add("what-if", rules_of_text(shown))


def _validate(runner: Runner, best: str, certified: Plan | None) -> None:
    text = runner.run("validate", runner.path(best), "--requests", "4000", "--seeds", "2", "--json")
    if text is None:
        return
    runner.tried.add("validate", rules_of_json(text))
    report = json.loads(text)
    runner.tried.add("validate", rules_of_report(report))
    # A plan that holds holds on other requests, too; a short run says it less exactly.
    if certified is not None and certified.holds and report["attainment"]["high"] < (certified.target or 0.0) - 0.005:
        runner.tried.findings.append(f"validate: {report['attainment']} of a plan certified for {certified.target}")


def _deploy(runner: Runner, rng: random.Random, plan: Plan, best: str) -> None:
    """The files of a random target have the settings of every server that the plan counts on."""
    target = rng.choice([name for name in TARGETS if name not in ("haproxy", "envoy", "nginx")])
    text = runner.run("deploy", runner.path(best), "--to", target)
    if text is None or target not in ("kubernetes", "docker-compose", "kserve", "skypilot", "dstack"):
        return
    for server in plan.to_json()["servers"]:
        if not server["engine"].startswith("vllm") or server["max_sequences"] is None:
            continue
        for flag, value in (
            ("max-num-seqs", server["max_sequences"]),
            # Without chunks, a step holds the longest prompt, and vLLM asks for a limit that says so.
            ("max-num-batched-tokens", server["max_batched_tokens"] if server["is_chunked"] else r"\d+"),
            ("max-model-len", server["max_context"]),
            ("gpu-memory-utilization", server["memory_utilization"]),
        ):
            if not re.search(rf"{flag}\W+{value}\b", text):
                runner.tried.findings.append(f"deploy --to {target}: no --{flag} {value} of {server['replica_type']}")


def _schedule(runner: Runner) -> None:
    text = runner.run("schedule", str(runner.file), "--quick", "--json")
    if text is not None:
        runner.tried.add("schedule", rules_of_json(text))
        runner.tried.add("schedule", rules_of_schedule(json.loads(text)))
    shown = runner.run("schedule", str(runner.file), "--quick")
    if shown is not None:
        runner.tried.add("schedule", rules_of_text(shown))


def peak_bytes() -> int:
    """Most memory that this process had [bytes]."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10


def without_numbers(text: str) -> str:
    """The kind of a finding: its text without figures and names."""
    text = re.sub(r"'[^']*'", "''", text)
    text = re.sub(r"[\w.-]+/[\w.-]+(/[\w.-]+)*( tp\d+)?( ep\d+)?( pp\d+)?( [\w+-]*-?kv)?", "NAME", text)
    return re.sub(r"\d[\d,.]*(e[+-]\d+)?", "#", text)[:160]


__all__: Sequence[str] = ("MOST_BYTES", "Tried", "check", "peak_bytes", "without_numbers")
