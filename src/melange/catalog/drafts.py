"""One layer as described by its configuration: matrices by name, cache per token, and state per request."""

from __future__ import annotations

from dataclasses import dataclass, field

from melange.catalog.layers import Cache

MIXER, FEED_FORWARD, ROUTED = "mixer", "feed_forward", "routed"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix, or several equal matrices.

    Parameters
    ----------
    name
        Its module within the layer, as named in checkpoints: ``self_attn.q_proj``.
    parameters
        Number of values.
    part
        ``mixer``, ``feed_forward`` or ``routed``.
    """

    name: str
    parameters: int
    part: str


@dataclass(slots=True)
class Draft:
    """One layer, before its matrices get data types.

    Parameters
    ----------
    matrices
        The matrices that quantization applies to.
    experts, experts_per_token
        Number of routed experts, and how many of them a token visits.
    router_parameters, other_parameters
        The router; norms, biases and other parameters that stay in 16 bits.
    caches, state_values, state_bytes
        As in :class:`~melange.catalog.layers.LayerKind`.
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
        """Add matrices by name; ``__`` stands for a dot."""
        for name, count in parameters.items():
            if count:
                self.matrices.append(Matrix(name.replace("__", "."), count, part))

    def keep(self, values: int, bytes_each: float) -> None:
        """Add values that the layer keeps for every request."""
        self.state_values += values
        self.state_bytes += values * bytes_each
