"""How to start a replica: image, command line and timeouts."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from melange.catalog.accelerator import Accelerator
from melange.deploy.command_lines import Program, Serving, program_of
from melange.deploy.disk import disk_gb
from melange.deploy.server_options import ServerOptions
from melange.errors import InputError
from melange.plan.server import Server
from melange.replica.releases import pinned
from melange.slo import Slo

# Quantized variants that an engine makes from the published model while loading it.
_MADE_WHILE_LOADING = ("fp8",)
# Architectures before Ampere, which have no bf16.
_WITHOUT_BF16 = ("Volta", "Turing")
# The drain time is twice the longest answer within the SLO, because late replicas have requests too. Bounds [s]: with
# less than a minute, a restart cuts off the requests of a busy replica; waiting for more than an hour is useless.
_DRAIN_ROOM, _LEAST_DRAIN_S, _MOST_DRAIN_S = 2.0, 60, 3600
# Drain time if the plan has no SLO [s].
_UNKNOWN_DRAIN_S = 600
# Arguments that change planned settings besides the command line's own flags: short forms and alternative flags.
_SHORT = ("-tp", "-pp", "-dp", "-ep", "-q", "-tpn", "-n")
_ALSO_DECIDED = {
    *("--model", "--quantization", "--kv-cache-dtype", "--kv-cache-memory-bytes", "--num-gpu-blocks-override"),
    *("--speculative-config", "--speculative-algorithm", "--speculative-num-draft-tokens"),
    *("--tensor-parallel-size", "--tp-size", "--data-parallel-size", "--dp-size", "--max-total-tokens"),
    *("--kv-transfer-config", "--disaggregation-mode"),
    *("--enable-expert-parallel", "--ep-size", "--expert-parallel-size", "--enable-dp-attention"),
}
# Time for balancers to notice that a replica is leaving, before it rejects connections [s].
LEAVE_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A target's decisions about starting servers.

    Parameters
    ----------
    copies
        Number of replicas in one process, if replicas cannot be started one by one.
    served_name
        The model's name for clients, if the target requires a certain form; empty: the model's name.
    mount
        Path where the target provides the model to the engine; empty: the engine downloads it.
    """

    copies: int = 1
    served_name: str = ""
    mount: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start the engine of one replica.

    Parameters
    ----------
    image
        The container image.
    command
        The whole command line, starting with the program.
    model
        The model for the engine: a name on the Hugging Face hub or a path.
    served_name
        The model's name for clients.
    port
        Port to listen on.
    accelerators
        Number of accelerators.
    disk_gb
        Size of the disk of an instance, for the image and the weights [GB].
    startup_s, drain_s
        Time limits for loading the model, and for finishing running requests when it stops [s].
    busy
        Names of metrics that are above 0 while the engine has requests.
    """

    image: str
    command: tuple[str, ...]
    model: str
    served_name: str
    port: int
    accelerators: int
    disk_gb: int
    startup_s: int
    drain_s: int
    busy: tuple[str, ...]

    @property
    def shell(self) -> str:
        """The command line for a shell, quoted where needed."""
        return shlex.join(self.command)

    @property
    def drain_script(self) -> str:
        """A shell script: wait until balancers know that the replica is leaving, then until it has no requests left."""
        metrics = "|".join(self.busy)
        busy = f"curl -sf http://127.0.0.1:{self.port}/metrics | grep -E '^({metrics})' | grep -qv ' 0\\.0*$'"
        return f"sleep {LEAVE_S}; while {busy}; do sleep 1; done"


def launch_of(
    server: Server,
    accelerator: Accelerator | None,
    slo: Slo | None,
    longest_answer: float,
    options: ServerOptions,
    start: Start | None = None,
) -> Launch:
    """How to start the replicas of a server's type.

    Parameters
    ----------
    server
        The plan's assumptions about a replica.
    accelerator
        The accelerator; None: unknown.
    slo, longest_answer
        The plan's SLO and its longest completion [tokens], which determine the drain time.
    options
        The user's options.
    start
        The target's decisions; None: there are none.

    Raises
    ------
    InputError
        An engine that cannot be started here, a model without a name, a variant without a checkpoint, or arguments that
        the plan determines.
    """
    program = program_of(server)
    image = options.image or _own_image(program, server, accelerator, options)
    drain_s = options.drain_s or _drain_s(slo, longest_answer)
    how = start or Start()
    serving = serving_of(server, accelerator, options, drain_s)
    mounted = replace(serving, model=how.mount or serving.model, copies=how.copies)
    if how.served_name:
        mounted = replace(mounted, served_name=how.served_name)
    command = program.command(server, mounted)
    _check_extra(options.extra_args, command)
    return Launch(
        image=image,
        command=(*command, *options.extra_args),
        model=serving.model,
        served_name=mounted.served_name,
        port=options.port,
        accelerators=server.layout.accelerators * how.copies,
        disk_gb=disk_gb(server, accelerator, is_made_while_loading=bool(serving.quantization)),
        startup_s=options.startup_s,
        drain_s=drain_s,
        busy=program.busy,
    )


def _own_image(program: Program, server: Server, accelerator: Accelerator | None, options: ServerOptions) -> str:
    """The engine's own image for an accelerator."""
    made_for = (accelerator.architecture, accelerator.vendor) if accelerator else ("nvidia",)
    for name in made_for:
        if name in program.image:
            return program.image[name].format(options.version or pinned(server.engine)[1] or program.version)
    raise InputError(
        f"{server.replica_type}: no image of {server.engine} for {made_for[-1]} accelerators is known",
        hint="--option image=registry/name:tag",
    )


def serving_of(server: Server, accelerator: Accelerator | None, options: ServerOptions, drain_s: int) -> Serving:
    """The values for a server's command line: its model, its data types, its port and its time to finish requests [s].

    Raises
    ------
    InputError
        A model without a name, or a variant without a checkpoint.
    """
    served_name = server.model or options.model or ""
    if not served_name:
        raise InputError("the plan does not name its model", hint="--option model=org/name")
    if any(not c.isprintable() for c in served_name + (options.model or "")):
        raise InputError(f"the model's name has control characters: {served_name!r}", hint="--option model=org/name")
    serving = Serving(
        model=options.model or served_name,
        served_name=served_name,
        port=options.port,
        drain_s=drain_s,
        kv_dtype=server.kv_cache_dtype,
        is_half=bool(accelerator and accelerator.architecture in _WITHOUT_BF16),
    )
    if not server.variant:
        return serving
    parts = server.variant.split("+")
    weights = next((part for part in parts if not part.endswith("-kv")), "")
    kv_dtype = next((part.removesuffix("-kv") for part in parts if part.endswith("-kv")), "")
    kv_dtype = server.kv_cache_dtype or kv_dtype
    checkpoints = options.checkpoints or {}
    checkpoint = checkpoints.get(server.variant) or checkpoints.get(weights)
    if checkpoint:
        return replace(serving, model=checkpoint, kv_dtype=kv_dtype)
    if weights and weights not in _MADE_WHILE_LOADING:
        raise InputError(
            f"{server.replica_type} serves {served_name} in {weights}, which needs a checkpoint",
            hint=f"--option 'checkpoints={{{weights}: org/name}}'",
        )
    return replace(serving, quantization=weights, kv_dtype=kv_dtype)


def _check_extra(extra: Sequence[str], command: tuple[str, ...]) -> None:
    """Reject arguments, also abbreviated ones, that would change the plan's assumptions."""
    flags = {word for word in command if word.startswith("--")} | _ALSO_DECIDED
    decided = {f"--{word[2:].removeprefix('no-')}" for word in flags}
    if (
        "--enable-prefix-caching" not in command
    ):  # the plan does not assume prefix caching, so turning it on does no harm
        decided -= {"--enable-prefix-caching"}
    for word in extra:
        flag = word.partition("=")[0].replace("_", "-")
        stem = f"--{flag[2:].removeprefix('no-')}" if flag.startswith("--") else flag
        if stem in _SHORT or (len(stem) > 2 and any(one.startswith(stem) for one in decided)):
            raise InputError(
                f"extra_args: {flag} is set by the plan: {shlex.join(command)}",
                hint="other settings need another plan: measure a server that uses them (melange measure)",
            )


def _drain_s(slo: Slo | None, longest_answer: float) -> int:
    """Time limit for draining: the longest answer within the SLO, with a margin [s]."""
    stay_s = None if slo is None else slo.longest_stay_s(longest_answer)
    if stay_s is None:
        return _UNKNOWN_DRAIN_S
    return min(max(math.ceil(_DRAIN_ROOM * float(stay_s)), _LEAST_DRAIN_S), _MOST_DRAIN_S)
