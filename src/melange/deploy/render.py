"""The main function of the deploy stage: converts a plan to the files of a deployment target."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from melange.deploy.manifest import Manifest
from melange.deploy.one_pool import refuse_pools
from melange.deploy.target import Target
from melange.deploy.targets.compose import compose
from melange.deploy.targets.gateways import envoy, haproxy, nginx
from melange.deploy.targets.kubernetes import aibrix_autoscaling, kserve, kubernetes, llm_d
from melange.deploy.targets.launchers import dstack, sky_serve
from melange.deploy.targets.monitoring import grafana
from melange.deploy.targets.terraform import terraform
from melange.errors import unknown
from melange.plan.plan import Plan

_ALL: tuple[Target[Any], ...] = (
    haproxy.TARGET,
    envoy.TARGET,
    nginx.TARGET,
    kubernetes.TARGET,
    kserve.TARGET,
    llm_d.TARGET,
    aibrix_autoscaling.TARGET,
    compose.TARGET,
    sky_serve.TARGET,
    dstack.TARGET,
    terraform.TARGET,
    grafana.TARGET,
)
TARGETS: Mapping[str, Target[Any]] = {one.name: one for one in _ALL}
_ALIASES = {"k8s": "kubernetes", "k8": "kubernetes"}


def render(plan: Plan, target: str, *, written: date | None = None, **options: object) -> Manifest:
    """The files that put a plan into production on a target.

    Parameters
    ----------
    plan
        The plan to deploy.
    target
        Name of the target: ``haproxy``, ``envoy`` or ``nginx``.
    written
        The date in the files; None: today (UTC).
    options
        The target's options (``TARGETS[target].declared``). Gateways: ``replicas`` (addresses, ``http://host:port``, by
        replica type or accelerator), ``listen``, ``bytes_per_token``, ``envelope_bytes``, ``max_body_bytes``.

    Raises
    ------
    InputError
        An unknown target, unknown options or invalid values, or a plan that the target cannot run.

    Examples
    --------
    >>> from melange import Slo, dataset, estimate, find_model, load_catalog, solve
    >>> workload = dataset("arena", request_rate=4.0)
    >>> offers = load_catalog().select(gpus=["L4", "A10G"], providers=["aws"], markets=["on-demand"]).offers
    >>> plan = solve(workload, estimate(find_model("Llama-3.1-8B"), offers, Slo(tpot_s=0.12), workload))
    >>> list(render(plan, "haproxy", listen="0.0.0.0:80").files)
    ['haproxy.cfg']
    """
    found = target_of(target)
    refuse_pools(plan, f"melange deploy --to {target}")
    return found.render(plan, found.chosen(options), written or datetime.now(UTC).date())


def target_of(name: str) -> Target[Any]:
    """The target of that name.

    Raises
    ------
    InputError
        There is no such target; the error names the nearest ones.
    """
    own = _ALIASES.get(name, name)
    if own not in TARGETS:
        raise unknown("target", name, TARGETS)
    return TARGETS[own]
