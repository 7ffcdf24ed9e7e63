"""The files of a cluster target: manifests for ``kubectl apply``, and a base for kustomize."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from melange.deploy.as_yaml import yaml_text
from melange.deploy.group import Group, base_name
from melange.deploy.heading import comments, heading_of, paragraphs
from melange.deploy.manifest import Manifest
from melange.deploy.targets.kubernetes.cluster_options import ClusterOptions
from melange.deploy.targets.kubernetes.pods import Object
from melange.errors import Caution
from melange.plan.plan import Plan

# Plain manifests have their own folder: kubectl apply -f applies every file in it, and a kustomization is not one.
_FOLDER = "manifests"
_KEPT = """\
Replica types of an earlier plan that this one does not use stay in the cluster until deleted, by label:
kubectl delete deployment,service,pdb -l melange/service={base},melange/replica-type=TYPE.
"""


def manifest_of(
    target: str,
    plan: Plan,
    written: date,
    about: str,
    objects: Mapping[str, Sequence[Object]],
    cautions: Iterable[Caution],
    options: ClusterOptions,
    others: Mapping[str, str] | None = None,
) -> Manifest:
    """The files of a target.

    Parameters
    ----------
    target, plan, written
        Target, plan, and date of the files.
    about
        Description and usage; paragraphs are separated by an empty line.
    objects
        Kubernetes objects by file name.
    cautions
        Cautions for users.
    options
        The user's options.
    others
        Text of additional files, by name.
    """
    told = tuple(cautions)
    kept = _KEPT.format(base=base_name(plan, options))
    heading = comments([*heading_of(plan, written, told), *paragraphs(f"{about.strip()}\n\n{kept}")])
    listed = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        **({"namespace": options.namespace} if options.namespace else {}),
        "resources": [f"{_FOLDER}/{name}" for name in objects],
    }
    files = {"kustomization.yaml": f"{heading}\n\n{yaml_text([listed])}"}
    short = comments([f"From the plan with fingerprint {plan.fingerprint}; see kustomization.yaml."])
    files |= {f"{_FOLDER}/{name}": f"{short}\n\n{yaml_text(some)}" for name, some in objects.items()}
    return Manifest(target=target, files=files | dict(others or {}), cautions=told)


def cluster_cautions(groups: Sequence[Group], options: ClusterOptions) -> list[Caution]:
    """Cautions about what a cluster cannot do by itself, or needs."""
    cautions = []
    places = sorted({(group.node.provider, group.node.region) for group in groups})
    if len(places) > 1:
        named = ", ".join("/".join(part for part in place if part) or "unnamed" for place in places)
        cautions.append(
            Caution(
                "clusters",
                f"the plan's nodes are in {named}: one cluster rarely spans them, and traffic between them adds "
                "latency and cost; apply each type where its nodes are, or plan with one provider and region (offers)",
            )
        )
    unnamed = [group.replica_type for group in groups if not group.node.instance_type]
    if unnamed:
        cautions.append(
            Caution(
                "nodes",
                f"{', '.join(unnamed)}: the price list has no instance type, so pods may run on any node with free "
                "accelerators; label such nodes and select them",
            )
        )
    if options.routing == "none":
        cautions.append(
            Caution("routing", "nothing routes requests to replica types (routing=none); use melange balance")
        )
    return cautions
