"""The verb of the deploy stage: a plan as the files of a gateway that people already run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime

from melange.deploy.manifest import Manifest
from melange.deploy.pools import pools_of
from melange.deploy.targets import envoy, haproxy, nginx
from melange.deploy.targets.gateway import Gateway, body_limit, heading_of, parse_listen
from melange.deploy.targets.routes import BYTES_PER_TOKEN, ENVELOPE_BYTES, routes_of
from melange.errors import unknown
from melange.plan.plan import Plan

_FILES: dict[str, Callable[[Gateway], dict[str, str]]] = {
    "haproxy": haproxy.files,
    "envoy": envoy.files,
    "nginx": nginx.files,
}
TARGETS = tuple(_FILES)


def render(
    plan: Plan,
    target: str,
    *,
    replicas: Mapping[str, Sequence[str]] | None = None,
    listen: str = "127.0.0.1:8080",
    bytes_per_token: float = BYTES_PER_TOKEN,
    envelope_bytes: int = ENVELOPE_BYTES,
    max_body_bytes: int | None = None,
    written: date | None = None,
) -> Manifest:
    """The files of a gateway that splits each request size by the plan's shares.

    Parameters
    ----------
    plan
        What is to be deployed.
    target
        ``haproxy``, ``envoy`` or ``nginx``.
    replicas
        Where replicas answer (``http://host:port``), by replica type name or by accelerator where that is enough; None:
        names are made up, and a caution says so.
    listen
        Where the gateway listens.
    bytes_per_token, envelope_bytes
        A body counts as (bytes - envelope) / bytes per token prompt tokens.
    max_body_bytes
        Longer bodies are refused [bytes]; None: twice the longest prompt of the plan's buckets with traffic.
    written
        The date that the files name; None: today (UTC).

    Raises
    ------
    InputError
        An unknown target; a plan without replicas or with numbered buckets; replicas that do not fit the plan.

    Examples
    --------
    >>> from melange import Slo, dataset, estimate, find_model, load_catalog, solve
    >>> workload = dataset("arena", request_rate=4.0)
    >>> offers = load_catalog().select(gpus=["L4", "A10G"], providers=["aws"], markets=["on-demand"]).offers
    >>> plan = solve(workload, estimate(find_model("Llama-3.1-8B"), offers, Slo(tpot_s=0.12), workload))
    >>> list(render(plan, "haproxy").files)
    ['haproxy.cfg']
    """
    if target not in _FILES:
        raise unknown("target", target, TARGETS)
    host, port = parse_listen(listen)
    pools, cautions = pools_of(plan, replicas)
    gateway = Gateway(
        heading=heading_of(plan, written or datetime.now(UTC).date(), cautions),
        host=host,
        port=port,
        pools=pools,
        routes=routes_of(plan),
        bytes_per_token=bytes_per_token,
        envelope_bytes=envelope_bytes,
        max_body_bytes=max_body_bytes or body_limit(plan, bytes_per_token, envelope_bytes),
    )
    return Manifest(target=target, files=_FILES[target](gateway), cautions=cautions)
