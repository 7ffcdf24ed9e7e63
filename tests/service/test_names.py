"""Names in the settings that bind one replica type on an instance say what they leave."""

from pathlib import Path

import pytest

from melange.service.session import Session

SERVICE = """\
model: meta-llama/Llama-3.1-8B
variants: [fp8]
slo: {tpot_ms: 120, ttft_ms: 4000, statistic: mean}
workload: {dataset: arena, rate: 8, buckets: {input: [1000, 20000], output: [20000]}}
offers: {gpus: [L40S], providers: [aws], regions: [us-east-1]}
profile: {tensor_parallel: [1]}
"""
OFFER = "aws/us-east-1/g6e.xlarge"


def said(tmp_path: Path, setting: str) -> list[str]:
    """Cautions on names."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE, encoding="utf-8")
    return [one.message for one in Session(path, settings=[setting]).plan().cautions if one.kind == "one-type"]


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("exclude", f'plan.exclude=["{OFFER}"]'),
        ("min_replicas", f'plan.min_replicas={{"{OFFER}": 3}}'),
        ("spare_replicas", f'plan.spare_replicas={{"{OFFER}": 1}}'),
    ],
)
def test_the_name_of_an_offer_is_also_that_of_one_type(tmp_path: Path, key: str, setting: str) -> None:
    """The plan rents the instance for the other type, and says so."""
    assert said(tmp_path, setting) == [
        f"plan.{key}: {OFFER} is one replica type; it does not include {OFFER} fp8; name each type that you mean"
    ]


@pytest.mark.parametrize(
    "setting",
    [f'plan.exclude=["{OFFER}", "{OFFER} fp8"]', f'plan.exclude=["{OFFER} fp8"]', "plan.min_replicas={L40S: 2}"],
)
def test_other_names_are_clear(tmp_path: Path, setting: str) -> None:
    """Every type, a type that has its own name, an accelerator."""
    assert said(tmp_path, setting) == []
