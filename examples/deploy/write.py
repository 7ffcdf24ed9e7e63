"""One plan and one schedule for every target: writes a folder for each; tests compare (tests/test_examples.py)."""

import shutil
from datetime import date
from pathlib import Path

import melange
from melange.deploy.manifest import Manifest
from melange.deploy.render import TARGETS
from melange.deploy.scaling_rule import SCHEDULE_TARGETS, render_rule

HERE = Path(__file__).resolve().parent
WRITTEN = date(2026, 11, 26)


def manifests() -> dict[str, Manifest]:
    """The files by folder: of plans under the target's name, of schedules under ``schedule``."""
    return {**of_plan(), **of_schedule()}


def of_plan() -> dict[str, Manifest]:
    """A chat service: three sizes of prompts, two of answers, on AWS, with L4s in the mix."""
    buckets = melange.Buckets(input_edges=(500, 2000, 16000), output_edges=(100, 1000))
    workload = melange.dataset("azure-conversation", buckets=buckets, request_rate=32.0)
    catalog = melange.load_catalog().select(
        gpus=["L4", "A10G", "L40S", "A100-80GB"], providers=["aws"], regions=["us-east-1"], markets=["on-demand"]
    )
    model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
    profile = melange.estimate(model, catalog.offers, melange.Slo(ttft_s=2.0, tpot_s=0.08), workload)
    plan = melange.solve(workload, profile, melange.Options(require=("L4",)))
    return {target: melange.render(plan, target, written=WRITTEN) for target in TARGETS}


def of_schedule() -> dict[str, Manifest]:
    """The days of examples/week.yaml: an hour of the day has a fleet, some of it reserved and some on spot."""
    session = melange.Session(HERE.parent / "week.yaml", settings=["workload.over=day"])
    schedule = session.schedule(quick=True)
    return {f"schedule/{target}": render_rule(schedule, target, written=WRITTEN) for target in SCHEDULE_TARGETS}


if __name__ == "__main__":
    for folder, manifest in manifests().items():
        shutil.rmtree(HERE / folder, ignore_errors=True)
        manifest.write(HERE / folder)
        print(f"{folder}: {len(manifest.files)} files")
