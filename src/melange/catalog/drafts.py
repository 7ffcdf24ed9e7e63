"""One layer as its configuration describes it: matrices by name, what it caches and what it keeps of a request."""

from __future__ import annotations

from dataclasses import dataclass, field

from melange.catalog.layers import Cache

MIXER, FEED_FORWARD, ROUTED = "mixer", "feed_forward", "routed"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix, or several that are alike.

    Parameters
    ----------
    name
        Its module within the layer, as checkpoints call it: ``self_attn.q_proj``.
    parameters
        How many values.
    part
        ``mixer``, ``feed_forward`` or ``routed``.
    """

    name: str
    parameters: int
    part: str


@dataclass(slots=True)
class Draft:
    """One layer, before its matrices are given data types.

    Parameters
    ----------
    matrices
        What quantization applies to.
    experts, experts_per_token
        Routed experts, and how many of them a token visits.
    router_parameters, other_parameters
        The router, and norms, biases and the like: what stays in 16 bits.
    caches, state_values, state_bytes
        As :class:`~melange.catalog.layers.LayerKind` has them.
    """

    matrices: list[Matrix] = field(default_factory=list)
    experts: int = 0
    experts_per_token: int = 0
    router_parameters: int = 0
    other_parameters: int = 0
    caches: list[Cache] = field(default_factory=list)
    state_values: int = 0
    state_bytes: float = 0.0

    def add(self, part: str, **parameters: int) -> None:
        """Matrices by name; ``__`` stands for a dot."""
        for name, count in parameters.items():
            if count:
                self.matrices.append(Matrix(name.replace("__", "."), count, part))

    def keep(self, values: int, bytes_each: float) -> None:
        """Numbers that the layer keeps of every request."""
        self.state_values += values
        self.state_bytes += values * bytes_each
