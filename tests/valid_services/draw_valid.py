"""Draw random valid services: every setting of the schema, in combinations that a person might write.

Service N of a seed depends only on the seed and on N. What a service may not combine (classes and a budget, for
example) is drawn too: the error must say so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import yaml
from draw_parts import Random, Section, between, picked, rounded, rows_of, shares_of

from melange.catalog.bundled import models
from melange.catalog.catalog import load_catalog
from melange.catalog.model import Model
from melange.catalog.variants import VARIANTS
from melange.replica.era import kind_of
from melange.workload.datasets import datasets

ENGINES = (
    *("vllm", "vllm", "vllm", "sglang", "sglang", "trtllm", "vllm-0.2", "vllm-0.5", "vllm-0.7", "vllm-1"),
    *("vllm==0.3.3", "vllm==0.6.4", "vllm==0.8.5", "vllm==0.11.0", "vllm==0.19.0", "sglang==0.4.6", "sglang==0.5.5"),
    *("trtllm==0.10.0", "trtllm==0.17.0", "trtllm==1.0.0", "trtllm==1.2.0", "trtllm-1.0"),
)
CITIES = ("amsterdam", "frankfurt", "iowa", "london", "paris", "singapore", "sydney", "tokyo", "virginia")
STATISTICS = ("mean", "mean", "mean", "p50", "p90", "p95", "p99", "p99.9")
DAY_WINDOWS = 24


@dataclass(frozen=True)
class Drawn:
    """A service: its sections, the files beside it, and a text of both."""

    name: str
    sections: Section
    files: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Its service.yaml."""
        return yaml.safe_dump(self.sections, sort_keys=False, default_flow_style=None, width=100)

    @property
    def is_over_time(self) -> bool:
        """Whether its traffic has times, so that it can be scheduled."""
        return "over" in self.sections["workload"]


def service(seed: int, number: int, *, is_small: bool = False) -> Drawn:
    """Service ``number`` of a seed; a small one has a few offers, little traffic and rates by closed form."""
    rng = Random(f"{seed}/{number}")
    files: dict[str, str] = {}
    model = _model(rng)
    sections: Section = {"model": model.name, "engine": _engine(rng, model)}
    if rng.random() < 0.2:
        sections["variants"] = rng.sample(VARIANTS, rng.randint(1, 4))
    sections["slo"] = _slo(rng, model, is_small=is_small)
    sections["workload"] = _workload(rng, files, is_small=is_small)
    engine = sections["engine"]
    is_without = isinstance(engine, dict) and engine.get("enable_prefix_caching") is False
    if is_without and sections["workload"].get("prefix_hit_rate"):  # hits without a cache are an error
        del engine["enable_prefix_caching"]
    if is_small or rng.random() < 0.85:
        sections["offers"] = _offers(rng, files, is_small=is_small)
    if rng.random() < 0.25:
        sections["profile"] = _profile(rng, is_small=is_small)
    if rng.random() < 0.65:
        sections["plan"] = _plan(rng, sections)
    if is_small:
        sections.setdefault("plan", {})["time_limit_s"] = 2.0
    if rng.random() < 0.12:
        sections["start_up"] = _start_up(rng)
    if "over" in sections["workload"]:
        sections["schedule"] = _schedule(rng)
    elif rng.random() < 0.06:
        sections["regions"] = _regions(rng, sections)
    if rng.random() < 0.08:
        sections["classes"] = _classes(rng, sections)
    return Drawn(
        name=f"{seed}-{number}", sections={key: value for key, value in sections.items() if value}, files=files
    )


@cache
def _by_kind() -> dict[str, tuple[Model, ...]]:
    kinds: dict[str, list[Model]] = {}
    for one in models().values():
        kinds.setdefault(kind_of(one), []).append(one)
    return {kind: tuple(found) for kind, found in sorted(kinds.items())}


def _model(rng: Random) -> Model:
    """A model near a random size of a random kind."""
    known = _by_kind()[rng.choice(sorted(_by_kind()))]
    size = between(rng, 1e9, 7e11)
    near = sorted(known, key=lambda one: abs(math.log(one.parameters() / size)))[:8]
    return rng.choice(near)


def _engine(rng: Random, model: Model) -> str | Section:
    name = rng.choice(ENGINES)
    if rng.random() < 0.4:
        return name
    base, _, release = name.partition("==")
    found: Section = {"name": base} | ({"version": release} if release else {})
    if rng.random() < 0.4:
        found["max_num_seqs"] = round(between(rng, 1, 4096))
    if rng.random() < 0.3:
        found["max_num_batched_tokens"] = max(found.get("max_num_seqs", 1), round(between(rng, 256, 65536)))
    if rng.random() < 0.3:
        found["gpu_memory_utilization"] = round(rng.uniform(0.5, 0.98), 2)
    if rng.random() < 0.2:
        found["kv_cache_dtype"] = rng.choice(["auto", "fp8", "fp8_e4m3", "fp8_e5m2"])
    if rng.random() < 0.4:
        found["enable_prefix_caching"] = rng.random() < 0.75
    if rng.random() < 0.25:
        found["speculative"] = _speculative(rng, model)
    return found


def _speculative(rng: Random, model: Model) -> Section:
    method = rng.choice(["ngram", "ngram", "draft_model", "eagle3", "mtp"])
    found: Section = {
        "num_speculative_tokens": rng.randint(1, rng.choice([4, 8, 32])),
        "acceptance_rate": round(rng.uniform(0, 0.95), 2),
        "method": method,
    }
    if method == "draft_model":
        smaller = sorted(one.name for one in models().values() if one.parameters() < model.parameters() / 4)
        found["model"] = rng.choice(smaller) if smaller else model.name
    elif method == "eagle3":
        found["model"] = "own/eagle3-head"
    return found


def _slo(rng: Random, model: Model, *, is_small: bool) -> Section:
    """Limits that a model of this size can meet somewhere, most of the time."""
    scale = max(1.0, (model.active_parameters() / 1e10) ** 0.5)
    names = rng.choice(
        [["ttft_ms", "tpot_ms"], ["ttft_ms", "tpot_ms"], ["tpot_ms"], ["ttft_ms"], ["ntpot_ms"], ["latency_ms"],
         ["ttft_ms", "tpot_ms", "latency_ms"], ["ttft_ms", "ntpot_ms"]]
    )  # fmt: skip
    base = {"ttft_ms": (400, 2e4), "tpot_ms": (15, 300), "ntpot_ms": (20, 600), "latency_ms": (5e3, 3e5)}
    found: Section = {name: rounded(scale * between(rng, *base[name])) for name in names}
    if rng.random() < 0.3:
        found["statistic"] = "mean" if is_small else rng.choice(STATISTICS)
        return found
    if rng.random() < 0.7:
        found["attainment"] = rng.choice([0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0])
    return found


def _workload(rng: Random, files: dict[str, str], *, is_small: bool) -> Section:
    rate = rounded(between(rng, 0.01, 50 if is_small else 5000))
    kind = rng.choices(["dataset", "mixture", "histogram", "trace", "rates"], [4, 2, 2, 1, 1])[0]
    names = list(datasets())
    found: Section = {}
    if kind == "dataset":
        found = {"dataset": rng.choice(names), "rate": rate}
    elif kind == "mixture":
        chosen = rng.sample(names, rng.randint(2, min(4, len(names))))
        shares = shares_of(rng, len(chosen))
        found = {"dataset": dict(zip(chosen, shares, strict=True)), "rate": rate}
    elif kind == "histogram":
        name = rng.choice(["sizes.csv", "sizes.json"])
        files[name] = _histogram(rng, name)
        found = {"histogram": name, "rate": rate}
    elif kind == "trace":
        files["log.csv"] = _log(rng, rate)
        found = {"trace": "log.csv"} | rng.choice([{}, {"rate": rate}, {"rate": "p95", "window": "1m"}])
    else:
        files["rates.csv"], files["sizes.csv"] = _over_time(rng, rate)
        found = {"rates": "rates.csv", "sizes": "sizes.csv", "over": "day"}
    if kind in ("dataset", "mixture", "trace") and rng.random() < 0.3:
        found["buckets"] = {"input": _edges(rng, 100, 131072), "output": _edges(rng, 10, 8192)}
    if rng.random() < 0.2:
        found["size"] = "upper"
    if rng.random() < 0.35:
        found["prefix_hit_rate"] = rng.choice([0.0, 0.1, 0.4, 0.7, 0.9, 0.99])
    return found


def _edges(rng: Random, least: float, most: float) -> list[int]:
    """Upper edges, of which the last covers nearly all sizes."""
    return sorted({*(round(between(rng, least, most)) for _ in range(rng.randint(0, 9))), round(most)})


def _histogram(rng: Random, name: str) -> str:
    inputs, outputs = _edges(rng, 16, between(rng, 100, 120000)), _edges(rng, 2, between(rng, 4, 8000))
    table = [[rng.choice([0, rng.random(), rng.random() ** 4]) for _ in outputs] for _ in inputs]
    table[0][0] += 0.01
    total = sum(map(sum, table))
    share = [[cell / total for cell in row] for row in table]
    if name.endswith("json"):
        return json.dumps({"input_edges": inputs, "output_edges": outputs, "share": share})
    return rows_of([["input_tokens_upto", *(f"out_{edge}" for edge in outputs)]] + [
        [edge, *(repr(cell) for cell in row)] for edge, row in zip(inputs, share, strict=True)
    ])  # fmt: skip


def _log(rng: Random, rate: float) -> str:
    """A log of a few hundred requests."""
    rows: list[Sequence[object]] = [["arrival_s", "input_tokens", "output_tokens"]]
    at, middle, long = 0.0, between(rng, 50, 8000), between(rng, 5, 800)
    for _ in range(rng.randint(50, 600)):
        at += rng.expovariate(rate)
        sizes = (
            min(round(middle * rng.lognormvariate(0, 1)) + 1, 30000),
            min(round(long * rng.lognormvariate(0, 1)) + 1, 4000),
        )
        rows.append([f"{at:.6f}", *sizes])
    return rows_of(rows)


def _over_time(rng: Random, rate: float) -> tuple[str, str]:
    """Rates over three days, and the sizes of all."""
    swing, rates = rng.uniform(0, 0.9), [["start", "rate"]]
    for hour in range(3 * DAY_WINDOWS):
        factor = 1 + swing * math.sin(2 * math.pi * hour / DAY_WINDOWS) + rng.uniform(-0.05, 0.05)
        rates.append([f"2026-03-{2 + hour // 24:02}T{hour % 24:02}:00", f"{max(rate * factor, 1e-3):.6g}"])
    sizes: list[Sequence[object]] = [["start", "input_tokens_upto", "output_tokens_upto", "share"]]
    shares = shares_of(rng, 4)
    for place, share in enumerate(shares):
        sizes.append(["2026-03-02T00:00", [250, 2000][place // 2], [100, 600][place % 2], share])
    return rows_of(rates), rows_of(sizes)


def _offers(rng: Random, files: dict[str, str], *, is_small: bool) -> Section:
    catalog = load_catalog()
    found: Section = {}
    if rng.random() < 0.12:
        files["offers.csv"] = _price_list(rng)
        found["file"] = "offers.csv"
        return found
    if rng.random() < 0.5:
        found["gpus"] = sorted(rng.sample(_cards(), rng.randint(2, 6)))
    if is_small or rng.random() < 0.6:
        found["providers"] = rng.sample(["aws", "gcp", "azure", "runpod", "crusoe", "verda"], rng.randint(1, 2))
    elif rng.random() < 0.1:
        found["regions"] = ["us-east-1", "us-central1", "eastus"]
    if rng.random() < 0.4:
        found["market"] = rng.choice(
            ["spot", ["on-demand", "spot"], ["on-demand", "reserved"], ["on-demand", "spot", "reserved"]]
        )
    markets = found.get("market", ["on-demand"])
    left = catalog.select(
        gpus=found.get("gpus"),
        providers=found.get("providers"),
        regions=found.get("regions"),
        markets=[markets] if isinstance(markets, str) else markets,
    ).offers
    if left and rng.random() < 0.25:
        one = rng.choice(left)
        found["max"] = {
            rng.choice(
                [one.accelerator, "/".join(part for part in (one.provider, one.region, one.instance_type) if part)]
            ): rng.choice([0, 1, 8, 64])
        }
    if left and rng.random() < 0.25:
        one = rng.choice(left)
        found["prices"] = {
            rng.choice([one.accelerator, one.provider, one.market]): rng.choice(["-30%", "+15%", "-90%"])
        }
    return found


@cache
def _cards() -> list[str]:
    return sorted({one.accelerator for one in load_catalog().offers})


def _price_list(rng: Random) -> str:
    header = ["provider", "region", "instance_type", "accelerator", "accelerators", "cost_per_h", "market", "seen"]
    rows: list[Sequence[object]] = [header]
    for place, card in enumerate(rng.sample(_cards(), rng.randint(1, 5))):
        count = rng.choice([1, 2, 4, 8])
        price = rounded(count * between(rng, 0.3, 12))
        rows.append(["own", "here", f"box-{place}", card, count, price, "on-demand", "2026-11-01"])
    return rows_of(rows)


def _profile(rng: Random, *, is_small: bool) -> Section:
    some: Section = {
        "tensor_parallel": rng.choice([1, [1, 2], [1, 2, 4, 8], [8]]),
        "expert_parallel": rng.choice([1, [1, 8]]),
        "pipeline_parallel": rng.choice([1, [1, 2]]),
        "max_context": rng.choice([2048, 8192, 32768, 131072]),
        "min_kv_tokens": rng.choice([1000, 100000]),
        "prefix_routing": rng.choice(["spread", "affinity"]),
    }
    return picked(rng, some, 0.3) | ({} if is_small else picked(rng, {"simulate": True}, 0.1))


def _plan(rng: Random, sections: Section) -> Section:
    cards = sections.get("offers", {}).get("gpus")
    some: Section = {
        "headroom": rng.choice([0.0, 0.05, 0.2, 0.5]),
        "slices": rng.choice([1, 4, 8, 100]),
        "min_replicas": rng.choice([0, 2, 3]),
        "min_total_replicas": rng.choice([2, 5]),
        "spare_replicas": rng.choice([1, 2]),
        "spare_total_replicas": rng.choice([1, 2]),
        "max_types": rng.choice([1, 2, 3]),
        "drop_unservable": True,
        "time_limit_s": 5.0,
        "gap": rng.choice([0.0, 0.01, 0.1]),
        "seed": rng.randint(0, 9),
        "confidence": rng.choice([0.5, 0.75, 0.9, 0.95]),
    }
    found = picked(rng, some, 0.16)
    if cards and rng.random() < 0.15:
        found[rng.choice(["require", "exclude"])] = [rng.choice(cards)]
    if rng.random() < 0.08:
        found["budget_per_h"] = rounded(between(rng, 1, 1000))
    if rng.random() < 0.12:
        carbon: Section = {
            "carbon_price_per_kg": 0.1,
            "grid_g_per_kwh": rng.choice([385, {"default": 400}]),
            "pue": 1.3,
        }
        found |= picked(rng, carbon, 0.5) | ({"objective": "carbon"} if rng.random() < 0.5 else {})
    if rng.random() < 0.05:
        found["disaggregate"] = rng.choice([True, "auto"])
    return found


def _start_up(rng: Random) -> Section:
    return {
        "boot": rng.choice(["30s", "5m", 60]),
        "image_gb": 12,
        "pull_gb_per_s": 0.5,
        "load_gb_per_s": rng.choice([0.5, 4]),
    }


def _schedule(rng: Random) -> Section:
    some: Section = {
        "reserved": [{"term_years": 1, "discount": 0.4}, {"term_years": 3, "discount": 0.55, "upfront_fraction": 1}],
        "savings_plans": [{"term_years": 1, "discount": 0.25}],
        "spot": {"discount": 0.6, "zones": 3},
        "horizon_years": rng.choice([0.5, 3]),
        "start_up": rng.choice(["2m", "20m"]),
        "min_up": "10m",
        "short_fraction": rng.choice([0.001, 0.05]),
    }
    found = picked(rng, some, 0.5)
    if "reserved" in found and "horizon_years" in found:
        found["horizon_years"] = 3  # no commitment may be longer
    return found


def _regions(rng: Random, sections: Section) -> Section:
    places = rng.sample(CITIES, rng.randint(2, 3))
    shares = shares_of(rng, len(places))
    origins = {f"origin-{place}": {"share": share, "at": place} for place, share in zip(places, shares, strict=True)}
    if rng.random() < 0.8:
        sections["offers"] = {"regions": ["us-east-1", "eu-central-1", "ap-northeast-1"]}
    return {"origins": origins} | ({"egress_usd_per_gb": 0.09} if rng.random() < 0.5 else {})


def _classes(rng: Random, sections: Section) -> Section:
    found: Section = {}
    for name in rng.sample(["batch", "premium", "free_tier"], rng.randint(1, 2)):
        loose = rng.choice([2, 10])
        limits = {key: loose * value for key, value in sections["slo"].items() if key.endswith("_ms")}
        found[name] = {"slo": limits, "share": rng.choice([0.1, 0.3])}
        if "over" in sections["workload"] and rng.random() < 0.6:
            found[name]["deadline"] = rng.choice(["1h", "8h"])
        elif rng.random() < 0.2:
            del found[name]["share"]
            found[name]["workload"] = {"dataset": rng.choice(list(datasets())), "rate": rounded(between(rng, 0.1, 10))}
        if rng.random() < 0.4:
            found[name]["priority"] = rng.choice([-1, 1])
    return found
