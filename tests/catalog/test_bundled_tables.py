import json
import subprocess
import sys
from collections import defaultdict
from datetime import date
from pathlib import Path

import pytest

from melange.catalog.bundled import accelerators, find_model, hub_name_by_alias, models, offers, table
from melange.catalog.offer import Offer
from melange.errors import InputError

MODEL_ENTRIES = json.loads(table("models.json"))["models"]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("entry", MODEL_ENTRIES, ids=lambda entry: entry["names"][0])
def test_models_have_their_published_parameter_count(entry: dict[str, object]) -> None:
    """The shape gives the count that its maker publishes, within 0.5 %."""
    if "published_parameters" not in entry:
        pytest.skip("its maker publishes a rounded count or one with an image encoder")
    name = entry["names"][0]  # type: ignore[index]
    assert models()[name].parameters() == pytest.approx(entry["published_parameters"], rel=0.005)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Llama-2-7b-hf", 6.738),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.030),
        ("meta-llama/Llama-3.3-70B-Instruct", 70.55),
        ("mistralai/Mistral-7B-Instruct-v0.3", 7.248),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.70),
        ("Qwen/Qwen2.5-7B-Instruct", 7.616),
        ("Qwen/Qwen3-8B", 8.19),
        ("Qwen/Qwen3-30B-A3B", 30.53),
        ("deepseek-ai/DeepSeek-V3", 671.0),
        ("google/gemma-3-27b-it", 27.4),
        ("microsoft/phi-4", 14.66),
        ("openai/gpt-oss-20b", 20.9),
        ("openai/gpt-oss-120b", 116.8),
        ("zai-org/GLM-4.5-Air", 106.9),
    ],
)
def test_well_known_models_have_their_well_known_size(name: str, billions: float) -> None:
    """The same, against figures written down here, so that a slip in the table cannot hide in the table."""
    assert find_model(name).parameters() / 1e9 == pytest.approx(billions, rel=0.005)


def test_models_answer_to_short_names_and_any_case() -> None:
    """The bare last part, with or without -hf, is enough; every hub name is found as it stands."""
    assert find_model("LLAMA-2-7B").name == "meta-llama/Llama-2-7b-hf"
    assert find_model("qwen3-30b-a3b").name == "Qwen/Qwen3-30B-A3B"
    assert all(find_model(name).name == name for name in models())
    assert set(hub_name_by_alias().values()) == set(models())


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    """A typing error names what was meant; the hint says how any other model can be given."""
    with pytest.raises(InputError, match=r"did you mean 'meta-llama/Llama-3.1-8B") as caught:
        find_model("meta-llama/Llama-3.1-8X")
    assert "config.json" in caught.value.hint


def test_paths_to_models_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A folder without config.json and a path that does not exist are different mistakes."""
    with pytest.raises(InputError, match=r"no config\.json"):
        find_model(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        find_model(tmp_path / "absent" / "config.json")


@pytest.mark.parametrize("accelerator", accelerators().values(), ids=lambda accelerator: accelerator.name)
def test_accelerators_are_physically_sane(accelerator: object) -> None:
    """Narrower types are no slower, links no slower than nothing, figures within the bounds of today's parts."""
    facts = accelerators()[accelerator.name]  # type: ignore[attr-defined]
    flops = facts.flops_by_dtype
    widths = [flops[dtype] for dtype in ("bf16", "fp8", "fp4") if dtype in flops]
    assert widths == sorted(widths)
    assert flops.get("bf16") or flops.get("fp16")
    assert all(5e13 <= value <= 2e16 for value in flops.values())
    assert 14 * 2**30 <= facts.memory_bytes <= 300 * 2**30
    assert 3e11 <= facts.bandwidth_bytes_per_s <= 8e12
    assert 1e9 <= facts.link_bandwidth_bytes_per_s <= 1e12
    assert facts.source
    assert (facts.checked is None) == ("partly checked" in facts.notes)


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    [
        ("L4", "bf16", 121), ("A10G", "bf16", 70), ("H100-80GB", "bf16", 989), ("A100-80GB", "bf16", 312),
        ("H200", "fp8", 1978), ("B200", "fp4", 9000), ("RTX4090", "bf16", 165.2), ("MI300X", "bf16", 1307.4),
    ],
)  # fmt: skip
def test_throughput_is_dense(name: str, dtype: str, tflops: float) -> None:
    """The figures that circulate with sparsity (L4 242, H100 1979, A10 for the A10G) are not ours."""
    assert accelerators()[name].flops(dtype) / 1e12 == pytest.approx(tflops, rel=0.01)


def test_server_edition_is_what_clouds_rent() -> None:
    """RTX PRO 6000: 1597 GB/s, not the workstation card's 1792."""
    assert accelerators()["RTXPRO6000"].bandwidth_bytes_per_s == 1597e9


def test_types_an_accelerator_lacks_run_in_its_sixteen_bit_type() -> None:
    """A T4 has neither fp8 nor bf16."""
    assert accelerators()["T4"].flops("fp8") == accelerators()["T4"].flops("bf16") == 65e12


def test_offers_name_known_accelerators_and_have_source_and_date() -> None:
    """Facts and prices fit together, and every price says where and when it was seen."""
    assert 250 <= len(offers()) <= 450
    for offer in offers():
        assert offer.accelerator in accelerators()
        assert offer.source
        assert offer.seen is not None
        assert date(2025, 1, 1) <= offer.seen <= date(2026, 11, 23)
        assert (offer.interconnect == "") == (offer.accelerators == 1)


def test_prices_are_plausible() -> None:
    """Per accelerator and hour between 10 cents and 30 dollars, and near what others ask."""
    by_accelerator: dict[tuple[str, str], list[float]] = defaultdict(list)
    for offer in offers():
        price = offer.cost_per_h / offer.accelerators
        assert 0.1 <= price <= 30, offer.name
        by_accelerator[offer.accelerator, offer.market].append(price)
    for prices in by_accelerator.values():
        assert max(prices) <= 12 * min(prices)


def test_spot_is_never_dearer_than_on_demand() -> None:
    """The same shape of the same provider and region, both markets."""

    def key(offer: Offer) -> tuple[str, str, str]:
        return offer.provider, offer.region, offer.instance_type

    on_demand = {key(offer): offer.cost_per_h for offer in offers() if offer.market == "on-demand"}
    both = [offer for offer in offers() if offer.market == "spot" and key(offer) in on_demand]
    assert len(both) >= 20
    assert all(offer.cost_per_h <= on_demand[key(offer)] for offer in both)


def test_no_two_offers_differ_in_price_alone() -> None:
    """One row for each provider, region, accelerator, count and market."""
    keys = [(o.provider, o.region, o.accelerator, o.accelerators, o.market) for o in offers()]
    assert len(keys) == len(set(keys))


def test_the_papers_accelerators_can_be_rented_singly_or_whole() -> None:
    """L4, A10G, A100-80GB and H100 have on-demand offers at AWS or Google."""
    clouds = {o.accelerator for o in offers() if o.provider in {"aws", "gcp"} and o.market == "on-demand"}
    assert {"L4", "A10G", "A100-80GB", "H100-80GB"} <= clouds


@pytest.mark.parametrize(
    ("instance_type", "interconnect"),
    [
        ("p4d.24xlarge", "nvlink"), ("p5.48xlarge", "nvlink"), ("g5.12xlarge", "pcie"), ("g6e.48xlarge", "pcie"),
        ("a2-ultragpu-2g", "nvlink"), ("g2-standard-96", "pcie"), ("Standard_NC48ads_A100_v4", "nvlink"),
        ("Standard_NC96ads_A100_v4", "pcie"), ("Standard_ND96isr_H100_v5", "nvlink"),
    ],
)  # fmt: skip
def test_the_shape_decides_the_interconnect(instance_type: str, interconnect: str) -> None:
    """An L40S pair talks over PCIe; an A2 pair over NVLink."""
    assert {o.interconnect for o in offers() if o.instance_type == instance_type} == {interconnect}


def test_azure_nc_carries_pcie_cards() -> None:
    """NC A100 v4 are not the SXM parts of ND."""
    assert {o.accelerator for o in offers() if o.instance_type.startswith("Standard_NC24ads_A100")} == {
        "A100-PCIe-80GB"
    }


def test_the_script_says_so_when_the_collected_data_are_absent(tmp_path: Path) -> None:
    """A stranger who runs it gets a sentence, not a traceback, and nothing is written."""
    script = REPOSITORY / "bench" / "catalog.py"
    done = subprocess.run([sys.executable, script, tmp_path, tmp_path], capture_output=True, text=True, check=True)
    assert "skipped" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_bundled_offers_are_what_the_script_derives(tmp_path: Path) -> None:
    """The tables in the package are the script's output, not edited by hand; skipped without the collected data."""
    collected = REPOSITORY.parent / "shared" / "data" / "prices"
    if not (collected / "offers.csv").is_file():
        pytest.skip("the collected data are not part of the repository")
    script = REPOSITORY / "bench" / "catalog.py"
    subprocess.run([sys.executable, script, collected, tmp_path], check=True, capture_output=True)
    for name in ("accelerators.csv", "offers.csv"):
        assert (tmp_path / name).read_text(encoding="utf-8") == table(name)


def test_the_tables_load_fast() -> None:
    """Loading is parsing some hundred lines: no import of pandas or DuckDB hides behind it."""
    code = (
        "import sys; from melange.catalog.catalog import load_catalog; load_catalog(); "
        "print([name for name in ('pandas', 'duckdb', 'ibis', 'numpy', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
