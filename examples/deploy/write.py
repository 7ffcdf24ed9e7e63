"""One plan for every target: writes a folder for each beside this file; the tests compare (tests/test_examples.py)."""

import shutil
from datetime import date
from pathlib import Path

import melange
from melange.deploy.manifest import Manifest
from melange.deploy.render import TARGETS

HERE = Path(__file__).resolve().parent


def manifests() -> dict[str, Manifest]:
    """The files of a chat service by target: three sizes of prompts, two of answers, on AWS, with L4s in the mix."""
    buckets = melange.Buckets(input_edges=(500, 2000, 16000), output_edges=(100, 1000))
    workload = melange.dataset("azure-conversation", buckets=buckets, request_rate=32.0)
    catalog = melange.load_catalog().select(
        gpus=["L4", "A10G", "L40S", "A100-80GB"], providers=["aws"], regions=["us-east-1"], markets=["on-demand"]
    )
    model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
    profile = melange.estimate(model, catalog.offers, melange.Slo(ttft_s=2.0, tpot_s=0.08), workload)
    plan = melange.solve(workload, profile, melange.Options(require=("L4",)))
    return {target: melange.render(plan, target, written=date(2026, 11, 26)) for target in TARGETS}


if __name__ == "__main__":
    for target, manifest in manifests().items():
        shutil.rmtree(HERE / target, ignore_errors=True)
        manifest.write(HERE / target)
        print(f"{target}: {len(manifest.files)} files")
