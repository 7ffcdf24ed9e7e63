"""A session that shares traffic and capacities answers as one opened afresh."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from melange.service.kept_session import Kept, KeptSession
from melange.service.session import Session

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {ttft_ms: 2000, tpot_ms: 80}
workload: {dataset: arena, rate: 8}
offers: {gpus: [L4, L40S], providers: [aws], regions: [us-east-1]}
"""


def drawn(draw: random.Random) -> list[str]:
    """A few settings."""
    settings = [f"workload.rate={draw.uniform(1, 60):.4g}"] if draw.random() < 0.8 else []
    choices = (
        "slo.ttft_ms=1500",
        "plan.spare_replicas=1",
        "offers.gpus=[L4, L40S]",
        "offers.prices={L4: -20%}",
        "plan.headroom=0.3",
        "workload.size=upper",
        "plan.carbon_price_per_kg=0.1",
        "offers.regions=null",
    )
    return settings + draw.sample(choices, draw.randint(0, 2))


def test_what_is_kept_is_what_would_be_computed(tmp_path: Path) -> None:
    """For changes back and forth: the same fleet, routes, cautions and cost."""
    path, kept, draw = tmp_path / "service.yaml", Kept(), random.Random(5)
    path.write_text(SERVICE)
    for _ in range(5):
        settings = drawn(draw)
        found, wanted = KeptSession(path, settings=settings, kept=kept).plan(), Session(path, settings=settings).plan()
        assert found.instances_by_name == wanted.instances_by_name
        assert found.cost_per_h == pytest.approx(wanted.cost_per_h)
        assert found.share == pytest.approx(wanted.share, abs=1e-6)
        assert found.cautions == wanted.cautions
    assert 1 < len(kept.profiles) < 5
