"""The commands in the shell blocks of pages: which of them run here, with what, and why others do not."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

Run = Callable[[list[str], Path], subprocess.CompletedProcess[str]]
LANGUAGES = ("sh", "console")
# Commands that cannot run where the pages are tested: a pattern of the command, and what it needs.
NEEDS = (
    (r"^(pip|make|docker) ", "installs or builds: CI does it by itself"),
    (r"^\. \.venv", "a shell that goes on"),
    (r"^vllm ", "a GPU"),
    (r"^kubectl ", "a cluster"),
    (r"^curl ", "a running server"),
    (r"^melange catalog update", "the network"),
    (r"^melange measure .*--url", "a running server (tests/measure)"),
    (r"^melange balance ", "running servers; serves until it is stopped (tests/deploy/live)"),
    (r"^melange operate .*--(balancer|prometheus|log)", "a live service; runs until stopped (tests/deploy/operate)"),
    (r"^melange operate .*--replay", "the log of a live service (tests/deploy/operate)"),
    (r"^melange ui ", "serves until it is stopped (tests/ui)"),
    (r"--on ray://", "a Ray cluster (make test-ray)"),
    (r"--over week", "a log of at least a week (tests/workload)"),
    (r"^melange serve", "serves until it is stopped (tests/serve)"),
    (r"--anchor results/", "the results of load tests on a GPU (tests/cli/test_anchors.py)"),
    (
        r"(--profile (measured|p|small|large)|deploy live-plan)\.json",
        "measurements of a running server (tests/cli/test_measure.py)",
    ),
    (r"profile\.step_times=aiconfigurator", "aiconfigurator (make test-aiconfigurator)"),
    (r"--observed factors\.json", "factors of a live balancer (tests/deploy/live/test_step_factors.py)"),
)
# What a page takes as given: commands that make it.
SERVICE = "cp examples/chat.yaml service.yaml"
LIVE = (
    "melange workload examples/requests.parquet --out live.json",
    "melange profile service.yaml --set workload='{file: live.json}' --out profile.json",
)
REGIONS = (
    "sed 's/us-east-1]/us-east-1, eu-central-1]/' examples/chat.yaml > service.yaml",
    "echo 'regions: {origins: {west: {share: 0.6, at: us-east-1}, east: {share: 0.4, at: paris}}}' >> service.yaml",
)
GIVEN = {
    "docs/aiconfigurator.md": (SERVICE,),
    "docs/anchors.md": (SERVICE,),
    "docs/balance.md": (SERVICE, *LIVE),
    "docs/deploy.md": (SERVICE,),
    "docs/measure.md": (SERVICE,),
    "docs/schedule.md": ("cp -r examples/week examples/week.yaml .", "mv week.yaml service.yaml"),
    "docs/regions.md": REGIONS,
    "docs/servers.md": (SERVICE,),
    "docs/how-to/new-service.md": (SERVICE,),
}


def commands(text: str, language: str) -> Iterator[str]:
    """The commands of a block, continued lines joined and variables that it sets put before those that follow."""
    lines = text.replace("\\\n", " ").splitlines()
    if language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    variables = ""
    for line in lines:
        if re.match(r"\w+=", line):
            variables += f"{line}; "
        elif line.strip() and not line.startswith("#"):
            yield f"{variables}{line.strip()}"


def needs(command: str) -> str | None:
    """What a command needs that is not here; None where it can run."""
    return next((reason for pattern, reason in NEEDS if re.search(pattern, bare(command))), None)


def bare(command: str) -> str:
    """A command without the variables that are set before it."""
    return re.sub(r"""^(\w+=("[^"]*"|'[^']*'|\S*); )+""", "", command)


def run_all(text: str, language: str, run: Run, folder: Path) -> None:
    """Run the commands of a block that can run here, one after the other."""
    for command in commands(text, language):
        if needs(command) is None:
            done = run(["bash", "-euo", "pipefail", "-c", command], folder)
            if done.returncode:
                raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
