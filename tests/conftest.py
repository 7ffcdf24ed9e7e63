"""Named small cases: one model, one card of round figures, and the bundled ones."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model


@pytest.fixture
def llama() -> Model:
    """Llama-2-7b: 6.7 billion weights, 0.5 MiB of KV cache a token."""
    return find_model("meta-llama/Llama-2-7b-hf")


@pytest.fixture
def plain() -> Accelerator:
    """A card of round figures: 100 GB, 1 TB/s, 100 TFLOPS, links of 100 and 10 GB/s."""
    return Accelerator(
        name="plain",
        vendor="test",
        architecture="Hopper",
        memory_bytes=100e9,
        bandwidth_bytes_per_s=1e12,
        flops_by_dtype={"bf16": 100e12, "fp8": 200e12},
        link="NVLink",
        link_bandwidth_bytes_per_s=100e9,
        pcie_bandwidth_bytes_per_s=10e9,
        source="invented",
    )


@pytest.fixture
def cards() -> dict[str, Accelerator]:
    """The bundled accelerators."""
    return dict(accelerators())


@pytest.fixture(scope="session")
def plain_estimate() -> ModuleType:
    """The benchmark's baseline: the closed form in plain Python."""
    path = Path(__file__).parents[1] / "bench" / "plain_estimate.py"
    spec = importlib.util.spec_from_file_location("plain_estimate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def modules() -> dict[str, ast.Module]:
    """The package's source, parsed, by path within ``src/melange``."""
    package = Path(__file__).parents[1] / "src" / "melange"
    return {path.relative_to(package).as_posix(): ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}


@pytest.fixture(autouse=True)
def without_fetched_prices(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests rest on the bundled prices, whatever ``melange catalog update`` has fetched on this machine."""
    monkeypatch.setenv("MELANGE_DATA", str(tmp_path_factory.getbasetemp() / "no-fetched-prices"))
