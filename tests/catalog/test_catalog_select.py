import json

import pytest

from melange.catalog.bundled import accelerators
from melange.catalog.catalog import load_catalog
from melange.catalog.names import find_accelerator
from melange.errors import InputError

CATALOG = load_catalog()


def test_nothing_asked_for_is_everything() -> None:
    """No filter, or an empty one, leaves the catalog as it is."""
    assert CATALOG.select().offers == CATALOG.offers
    assert CATALOG.select(gpus=[], providers=[]).offers == CATALOG.offers


def test_filters_apply_together() -> None:
    """Accelerator, provider, market and region must all fit, in any case."""
    chosen = CATALOG.select(gpus=["l4", "H100"], providers=["GCP"], markets=["spot"], regions=["us-central1"])
    assert {offer.accelerator for offer in chosen.offers} == {"L4", "H100-80GB"}
    assert {(offer.provider, offer.market) for offer in chosen.offers} == {("gcp", "spot")}
    assert set(chosen.accelerators) == {"L4", "H100-80GB"}
    assert chosen.models == CATALOG.models


def test_offers_of_no_region_pass_every_region() -> None:
    """A price that holds everywhere holds there."""
    chosen = CATALOG.select(providers=["runpod"], regions=["us-east-1"])
    assert {offer.region for offer in chosen.offers} == {""}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"gpus": ["H10O"]}, "unknown gpu 'H10O'; did you mean 'H100'"),
        ({"gpus": ["A100"]}, "gpu 'A100' may be A100-40GB or A100-80GB"),
        ({"providers": ["awss"]}, "unknown provider 'awss'; did you mean 'aws'"),
        ({"markets": ["spott"]}, "unknown market 'spott'; did you mean 'spot'"),
        ({"regions": ["us-east-11"]}, "unknown region 'us-east-11'; did you mean 'us-east-1'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(filters: dict[str, list[str]], message: str) -> None:
    """Nothing is silently filtered to nothing."""
    with pytest.raises(InputError, match=message):
        CATALOG.select(**filters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "memory_gib", "ours"),
    [
        ("H100", None, "H100-80GB"), ("h100-sxm", None, "H100-80GB"), ("H100-80GB", 80, "H100-80GB"),
        ("A100", 40, "A100-40GB"), ("A100", 80, "A100-80GB"), ("A100-80GB", 80, "A100-80GB"), ("A100", None, None),
        ("A10G", 24, "A10G"), ("A10G", 22.4, "A10G"), ("RTX6000-Ada", 48, "RTX6000Ada"), ("A6000", 48, "RTXA6000"),
        ("NVIDIA RTX A6000", 48, "RTXA6000"), ("GeForce RTX 4090", 24, "RTX4090"), ("H100NVL", 94, "H100-NVL-94GB"),
        ("V100", 32, "V100-32GB"), ("B200", 192, "B200"), ("H100", 94, None), ("K80", 12, None),
        ("A100-80G-PCIe", 80, "A100-PCIe-80GB"), ("RTX-PRO-6000", 96, "RTXPRO6000"), ("MI300X", 192, "MI300X"),
    ],
)  # fmt: skip
def test_other_catalogs_names_are_understood(name: str, memory_gib: float | None, ours: str | None) -> None:
    """By spelling, and within a family by memory; a part whose memory does not fit is not ours."""
    assert find_accelerator(name, accelerators(), memory_gib) == ours


def test_every_accelerator_answers_to_its_own_name() -> None:
    """No alias of one part hides another part's name."""
    assert all(CATALOG.find_accelerator(name) == name for name in accelerators())
    assert all(CATALOG.find_accelerator(name.lower()) == name for name in accelerators())


def test_the_catalog_is_json() -> None:
    """Three lists of plain values, as long as what they list."""
    content = json.loads(json.dumps(CATALOG.to_json(), allow_nan=False))
    assert len(content["offers"]) == len(CATALOG.offers)
    assert content["offers"][0]["seen"][:2] == "20"
    assert {item["name"] for item in content["accelerators"]} == set(accelerators())
    assert {item["name"] for item in content["models"]} == set(CATALOG.models)
