"""Quantized variants through the real command."""

import json
from pathlib import Path

from forked import command

SERVICE = """\
model: meta-llama/Llama-3.1-70B
slo: {tpot_ms: 60}
workload: {dataset: arena, rate: 8}
offers: {gpus: [A100-80GB, H100-80GB], providers: [aws]}
"""


def test_a_plan_may_choose_variants_where_the_service_allows_them(tmp_path: Path) -> None:
    """A 70B model gets cheaper with int4 allowed; the answer names the variant and warns; without, none is there."""
    (tmp_path / "service.yaml").write_text(SERVICE)

    def plan(*settings: str) -> dict[str, object]:
        done = command("plan", "--quick", "service.yaml", "--json", *settings, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    published, allowed = plan(), plan("--set", "variants=[fp8, int4]")
    assert {one["variant"] for one in published["replica_types"]} == {""}  # type: ignore[attr-defined]
    assert {one["variant"] for one in allowed["replica_types"]} == {"", "fp8", "int4"}  # type: ignore[attr-defined]
    assert allowed["cost_per_h"] < published["cost_per_h"]  # type: ignore[operator]
    rented = [name for name, count in allowed["instances"].items() if count]  # type: ignore[attr-defined]
    assert all(name.endswith((" fp8", " int4")) for name in rented)
    kinds = [[one["kind"] for one in answer["warnings"]] for answer in (published, allowed)]  # type: ignore[attr-defined]
    assert ["quantized" in kind for kind in kinds] == [False, True]


def test_variants_need_estimates(tmp_path: Path) -> None:
    """A measured profile alone cannot be quantized on paper."""
    (tmp_path / "service.yaml").write_text(f"{SERVICE}variants: fp8\nprofile: {{source: measured.json}}\n")
    done = command("plan", "--quick", "service.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "variants are estimated" in done.stderr
