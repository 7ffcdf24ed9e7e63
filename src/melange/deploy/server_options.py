"""Options of a plan's servers, for all targets that start them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melange.deploy.target import option
from melange.errors import InputError

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
# Longest base name: with the name of a replica type and the suffixes of other tools, it stays within the 63 letters of
# DNS.
_LONGEST_NAME = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The options of every target that starts servers.

    Parameters
    ----------
    name
        Base name of all objects, before the name of the replica type; None: from the model's name.
    model
        The published model for the engine: a name on the Hugging Face hub or a path; None: the plan's name.
    engine
        Engine for replica types without one in the plan (``vllm``); None: a missing engine is an error.
    checkpoints
        Checkpoints of quantized variants, by the variant's name in the plan (``int4``).
    image, version
        The engine's container image, complete, or the version of the engine's own image; None: the version that the
        flags were tested with.
    port
        Port of the servers.
    extra_args
        Additional arguments of the engine, none of which the plan determines.
    startup_s
        Time limit for loading the model [s].
    drain_s
        Time limit for finishing requests when a server stops [s]; None: twice the longest answer within the SLO.
    """

    name: str | None = option(None, "Name prefix of everything; null: from the model's name.")
    model: str | None = option(None, "Model path or hub name for the engine; null: as in the plan.")
    engine: str | None = option(None, "Engine of types without one in the plan: vllm, sglang.")
    checkpoints: Mapping[str, str] | None = option(None, "Checkpoints of quantized variants: {int4: org/model-awq}.")
    image: str | None = option(None, "Full container image of the engine; null: the engine's own.")
    version: str | None = option(None, "Version of the engine's own image; null: the tested one.")
    port: int = option(8000, "Port that servers listen on.")
    extra_args: Sequence[str] = option((), "Additional engine arguments that the plan does not set.")
    # 180 checks at intervals of ten seconds: a model of 140 GB at 100 MB/s takes 1,400 s.
    startup_s: int = option(1800, "Timeout for loading the model [s].")
    drain_s: int | None = option(None, "Time to finish requests before stopping [s]; null: from the SLO.")

    def __post_init__(self) -> None:
        if self.name is not None and (not _NAME.fullmatch(self.name) or len(self.name) > _LONGEST_NAME):
            raise InputError(
                f"name must be lower-case letters, digits and dashes, {_LONGEST_NAME} at most, got {self.name!r}",
                hint="--option name=chat",
            )
        check_port("port", self.port)
        for what in ("startup_s", "drain_s"):
            seconds = getattr(self, what)
            if seconds is not None and seconds < 1:
                raise InputError(f"{what} must be >= 1 second, got {seconds}")


def check_port(name: str, port: int) -> None:
    """Reject values that are not TCP ports."""
    if not 0 < port < 2**16:
        raise InputError(f"{name} must be from 1 to 65535, got {port}")
