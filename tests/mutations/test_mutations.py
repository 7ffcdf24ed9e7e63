"""Damaged files of every format: an answer or an error of ours that names the file, never a traceback.

``make mutations`` tries 100,000 of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from answering import finding
from mutate import mutated
from read_formats import Format, formats, write_valid

from melange.cli.app import app

pytestmark = pytest.mark.heavy

# What each format stands in for a whole file; tried with a few hundred mutations in all.
_EACH = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The valid files."""
    made = tmp_path_factory.mktemp("valid")
    before = os.environ.get("MELANGE_CACHE")
    os.environ["MELANGE_CACHE"] = str(made / "cache")
    write_valid(made)
    yield made
    if before is None:
        del os.environ["MELANGE_CACHE"]
    else:
        os.environ["MELANGE_CACHE"] = before


@pytest.fixture(scope="module")
def known(folder: Path) -> dict[str, Format]:
    """All formats, by name."""
    return {one.name: one for one in formats(folder)}


NAMES = (
    *("service", "workload", "profile", "plan", "certified", "release", "aibrix", "hf-dense", "hf-moe", "hf-latent"),
    *("hf-vision", "load-own", "load-vllm", "load-aiperf", "load-guidellm", "load-genai-perf", "load-inference-perf"),
    *("load-llmperf", "load-aibrix", "load-table", "journal", "histogram-json", "histogram-csv", "metrics", "log-csv"),
    *("log-jsonl", "log-parquet", "log-litellm", "log-langfuse", "log-openai", "log-list", "log-gzip", "offers"),
    *("skypilot", "gpuhunt", "prices-aws-go", "prices-azure-go", "prices-karpenter-gcp", "prices-ec2-shop"),
    *("prices-rental", "prices-zip", "hf-quant", "service-keys", "settings", "options-kubernetes", "options-nginx"),
    *(
        "options-docker-compose",
        "options-terraform",
        "flags-log",
        "flags-validate",
        "flags-deploy",
        "report",
        *("rates", "sizes", "week", "demand", "schedule", "fleet", "factors"),
        "replicas",
    ),
    *("keys", "cache"),
    *(
        "regions",
        "round-trips",
        "regional",
        "joint",
        "scheduled",
        "deferred",
        "layouts",
        "pools",
        "pools-plan",
        "warehouse",
        "tenants",
    ),
    *("state", "decisions", "log-spans", "page", "api-plan", "api-what-if", "api-validate", "api-deploy"),
)


def test_every_format_is_tried(known: dict[str, Format]) -> None:
    """The list above is that of the formats."""
    assert tuple(known) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_undamaged_file_is_read(name: str, known: dict[str, Format], folder: Path, tmp_path: Path) -> None:
    """Without an error by each command, so that what is damaged below was read before."""
    one = known[name]
    file = tmp_path / one.suffix
    for command in one.commands:
        file.write_bytes(one.text)
        Path(f"{file}.out").unlink(missing_ok=True)
        if callable(command):
            command(file)
        else:
            words = [part.replace("{x}", str(folder)).replace("{}", str(file)) for part in command]
            app(words, standalone_mode=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("default")
def test_a_damaged_file_is_answered(name: str, known: dict[str, Format], folder: Path, tmp_path: Path) -> None:
    """Whatever was done to it: wrong values at any key, bytes anywhere, other encodings, nothing at all."""
    one, rng = known[name], random.Random(name)
    file = tmp_path / one.suffix
    for _ in range(_EACH):
        file.write_bytes(mutated(one.text, one.suffix.rpartition(".")[2], rng))
        command = rng.choice(one.commands)
        assert not finding(command, file, folder), file.read_bytes()[:1_000]
