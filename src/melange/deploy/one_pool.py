"""Plans of only one of two pools, which no router here supports."""

from __future__ import annotations

import shlex

from melange.catalog.bundled import accelerators
from melange.deploy.command_lines import program_of
from melange.deploy.launch import serving_of
from melange.deploy.server_options import ServerOptions
from melange.errors import InputError
from melange.plan.plan import Plan
from melange.plan.server import servers_of

_DRAIN_S = 600


def refuse_pools(plan: Plan, what: str) -> None:
    """Reject a plan whose replicas only read prompts or only generate tokens; the error says how to start them.

    A router that sends each request to both pools in sequence is not part of the balancer or of the gateway files.

    Raises
    ------
    InputError
        The plan is of this kind.
    """
    servers = [one for one in servers_of(plan) if one.pool]
    if not servers:
        return
    accelerator = {one.name: accelerators().get(one.offer.accelerator) for one in plan.replica_types}
    lines = []
    for one in servers:
        checkpoint = {one.variant: f"CHECKPOINT-IN-{one.variant.partition('+')[0].upper()}"}
        named = ServerOptions(
            model=None if one.model else "MODEL",
            checkpoints=checkpoint if one.variant.startswith("int") else None,
        )
        serving = serving_of(one, accelerator[one.replica_type], named, _DRAIN_S)
        lines.append(f"{one.replicas} x {one.replica_type}: {shlex.join(program_of(one).command(one, serving))}")
    raise InputError(
        f"{what}: the plan covers only the {servers[0].pool} pool, but requests need both pools and a router",
        hint="start the replicas of both plans, and a router that supports pools (llm-d, NVIDIA Dynamo, the proxy of "
        f"vLLM's examples): {'; '.join(lines)}",
    )
