"""The nouns of the catalog. Facts (accelerators, models) and prices (offers) are kept apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from melange.errors import InputError
from melange.files import Json

MARKETS = ("on-demand", "spot", "reserved")
STALE_AFTER_DAYS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """Physical facts of one accelerator; no price.

    Parameters
    ----------
    name
        The name used everywhere: ``A10G``, ``A100-80GB``, ``H100-80GB``.
    vendor, architecture
        Maker and generation.
    memory_bytes
        Device memory [bytes].
    bandwidth_bytes_per_s
        Peak memory bandwidth [bytes/s].
    flops_by_dtype
        Peak dense throughput by data type (``bf16``, ``fp16``, ``fp8``, ``int8``, ``fp4``) [1/s].
    link
        What joins accelerators of one instance, in words (``NVLink4/NVSwitch``, ``PCIe``).
    link_bandwidth_bytes_per_s
        Bandwidth of that link for one accelerator, one direction [bytes/s].
    pcie_bandwidth_bytes_per_s
        The same over PCIe, for instances that carry the accelerator without its link [bytes/s].
    source
        Datasheet or data set of these figures.
    notes
        What deserves a word (power-limited, two dies, ...).
    """

    name: str
    vendor: str
    architecture: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    flops_by_dtype: Mapping[str, float]
    link: str
    link_bandwidth_bytes_per_s: float
    pcie_bandwidth_bytes_per_s: float
    source: str
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What can be rented: a whole instance, its accelerators and its price.

    Parameters
    ----------
    provider, region, instance_type
        Who rents it out, where, and what they call it.
    accelerator
        Name of the accelerator.
    accelerators
        How many the instance holds.
    cost_per_h
        Price of the whole instance [USD/h].
    market
        ``on-demand``, ``spot`` or ``reserved``.
    interconnect
        What joins the instance's accelerators: ``nvlink`` (or the vendor's like) or ``pcie``; empty: as the accelerator's
        own datasheet says.
    max_instances
        How many can be had; None where nothing is known.
    source
        Where the price was seen.
    seen
        When it was seen; None where the file does not say.

    Raises
    ------
    InputError
        A price or count that is not positive, an unknown market.
    """

    provider: str
    region: str
    instance_type: str
    accelerator: str
    accelerators: int
    cost_per_h: float
    market: str = "on-demand"
    interconnect: str = ""
    max_instances: int | None = None
    source: str = ""
    seen: date | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cost_per_h) and self.cost_per_h > 0):
            raise InputError(f"offer {self.name}: cost_per_h must be > 0 and finite, got {self.cost_per_h:g}")
        if self.accelerators < 1:
            raise InputError(f"offer {self.name}: accelerators must be >= 1, got {self.accelerators}")
        if self.market not in MARKETS:
            raise InputError(f"offer {self.name}: market must be one of {', '.join(MARKETS)}, got {self.market!r}")
        if self.max_instances is not None and self.max_instances < 0:
            raise InputError(f"offer {self.name}: max_instances must be >= 0, got {self.max_instances}")

    @property
    def name(self) -> str:
        """Provider, region, instance type and market, as far as they are known."""
        parts = [part for part in (self.provider, self.region, self.instance_type) if part]
        return "/".join(parts) + ("" if self.market == "on-demand" else f" ({self.market})")

    def age_days(self, today: date) -> int | None:
        """Days since the price was seen [d]; None where the file does not say."""
        return None if self.seen is None else (today - self.seen).days

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "provider": self.provider,
            "region": self.region,
            "instance_type": self.instance_type,
            "accelerator": self.accelerator,
            "accelerators": self.accelerators,
            "cost_per_h": self.cost_per_h,
            "market": self.market,
            "interconnect": self.interconnect,
            "max_instances": self.max_instances,
            "source": self.source,
            "seen": self.seen.isoformat() if self.seen else None,
        }

    @classmethod
    def from_json(cls, content: Json) -> Offer:
        """From the JSON object that :meth:`to_json` makes."""
        seen = content.get("seen")
        return cls(**{**content, "seen": date.fromisoformat(seen) if seen else None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The shape of a language model, as far as serving cost depends on it.

    Parameters
    ----------
    name
        The name people use, as on the Hugging Face hub.
    layers, hidden_size, heads, kv_heads, head_size, intermediate_size, vocabulary_size
        Counts of the decoder; ``intermediate_size`` is that of the dense feed-forward layers.
    max_context
        Longest prompt plus completion [tokens].
    weight_dtype
        Data type of the weights as published: ``bf16``, ``fp16``, ``fp8``, ``int8``, ``int4``, ``fp4``.
    kv_dtype
        Data type of the KV cache.
    experts, experts_per_token, expert_intermediate_size, shared_expert_intermediate_size, dense_layers
        Mixture of experts: routed experts of a layer, how many a token visits, their feed-forward width, the total
        width of the experts every token visits, and how many first layers are dense. All 0 for a dense model.
    sliding_window, sliding_layers
        Window of the layers that look back only so far [tokens], and how many layers do; 0 for none.
    kv_lora_rank, qk_rope_head_size, q_lora_rank, qk_nope_head_size, v_head_size
        Multi-head latent attention (DeepSeek); 0 for none.
    tied_embeddings
        True where input and output embeddings are one matrix.
    gated
        True where the feed-forward has three matrices (SwiGLU), False where it has two.
    source
        Where the shape comes from.
    """

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    vocabulary_size: int
    max_context: int
    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    dense_layers: int = 0
    sliding_window: int = 0
    sliding_layers: int = 0
    kv_lora_rank: int = 0
    qk_rope_head_size: int = 0
    q_lora_rank: int = 0
    qk_nope_head_size: int = 0
    v_head_size: int = 0
    tied_embeddings: bool = False
    gated: bool = True
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything that can be rented or served.

    Parameters
    ----------
    accelerators
        Facts by accelerator name.
    offers
        What can be rented, in the order of their file.
    models
        Shapes by model name.
    """

    accelerators: Mapping[str, Accelerator]
    offers: tuple[Offer, ...]
    models: Mapping[str, Model] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        raise NotImplementedError
