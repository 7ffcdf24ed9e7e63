"""Names in the settings that bind one replica type on an instance say what they leave."""

from pathlib import Path

import pytest

from melange.errors import InputError
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


SPLIT = "aws/us-east-1/g6e.12xlarge"
INSTEAD = f"its replica types: {SPLIT} tp2, {SPLIT} tp4; its accelerator: L40S"


@pytest.mark.parametrize("key", ["require", "exclude", "spare_replicas", "min_replicas"])
@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        (SPLIT, f"'{SPLIT}' is an offer, but must be a replica type or accelerator", INSTEAD),
        ("g6e.12xlarge", "'g6e.12xlarge' is an instance type, but must be a replica type or accelerator", INSTEAD),
        (f"{SPLIT} tp8", f"unknown replica type or accelerator '{SPLIT} tp8'; did you mean '{SPLIT} tp2' or", ""),
        ("aws", f"unknown replica type or accelerator 'aws'; did you mean '{SPLIT} tp2' or '{SPLIT} tp4'", ""),
    ],
)
def test_an_instance_where_types_are_named_is_refused_with_its_types(
    tmp_path: Path, key: str, name: str, message: str, hint: str
) -> None:
    """Of several types on an instance, none is chosen for the user."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE.replace("[1]", "[2, 4]").replace("variants: [fp8]\n", ""), encoding="utf-8")
    value = f'["{name}"]' if key in ("require", "exclude") else f'{{"{name}": 1}}'
    with pytest.raises(InputError) as caught:
        Session(path, settings=[f"plan.{key}={value}"]).question()
    assert str(caught.value).startswith(f"plan.{key}: {message}")
    assert caught.value.hint == hint


def test_a_stock_suggests_accelerators_too(tmp_path: Path) -> None:
    """All four kinds of names are under one key."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE, encoding="utf-8")
    with pytest.raises(InputError, match=r"instance type, replica type or accelerator 'L40Z'; did you mean 'L40S'"):
        Session(path, settings=["offers.max={L40Z: 1}"]).question()
