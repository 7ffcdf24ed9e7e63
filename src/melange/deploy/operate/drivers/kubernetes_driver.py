"""The driver that scales Deployments in a cluster, moves a route's weights and hands balancers the plan.

It finds what ``melange deploy --to kubernetes`` wrote by its labels; a type has a Deployment, which may have no
replicas yet. Pods that are told to go drain by themselves, as the manifests say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from melange.deploy.elsewhere import weights_of
from melange.deploy.heading import one_line
from melange.deploy.operate.drivers.driver import Order
from melange.deploy.operate.fleet_steps import CANCEL, DRAIN, START
from melange.deploy.operate.observation import TypeSeen
from melange.deploy.plan_in_use import plan_text
from melange.errors import Caution, InputError, MelangeError

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.profile.profile import ReplicaType

# What the manifests put on Deployments and pods.
_SELECTOR = "app.kubernetes.io/managed-by=melange,app.kubernetes.io/component=replica"
_SERVICE, _TYPE, _NAME = "melange/service", "melange/replica-type", "melange/replica-type-name"
# Why a container waits that will not come up by itself.
_BROKEN = {
    *("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
}
_CALL_S = 30
_ROUTE = ("gateway.networking.k8s.io", "v1", "httproutes")


class KubernetesDriver:
    """A service in a namespace.

    Parameters
    ----------
    clients
        To its API server.
    namespace
        Where the Deployments are.
    types
        The plan's replica types.
    service
        The value of the label ``melange/service``; empty: the only one in the namespace.
    """

    def __init__(self, clients: Clients, namespace: str, types: Sequence[ReplicaType], service: str = "") -> None:
        self.clients, self.namespace, self.service = clients, namespace, service
        self.types = {one_line(one.name): one for one in types}
        self._wanted: dict[str, int] = {}  # replicas that each Deployment asks for, by its name
        self._deployments: dict[str, str] = {}  # by replica type name
        self._failures: dict[str, list[str]] = {}

    # -- looking

    def look(self, now_s: float) -> Mapping[str, TypeSeen]:
        """Pods by type: ready, not ready yet, and going."""
        with _talking("list Deployments and pods"):
            deployments = self._deployments_found()
            selector = f"{_SERVICE}={self.service}"
            pods = self.clients.core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=_CALL_S
            ).items
        self._wanted = {one.metadata.name: one.spec.replicas or 0 for one in deployments}
        self._deployments = {self._type_of(one): one.metadata.name for one in deployments}
        failures, self._failures = self._failures, {}
        seen: dict[str, TypeSeen] = {}
        for one in deployments:
            name = self._type_of(one)
            key = one.metadata.labels.get(_TYPE)
            own = [pod for pod in pods if (pod.metadata.labels or {}).get(_TYPE) == key]
            seen[name] = self._seen(name, one, own, now_s, tuple(failures.pop(name, ())))
        return seen | {name: TypeSeen(failures=tuple(some)) for name, some in failures.items()}

    def _deployments_found(self) -> list[Any]:
        selector = _SELECTOR + (f",{_SERVICE}={self.service}" if self.service else "")
        found = self.clients.apps.list_namespaced_deployment(
            self.namespace, label_selector=selector, _request_timeout=_CALL_S
        ).items
        services = sorted({one.metadata.labels.get(_SERVICE, "") for one in found})
        if not found:
            raise InputError(
                f"namespace {self.namespace}: no Deployment of melange{f' for {self.service}' if self.service else ''}",
                hint="melange deploy plan.json --to kubernetes, and apply it",
            )
        if len(services) > 1:
            raise InputError(
                f"namespace {self.namespace}: has several services: {', '.join(services)}",
                hint=f"--option service={services[0]}",
            )
        self.service = services[0]
        known = [one for one in found if self._type_of(one) in {each.name for each in self.types.values()}]
        if not known:
            raise InputError(f"namespace {self.namespace}: no Deployment matches a replica type of the plan")
        return known

    def _type_of(self, deployment: Any) -> str:
        """The plan's own name of a Deployment's type."""
        name = (deployment.metadata.annotations or {}).get(_NAME, "")
        return self.types[name].name if name in self.types else name

    def _each(self, name: str) -> int:
        return next(one.replicas_per_instance for one in self.types.values() if one.name == name)

    def _seen(
        self, name: str, deployment: Any, pods: Sequence[Any], now_s: float, failures: tuple[str, ...]
    ) -> TypeSeen:
        each = self._each(name)
        going = [pod for pod in pods if pod.metadata.deletion_timestamp is not None]
        staying = [pod for pod in pods if pod.metadata.deletion_timestamp is None and pod.status.phase != "Failed"]
        ready = [pod for pod in staying if _is_ready(pod)]
        starting = [now_s - pod.metadata.creation_timestamp.timestamp() for pod in staying if not _is_ready(pod)]
        # Replicas for which there is no pod yet.
        starting += [0.0] * max(0, (deployment.spec.replicas or 0) - len(staying))
        draining = [
            now_s - pod.metadata.deletion_timestamp.timestamp() + (pod.metadata.deletion_grace_period_seconds or 0)
            for pod in going
        ]
        said = [*failures, *(why for pod in staying if (why := _why_broken(pod))), *_refusals(deployment)]
        return TypeSeen(
            ready=len(ready) // each,
            starting_s=tuple(sorted(starting, reverse=True)[: -(-len(starting) // each)]),
            draining_s=tuple(sorted(draining, reverse=True)[: -(-len(draining) // each)]),
            failures=tuple(said),
        )

    # -- acting

    def act(self, order: Order) -> Sequence[Caution]:
        """Scale the Deployments, then the route, then the balancers' plan."""
        change: dict[str, int] = {}
        for step in order.steps:
            sign = {START: 1, CANCEL: -1, DRAIN: -1}.get(step.verb, 0)
            change[step.replica_type] = change.get(step.replica_type, 0) + sign * step.instances
        for name, instances in change.items():
            if not instances:
                continue
            if name not in self._deployments:
                why = "it has no Deployment (deploy a plan that uses it, with 0 replicas)"
                self._failures.setdefault(name, []).append(why)
                continue
            deployment = self._deployments[name]
            # An absolute number from what was seen: the same order twice asks for the same.
            count = max(0, self._wanted[deployment] + instances * self._each(name))
            with _talking(f"scale {deployment} to {count}"):
                self.clients.apps.patch_namespaced_deployment_scale(
                    deployment, self.namespace, {"spec": {"replicas": count}}, _request_timeout=_CALL_S
                )
        if order.plan is not None and order.is_changed:
            self._route(order.plan)
        if order.balancer_plan is not None:
            self._hand_over(order.balancer_plan)
        return ()

    def _hand_over(self, plan: Plan) -> None:
        """Give the balancers a plan, where there are some: they read it again when it changes."""
        name = f"{self.service}-plan"
        with _talking(f"write the ConfigMap {name}", absent=True):
            self.clients.core.patch_namespaced_config_map(
                name, self.namespace, {"data": {"plan.json": plan_text(plan)}}, _request_timeout=_CALL_S
            )

    def _route(self, plan: Plan) -> None:
        """Set the weights of the HTTPRoute, where there is one."""
        used = [one.name for one, count in zip(plan.replica_types, plan.instances, strict=True) if count]
        weight = {self._deployments.get(name): part for name, part in zip(used, weights_of(plan), strict=True)}
        group, version, plural = _ROUTE
        with _talking(f"set the weights of the HTTPRoute {self.service}", absent=True):
            route = self.clients.custom.get_namespaced_custom_object(
                group, version, self.namespace, plural, self.service, _request_timeout=_CALL_S
            )
            rules = [_weighted(rule, weight) for rule in route["spec"].get("rules", [])]
            if rules != route["spec"].get("rules", []):
                # With the version that was read: where somebody else has changed it since, this is refused.
                body = {
                    "metadata": {"resourceVersion": route["metadata"].get("resourceVersion")},
                    "spec": {"rules": rules},
                }
                self.clients.custom.patch_namespaced_custom_object(
                    group, version, self.namespace, plural, self.service, body, _request_timeout=_CALL_S
                )


class Clients:
    """The official client's interfaces that are used.

    Parameters
    ----------
    host
        Of the API server; empty: what the pod or the kubeconfig says.
    context
        Of the kubeconfig; empty: the current one.
    """

    def __init__(self, host: str = "", context: str = "") -> None:
        from kubernetes import client, config

        if host:
            configuration = client.Configuration(host=host)
        else:
            configuration = client.Configuration()
            try:
                try:
                    config.load_incluster_config(client_configuration=configuration)
                except config.ConfigException:
                    config.load_kube_config(context=context or None, client_configuration=configuration)
            except (config.ConfigException, OSError) as fault:
                raise InputError(
                    f"no cluster is configured: {fault}", hint="set KUBECONFIG, or run in a pod"
                ) from fault
        configuration.retries = 1
        api = client.ApiClient(configuration)
        self.apps, self.core = client.AppsV1Api(api), client.CoreV1Api(api)
        self.custom, self.leases = client.CustomObjectsApi(api), client.CoordinationV1Api(api)


class ClusterLease:
    """A Lease object in the cluster.

    Parameters
    ----------
    clients
        To its API server.
    namespace, name
        Of the Lease.
    holder
        Who we are.
    length_s
        It runs out when it is not renewed for this long [s].
    """

    def __init__(self, clients: Clients, namespace: str, name: str, holder: str, length_s: float) -> None:
        self.clients, self.namespace, self.name = clients, namespace, name
        self.holder, self.length_s = holder, length_s

    def hold(self, now_s: float) -> str:
        """Take or renew it; the holder's name where somebody else has it, empty where it is ours."""
        from kubernetes.client.exceptions import ApiException

        api, now = self.clients.leases, datetime.fromtimestamp(now_s, UTC)
        with _talking(f"hold the Lease {self.name}"):
            try:
                lease = api.read_namespaced_lease(self.name, self.namespace, _request_timeout=_CALL_S)
            except ApiException as fault:
                if fault.status != 404:
                    raise
                lease = None
            try:
                if lease is None:
                    spec = self._spec(now, now)
                    body = {"metadata": {"name": self.name}, "spec": spec}
                    api.create_namespaced_lease(self.namespace, body, _request_timeout=_CALL_S)
                    return ""
                other, renewed = lease.spec.holder_identity or "", lease.spec.renew_time
                length_s = lease.spec.lease_duration_seconds or 0
                if other not in ("", self.holder) and renewed and now_s < renewed.timestamp() + length_s:
                    return str(other)
                since = lease.spec.acquire_time if other == self.holder else now
                body = {
                    "metadata": {"name": self.name, "resourceVersion": lease.metadata.resource_version},
                    "spec": self._spec(since or now, now),
                }
                api.replace_namespaced_lease(self.name, self.namespace, body, _request_timeout=_CALL_S)
            except ApiException as fault:
                if fault.status != 409:
                    raise
                return "another controller"
        return ""

    def release(self) -> None:
        """Give it up, if it is ours."""
        from kubernetes.client.exceptions import ApiException

        with _talking(f"release the Lease {self.name}", absent=True):
            lease = self.clients.leases.read_namespaced_lease(self.name, self.namespace, _request_timeout=_CALL_S)
            if lease.spec.holder_identity != self.holder:
                return
            body = {
                "metadata": {"name": self.name, "resourceVersion": lease.metadata.resource_version},
                "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
            }
            try:
                self.clients.leases.replace_namespaced_lease(self.name, self.namespace, body, _request_timeout=_CALL_S)
            except ApiException as fault:
                if fault.status != 409:
                    raise

    def _spec(self, since: datetime, now: datetime) -> dict[str, Any]:
        stamp = "%Y-%m-%dT%H:%M:%S.%fZ"
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": max(1, round(self.length_s)),
            "acquireTime": since.astimezone(UTC).strftime(stamp),
            "renewTime": now.strftime(stamp),
        }


@contextmanager
def _talking(what: str, *, absent: bool = False) -> Iterator[None]:
    """Failures of the client as errors of ours; what is absent is passed over if it may be."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as fault:
        if not (absent and fault.status == 404):
            raise MelangeError(f"Kubernetes: cannot {what}: {fault.status} {fault.reason}") from fault
    except HTTPError as fault:
        raise MelangeError(f"Kubernetes: cannot {what}: {fault}") from fault


def _is_ready(pod: Any) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())


def _why_broken(pod: Any) -> str:
    for one in pod.status.container_statuses or ():
        waiting = one.state.waiting if one.state else None
        if waiting is not None and waiting.reason in _BROKEN:
            return f"{pod.metadata.name}: {waiting.reason}"
    return ""


def _refusals(deployment: Any) -> list[str]:
    """What the cluster refuses: a quota, say."""
    return [
        f"{deployment.metadata.name}: {one.message or one.reason}"
        for one in (deployment.status.conditions if deployment.status else None) or ()
        if one.type == "ReplicaFailure" and one.status == "True"
    ]


def _weighted(rule: Mapping[str, Any], weight: Mapping[str | None, int]) -> dict[str, Any]:
    """A rule with the plan's weights; rules that match a type's header keep theirs."""
    backends = rule.get("backendRefs", [])
    if any("headers" in match for match in rule.get("matches", [])) or not any(
        one.get("name") in weight for one in backends
    ):
        return dict(rule)
    return {**rule, "backendRefs": [{**one, "weight": weight.get(one.get("name"), 0)} for one in backends]}
