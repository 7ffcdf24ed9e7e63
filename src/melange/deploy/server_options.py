"""Options of a plan's servers, for all targets that start them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melange.deploy.target import option
from melange.errors import InputError

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
# With the name of a replica type behind it, and what others append to that, a name stays within the 63 characters of
# DNS.
_LONGEST_NAME = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The options of every target that starts servers.

    Parameters
    ----------
    name
        What everything is called, before the name of its replica type; None: from the model's name.
    model
        Where the engine finds the model as published: a name on the Hugging Face hub or a path; None: the plan's name.
    engine
        Engine of replica types that the plan names none of (``vllm``); None: those are an error.
    checkpoints
        Where it finds quantized variants, by their name in the plan (``int4``).
    image, version
        The engine's container image, whole, or the version of the engine's own image; None: the version whose flags
        were tried.
    port
        Where servers listen.
    extra_args
        More arguments of the engine, none of which the plan decides.
    startup_s
        How long a server may take to load the model [s].
    drain_s
        How long a server that is to stop may finish what it has begun [s]; None: twice the longest answer within the
        SLO.
    """

    name: str | None = option(None, "Name prefix of everything; null: from the model's name.")
    model: str | None = option(None, "Model path or hub name for the engine; null: as in the plan.")
    engine: str | None = option(None, "Engine of types without one in the plan: vllm, sglang.")
    checkpoints: Mapping[str, str] | None = option(None, "Checkpoints of quantized variants: {int4: org/model-awq}.")
    image: str | None = option(None, "Full container image of the engine; null: the engine's own.")
    version: str | None = option(None, "Version of the engine's own image; null: the tested one.")
    port: int = option(8000, "Port that servers listen on.")
    extra_args: Sequence[str] = option((), "Additional engine arguments that the plan does not set.")
    # 180 looks, ten seconds apart: a model of 140 GB at 100 MB/s takes 1,400 s.
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
    """Refuse what is no TCP port."""
    if not 0 < port < 2**16:
        raise InputError(f"{name} must be from 1 to 65535, got {port}")
