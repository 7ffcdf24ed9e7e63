"""The layout of one copy of a model over accelerators: tensor, expert and pipeline parallelism.

A replica is a unit that accepts requests: one server, whatever it consists of. Under expert parallelism, attention runs
as data-parallel ranks, each with a copy of the attention weights and its own KV cache, and the routed experts are
spread over all accelerators. Under pipeline parallelism, the layers are divided into stages, and the batch into as many
parts, which pass through the stages at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from melange.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The layout of one replica over accelerators.

    Parameters
    ----------
    tensor_parallel
        Accelerators that split each layer.
    expert_parallel
        Accelerators that divide the routed experts; each holds whole experts, and attention then has
        ``expert_parallel / tensor_parallel`` data-parallel ranks. 1: experts are split like other layers.
    pipeline_parallel
        Number of stages that divide the layers.

    Raises
    ------
    InputError
        A number is below 1; experts use fewer accelerators than a layer or not a multiple of them; stages and experts
        are combined.
    """

    tensor_parallel: int = 1
    expert_parallel: int = 1
    pipeline_parallel: int = 1

    def __post_init__(self) -> None:
        for name in ("tensor_parallel", "expert_parallel", "pipeline_parallel"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.expert_parallel > 1 and self.expert_parallel % self.tensor_parallel:
            raise InputError(
                f"expert_parallel must be a multiple of tensor_parallel ({self.tensor_parallel}), "
                f"got {self.expert_parallel}"
            )
        if self.expert_parallel > 1 and self.pipeline_parallel > 1:
            raise InputError("expert_parallel and pipeline_parallel cannot be planned together", hint="set one to 1")

    @property
    def data_parallel(self) -> int:
        """Number of attention ranks, each with its own KV cache."""
        return self.expert_parallel // self.tensor_parallel if self.expert_parallel > 1 else 1

    @property
    def ranks(self) -> int:
        """Number of parts of a batch that run in parallel and wait for each other."""
        return self.data_parallel * self.pipeline_parallel

    @property
    def accelerators(self) -> int:
        """Number of accelerators of one replica."""
        return self.tensor_parallel * self.ranks

    @property
    def is_plain(self) -> bool:
        """Whether layers are split by tensor parallelism alone, or not at all."""
        return self.expert_parallel == self.pipeline_parallel == 1

    @property
    def suffix(self) -> str:
        """Suffix in names of replica types: ``tp4 pp2``, ``tp1 ep8``.

        >>> Layout(tensor_parallel=4, pipeline_parallel=2).suffix, Layout(expert_parallel=8).suffix
        ('tp4 pp2', 'tp1 ep8')
        """
        parts = [f"tp{self.tensor_parallel}"]
        parts += [f"ep{self.expert_parallel}"] if self.expert_parallel > 1 else []
        parts += [f"pp{self.pipeline_parallel}"] if self.pipeline_parallel > 1 else []
        return " ".join(parts)


@lru_cache(maxsize=256)  # replica types and hardware look theirs up thousands of times
def layout_of(tensor_parallel: int, expert_parallel: int, pipeline_parallel: int) -> Layout:
    """The layout with these degrees."""
    return Layout(tensor_parallel=tensor_parallel, expert_parallel=expert_parallel, pipeline_parallel=pipeline_parallel)


def as_layout(split: Layout | int) -> Layout:
    """A layout; a number is taken as a tensor-parallel degree."""
    return Layout(tensor_parallel=split) if isinstance(split, int) else split
