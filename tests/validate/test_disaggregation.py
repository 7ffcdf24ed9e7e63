"""Prefill and decode pools: what each is planned for, what both hold together, and when they are chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from melange.catalog.bundled import find_model
from melange.catalog.offer import Offer
from melange.deploy.launch import launch_of
from melange.deploy.one_pool import refuse_pools
from melange.deploy.render import TARGETS, render
from melange.deploy.server_options import ServerOptions
from melange.errors import InfeasibleError, InputError
from melange.plan.disaggregated import DisaggregatedPlan
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.server import servers_of
from melange.present.terminal.disaggregated_page import disaggregated_page
from melange.profile.estimate_inputs import EstimateInputs
from melange.replica.layout_cost import NETWORK_BYTES_PER_S
from melange.service.disaggregation import in_pools
from melange.service.fleet_session import FleetSession
from melange.service.regional_session import RegionalSession
from melange.service.session import Session
from melange.service.what_if import Variant, answer
from melange.slo import Slo
from melange.validate.disaggregation.disaggregate import Search, disaggregate
from melange.validate.disaggregation.halves import cached_in, halves_of, prompts_in, prompts_of
from melange.validate.disaggregation.together import play_both
from melange.workload.arrivals import draw
from melange.workload.workload import Buckets, Workload

LLAMA = find_model("meta-llama/Llama-3.1-8B-Instruct")
PRICES = {"L4": 0.8, "L40S": 1.86, "H100-80GB": 6.88}
BUCKETS = Buckets(input_edges=(500, 2000), output_edges=(100, 400))
TRAFFIC = Workload.at_upper_edges(BUCKETS, [[4.0, 2.0], [1.0, 3.0]])
QUICK = Search(is_quick=True)


def inputs(traffic: Workload = TRAFFIC, slo: Slo | None = None, **settings: object) -> EstimateInputs:
    """Three accelerators, one each."""
    offers = [
        Offer(provider="p", region="", instance_type=name, accelerator=name, accelerators=1, cost_per_h=cost)
        for name, cost in PRICES.items()
    ]
    limits = slo or Slo(ttft_s=2.0, tpot_s=0.06)
    return EstimateInputs(model=LLAMA, offers=offers, slo=limits, sizes=traffic, **settings)


def test_prompts_are_those_of_all_completions() -> None:
    """By hand: rates add up, sizes are weighted by them."""
    found = prompts_of(TRAFFIC)
    assert found.request_rate.tolist() == [[6.0], [4.0]]
    assert found.input_tokens.tolist() == [[500.0], [2000.0]]
    assert found.output_tokens.tolist() == [[1.0], [1.0]]
    assert found.total_rate == TRAFFIC.total_rate


def test_each_pool_keeps_its_part_of_the_first_token() -> None:
    """By hand: 131,072 bytes of a token over 1.25 GB/s, a tenth of the limit for the decode replica's first step."""
    halves = halves_of(inputs(), Options(), "")
    assert halves.token_bytes == 131_072
    transfer_s = 2000 * 131_072 / NETWORK_BYTES_PER_S
    assert halves.prefill.profile.slo is not None
    assert halves.decode.profile.slo is not None
    assert halves.prefill.profile.slo.ttft_s == pytest.approx(2.0 - 0.2 - transfer_s, abs=1e-3)
    assert (halves.decode.profile.slo.ttft_s, halves.decode.profile.slo.tpot_s) == (0.2, 0.06)
    # No replica sends more than its network takes, and decode replicas read no prompts.
    most = 0.8 * NETWORK_BYTES_PER_S / (500 * 131_072)
    assert halves.prefill.profile.max_request_rate.max() <= most + 1e-9
    whole, apart = (
        halves_of(inputs(), Options(), "").decode.profile,
        halves_of(inputs(Workload.at_upper_edges(BUCKETS, TRAFFIC.request_rate)), Options(), "").decode.profile,
    )
    assert np.array_equal(whole.max_request_rate, apart.max_request_rate)
    with pytest.raises(InfeasibleError, match="leaves nothing for prompts"):
        halves_of(inputs(slo=Slo(ttft_s=0.2, tpot_s=0.06)), Options(), "")


def test_two_pools_cost_what_each_does_and_are_read_again(tmp_path: Path) -> None:
    """Each pool is a plan file of its own; the stock that both draw on is one."""
    found = disaggregate(inputs(), Options(), QUICK)
    assert found.cost_per_h == found.prefill.cost_per_h + found.decode.cost_per_h
    assert found.holds is None
    assert found.savings is None
    assert replace(found, aggregated_per_h=2 * found.cost_per_h).savings == 0.5
    names = {name for one in found.plans.values() for name, n in one.replicas.items() if n}
    assert all(name.endswith(("prefill", "decode")) for name in names)
    found.save(tmp_path / "pools.json")
    document = json.loads((tmp_path / "pools.json").read_text())
    assert document["melange"] == "disaggregated/1"
    for name, one in found.plans.items():
        assert Plan.read(tmp_path / f"pools-{name}.json").fingerprint == one.fingerprint
    stock = dict.fromkeys(PRICES, 1)
    used = disaggregate(
        inputs(Workload.at_upper_edges(BUCKETS, [[1, 0], [0, 1]])), Options(max_accelerators=stock), QUICK
    )
    for name in PRICES:
        both = [
            one.instances[[t.offer.accelerator == name for t in one.replica_types]].sum() for one in used.plans.values()
        ]
        assert sum(both) <= 1
    with pytest.raises(InfeasibleError, match="no pair of pools carries the traffic"):
        disaggregate(inputs(), Options(max_accelerators={"L4": 1, "L40S": 0, "H100-80GB": 0}), QUICK)


def test_a_request_passes_both_pools() -> None:
    """First token after reading, moving and one step; every request is timed against its own arrival."""
    found = disaggregate(inputs(), Options(headroom=0.3), QUICK)
    arrivals = draw(TRAFFIC, 800, seed=3)
    assert prompts_in(arrivals).output_tokens.tolist() == [1] * 800
    assert (cached_in(arrivals).cached_tokens == arrivals.input_tokens - 1).all()
    played = play_both(found.prefill, found.decode, arrivals, 131_072.0)
    assert np.isfinite(played.ttft_s).all()
    assert (played.ttft_s > played.transfer_s).all()
    assert played.transfer_s == pytest.approx(arrivals.input_tokens * 131_072 / NETWORK_BYTES_PER_S)
    assert played.met(Slo(ttft_s=60.0, tpot_s=10.0)).all()
    assert not played.met(Slo(ttft_s=1e-3, tpot_s=10.0)).any()
    # Decode replicas stand still for nobody's prompt: steps are those of running requests alone.
    assert np.quantile(played.tpot_s, 0.99) < 0.06


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(4))
def test_certified_pools_hold_on_other_requests(seed: int) -> None:
    """Drawn traffic and limits; the share that met them is within two points of the certified one."""
    rng = np.random.default_rng([seed, 41])
    traffic = Workload.at_upper_edges(BUCKETS, rng.uniform(0.5, 6.0, BUCKETS.shape))
    slo = Slo(ttft_s=float(rng.uniform(1.0, 3.0)), tpot_s=float(rng.uniform(0.03, 0.1)))
    found = disaggregate(inputs(traffic, slo), Options(), Search())
    assert found.holds
    assert found.attainment is not None
    played = play_both(found.prefill, found.decode, draw(traffic, 20_000, seed=777 + seed), 131_072.0)
    assert abs(float(played.met(slo).mean()) - found.attainment) < 0.02


def test_limits_and_options_that_have_no_halves_are_refused() -> None:
    """A limit on whole requests belongs to no pool; names and budgets of one fleet neither."""
    for slo in (Slo(tpot_s=0.06), Slo(ttft_s=1.0), Slo(latency_s=10.0), Slo(ttft_s=1.0, tpot_s=0.1, latency_s=9.0)):
        with pytest.raises(InputError, match=r"plan\.disaggregate needs limits on TTFT and TPOT"):
            disaggregate(inputs(slo=slo), Options(), QUICK)
    with pytest.raises(InputError, match=r"plan\.require is for one fleet"):
        disaggregate(inputs(), Options(require=("L4",)), QUICK)


def test_a_service_chooses_the_cheaper_of_both(tmp_path: Path) -> None:
    """Told, it gets pools whatever they cost; where it may choose, one fleet that is cheaper, with a word on pools."""
    service = tmp_path / "service.yaml"
    service.write_text(
        "model: meta-llama/Llama-3.1-8B-Instruct\nslo: {ttft_ms: 2000, tpot_ms: 60}\n"
        "workload: {dataset: azure-conversation, rate: 4}\n"
        "offers: {gpus: [L4, H100-80GB], providers: [aws], regions: [us-east-1]}\n"
    )
    told, free = (Session(service, settings=[f"plan.disaggregate={value}"]) for value in ("true", "auto"))
    pools = in_pools(told, Session.plan, quick=True)
    assert isinstance(pools, DisaggregatedPlan)
    assert pools.aggregated_per_h == Session(service).plan().cost_per_h
    chosen = in_pools(free, Session.plan, quick=True)
    is_cheaper = pools.cost_per_h < pools.aggregated_per_h
    assert isinstance(chosen, DisaggregatedPlan) == is_cheaper
    if isinstance(chosen, Plan):
        assert any(one.kind == "disaggregate" for one in chosen.cautions)
    assert disaggregated_page(pools)
    measured = Session(service, settings=["plan.disaggregate=true", "profile.simulate=true"])
    with pytest.raises(InputError, match=r"profile\.simulate is for combined replicas"):
        in_pools(measured, Session.plan, quick=True)


def test_pools_are_started_with_their_flags_and_routed_by_others() -> None:
    """VLLM's connector and SGLang's mode; every target says that it does not route to pools, and how to start them."""
    found = disaggregate(inputs(), Options(), QUICK)
    for name, plan in found.plans.items():
        server = servers_of(plan)[0]
        assert server.pool == name
        vllm = launch_of(server, None, plan.slo, 400, ServerOptions()).command
        config = json.loads(vllm[vllm.index("--kv-transfer-config") + 1])
        assert config == {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
        sglang = launch_of(replace(server, engine="sglang", era="sglang"), None, plan.slo, 400, ServerOptions()).shell
        assert f"--disaggregation-mode {name}" in sglang
        for target in TARGETS:
            with pytest.raises(InputError, match=f"the plan covers only the {name} pool") as error:
                render(plan, target)
            assert "--kv-transfer-config" in error.value.hint
    refuse_pools(Session("examples/chat.yaml").plan(), "melange balance")


@pytest.mark.parametrize(
    ("settings", "variants", "flags"),
    [
        ({"kv_dtype": "fp8", "kv_cache_dtype": "fp8"}, (), ["--kv-cache-dtype fp8"]),
        ({"kv_dtype": "fp8", "kv_cache_dtype": "fp8_e5m2"}, (), ["--kv-cache-dtype fp8_e5m2"]),
        ({"kv_dtype": "fp8"}, ("fp8",), ["--quantization fp8", "--kv-cache-dtype fp8"]),
        ({}, ("int4",), ["vllm serve CHECKPOINT-IN-INT4", "--kv-cache-dtype auto"]),
    ],
)
def test_pools_are_started_with_their_data_types(
    settings: dict[str, str], variants: tuple[str, ...], flags: list[str]
) -> None:
    """Those of weights and KV cache, as the plan counts on them, in both pools' commands."""
    for plan in disaggregate(inputs(settings=settings, variants=variants), Options(), QUICK).plans.values():
        with pytest.raises(InputError) as error:
            refuse_pools(plan, "melange balance")
        assert {error.value.hint.count(flag) for flag in flags} == {len(servers_of(plan))}


def _opened(service: Path, settings: list[str], more: Sequence[str]) -> Session:
    return Session(service, settings=[*settings, *more])


def test_questions_about_one_fleet_refuse_two_pools(tmp_path: Path) -> None:
    """They would answer for one fleet, at another cost; plans over time, in regions and on shared pools too."""
    service = tmp_path / "service.yaml"
    service.write_text(
        "model: meta-llama/Llama-3.1-8B-Instruct\nslo: {ttft_ms: 2000, tpot_ms: 60}\n"
        "workload: {dataset: azure-conversation, rate: 4}\n"
        "offers: {gpus: [L4, H100-80GB], providers: [aws], regions: [us-east-1]}\n"
    )
    fleet = tmp_path / "fleet.yaml"
    for value in ("true", "auto"):
        settings = [f"plan.disaggregate={value}"]
        session = Session(service, settings=settings)
        at_home = [*settings, "regions={origins: {europe: {share: 1, at: frankfurt}}}"]

        def joint(value: str = value) -> object:
            text = service.read_text() + f"plan: {{disaggregate: {value}}}\n"
            (tmp_path / "two.yaml").write_text(text)
            fleet.write_text("services:\n  - {name: chat, file: two.yaml}\n")
            return FleetSession(fleet)

        for asked in (
            session.plan, session.answer, session.certified, session.explore, session.schedule, joint,
            partial(answer, partial(_opened, service, settings), Variant(label="current")),
            partial(RegionalSession, service, settings=at_home),
        ):  # fmt: skip
            with pytest.raises(InputError, match=r"plan\.disaggregate: is for melange plan, which plans two pools"):
                asked()
