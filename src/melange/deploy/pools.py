"""Addresses of a plan's replicas: from the command line, sorted by the plan's replica types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from melange.deploy.addresses import place_of
from melange.deploy.heading import one_line
from melange.errors import Caution, InputError
from melange.parsing import named_value
from melange.plan.plan import Plan
from melange.units import count_of

# Port of URLs without one; and vLLM's default port, for placeholder names.
_DEFAULT_PORT = 80
_PLACEHOLDER_PORT = 8000
_HINT = "NAME=http://host:port, for example L4=http://10.0.0.7:8000"

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """Address of one replica.

    Parameters
    ----------
    host
        A host name or an IP address; IPv6 without brackets.
    port
        TCP port.

    Examples
    --------
    >>> print(HostPort.parse("http://[::1]:8000"))
    [::1]:8000
    """

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> HostPort:
        """Parse ``http://host:port``.

        Raises
        ------
        InputError
            Anything else: another scheme, a path, a user, or an invalid host.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _DEFAULT_PORT
        except ValueError as error:
            raise InputError(f"replica {url!r}: {error}", hint=_HINT) from error
        if parts.scheme != "http":
            raise InputError(f"replica {url!r}: must start with http://", hint=_HINT)
        if parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
            raise InputError(f"replica {url!r}: must be only a host and a port", hint=_HINT)
        if not _HOST.fullmatch(host):
            raise InputError(f"replica {url!r}: {host!r} is not a host name or address", hint=_HINT)
        return cls(host=host, port=port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The replicas of one type, for a gateway.

    Parameters
    ----------
    name
        Unique name of letters, digits and dashes.
    replica_type
        Name of the plan's replica type.
    accelerators
        The accelerators of one replica, in words.
    planned
        Number of replicas in the plan.
    replicas
        The existing replicas.
    """

    name: str
    replica_type: str
    accelerators: str
    planned: int
    replicas: tuple[HostPort, ...]

    @property
    def title(self) -> str:
        """The replica type and accelerator in one line."""
        return one_line(f"{self.replica_type} ({self.accelerators})")


def parse_replicas(given: Iterable[str]) -> dict[str, list[str]]:
    """``NAME=URL`` pairs as URLs by name.

    >>> parse_replicas(["L4=http://a:8000", "L4=http://b:8000"])
    {'L4': ['http://a:8000', 'http://b:8000']}
    """
    urls: dict[str, list[str]] = {}
    for pair in given:
        name, equals, url = named_value(pair)
        if not (equals and name and url):
            raise InputError(f"--replica must be NAME=URL, got {pair!r}", hint=_HINT)
        urls.setdefault(name, []).append(url)
    return urls


def pools_of(
    plan: Plan, urls: Mapping[str, Sequence[str]] | None = None
) -> tuple[tuple[Pool, ...], tuple[Caution, ...]]:
    """The pools of a plan, one per used replica type, with cautions.

    Parameters
    ----------
    plan
        The plan to deploy.
    urls
        URLs of replicas by replica type name or by accelerator; None: placeholder names are used, with a caution.

    Raises
    ------
    InputError
        The plan has no replicas; a name matches no type of the plan, or several; a type has no replica; or a replica is
        given twice.
    """
    used = [(one, plan.replicas[one.name]) for one in plan.replica_types if plan.replicas[one.name] > 0]
    if not used:
        raise InputError("plan: no replicas")
    names = _pool_names([one.name for one, _ in used])
    if urls is None:
        given = {
            one.name: tuple(HostPort(host=f"{name}-{k}.internal", port=_PLACEHOLDER_PORT) for k in range(count))
            for (one, count), name in zip(used, names, strict=True)
        }
        first = next(iter(given.values()))[0]
        cautions: tuple[Caution, ...] = (
            Caution(
                "placeholder",
                f"replicas have placeholder addresses ({first}, ...); set the real ones: --replica {_hint(plan)}",
            ),
        )
    else:
        given = _sorted_by_type(plan, urls)
        cautions = _counted(plan, given)
    pools = tuple(
        Pool(
            name=name,
            replica_type=one.name,
            accelerators=one.offer.accelerator
            + (f" x {one.layout.accelerators}" if one.layout.accelerators > 1 else ""),
            planned=count,
            replicas=given[one.name],
        )
        for (one, count), name in zip(used, names, strict=True)
    )
    return pools, cautions


def _sorted_by_type(plan: Plan, urls: Mapping[str, Sequence[str]]) -> dict[str, tuple[HostPort, ...]]:
    """Replicas by replica type name; each type has at least one, and none is listed twice."""
    given: dict[str, tuple[HostPort, ...]] = {}
    for name, some in urls.items():
        kind = plan.replica_types[place_of(name, plan)].name
        given[kind] = given.get(kind, ()) + tuple(HostPort.parse(url) for url in some)
    lacking = [name for name, count in plan.replicas.items() if count > 0 and not given.get(name)]
    if lacking:
        raise InputError(
            f"no replica was given for {', '.join(lacking)}, which the plan uses",
            hint=f"--replica {_hint(plan, lacking)}",
        )
    every = [replica for some in given.values() for replica in some]
    if twice := sorted({str(one) for one in every if every.count(one) > 1}):
        raise InputError(f"replica {', '.join(twice)} is given twice")
    return given


def _counted(plan: Plan, given: Mapping[str, Sequence[HostPort]]) -> tuple[Caution, ...]:
    """A caution for each type whose number of replicas differs from the plan."""
    return tuple(
        Caution("replicas", f"{name}: the plan has {count_of(plan.replicas[name], 'replica')}, {len(some)} given")
        for name, some in given.items()
        if len(some) != plan.replicas[name]
    )


def _hint(plan: Plan, lacking: Sequence[str] = ()) -> str:
    """A replica's address, for the first type that lacks one; by its accelerator if no other used type has it."""
    used = [one for one in plan.replica_types if plan.replicas[one.name] > 0]
    first = next((one for one in used if one.name in lacking), used[0])
    accelerator = first.offer.accelerator
    is_only = [one.offer.accelerator for one in used].count(accelerator) == 1
    return f"NAME=http://host:port, for example {accelerator if is_only else first.name}=http://10.0.0.7:8000"


def _pool_names(names: Sequence[str]) -> list[str]:
    """Names that are valid in every gateway and in DNS: letters, digits, dashes."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "replicas" for name in names]
    return [name if plain.count(name) == 1 else f"{name}-{k}" for k, name in enumerate(plain)]
