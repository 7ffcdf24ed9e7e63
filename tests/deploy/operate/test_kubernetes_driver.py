"""The driver for clusters, by the official client on a small API server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from api_server import DEPLOYMENTS, LEASES, MAPS, PODS, ROUTES, ApiServer
from deploy_cases import two_types

from melange.deploy.operate.drivers.driver import Order
from melange.deploy.operate.drivers.kubernetes_driver import Clients, ClusterLease, KubernetesDriver
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.fleet_steps import CANCEL, DRAIN, START, STOP, Step
from melange.deploy.render import render
from melange.errors import InputError, MelangeError
from melange.plan.plan import Plan

KINDS = {"Deployment": DEPLOYMENTS, "ConfigMap": MAPS, "HTTPRoute": ROUTES}


@pytest.fixture(params=["balancer", "gateway"])
def cluster(request: pytest.FixtureRequest) -> Iterator[tuple[ApiServer, Plan]]:
    """A cluster in which the manifests of a plan were applied."""
    plan = two_types()
    with ApiServer() as server:
        for name, text in render(plan, "kubernetes", routing=request.param).files.items():
            if name.startswith("manifests/"):
                for one in yaml.safe_load_all(text):
                    if one["kind"] in KINDS:
                        server.add(KINDS[one["kind"]], one)
        server.make_ready()
        yield server, plan


def driver_of(server: ApiServer, plan: Plan) -> KubernetesDriver:
    """The driver of that cluster."""
    return KubernetesDriver(Clients(server.url), "default", plan.replica_types)


def acted(driver: KubernetesDriver, *steps: Step, **more: object) -> None:
    """Look, then act."""
    driver.look(time.time())
    driver.act(Order(at_s=time.time(), steps=steps, target={}, **more))


def test_it_sees_the_fleet_and_scales_it(cluster: tuple[ApiServer, Plan]) -> None:
    """Pods that start, serve and go; the same order twice asks for the same number."""
    server, plan = cluster
    driver = driver_of(server, plan)
    first = {name: count for name, count in plan.instances_by_name.items() if count}
    assert {name: one.ready for name, one in driver.look(time.time()).items()} == first
    (name, *_) = first
    start = Step(verb=START, replica_type=name, instances=2)
    acted(driver, start)
    driver.act(Order(at_s=time.time(), steps=(start,), target={}))
    seen = driver.look(time.time())[name]
    assert (seen.ready, seen.starting) == (first[name], 2)
    acted(driver, Step(verb=CANCEL, replica_type=name, instances=1))
    server.finish_going()
    server.make_ready()
    seen = driver.look(time.time() + 5)[name]
    assert (seen.ready, seen.starting) == (first[name] + 1, 0)
    acted(driver, Step(verb=DRAIN, replica_type=name, instances=1), Step(verb=STOP, replica_type=name, instances=1))
    seen = driver.look(time.time() + 5)[name]
    assert seen.ready == first[name]
    assert seen.draining_s[0] >= 4
    server.finish_going()
    assert not driver.look(time.time())[name].draining_s


def test_what_does_not_start_is_told(cluster: tuple[ApiServer, Plan]) -> None:
    """A container that cannot run, a quota, and a type without a Deployment."""
    server, plan = cluster
    driver = driver_of(server, plan)
    (name, *_) = [one for one, count in plan.instances_by_name.items() if count]
    acted(driver, Step(verb=START, replica_type=name, instances=1))
    server.break_pods("ImagePullBackOff")
    assert "ImagePullBackOff" in driver.look(time.time())[name].failures[0]
    deployment = server.get(DEPLOYMENTS, driver._deployments[name])
    deployment["status"] = {
        "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "Quota", "message": "no GPUs left"}]
    }
    assert any("no GPUs left" in one for one in driver.look(time.time())[name].failures)
    acted(driver, Step(verb=START, replica_type="other", instances=1))
    assert "no Deployment" in driver.look(time.time())["other"].failures[0]
    assert not driver.look(time.time()).get("other")


def test_the_route_and_the_balancers_get_the_plan(cluster: tuple[ApiServer, Plan]) -> None:
    """Weights of the route that names no header, and the ConfigMap, where there is one."""
    server, plan = cluster
    driver = driver_of(server, plan)
    fleet = {name: 3 for name, count in plan.instances_by_name.items() if count}
    after = FleetPlanner(plan).plan_of(fleet, plan.workload.request_rate)
    assert after is not None
    acted(driver, plan=after, balancer_plan=after, is_changed=True)
    routes = [one for path, one in server.objects.items() if "/httproutes/" in path]
    for route in routes:
        *named, by_weight = route["spec"]["rules"]
        assert sum(one["weight"] for one in by_weight["backendRefs"]) == 10_000
        assert {one["weight"] for rule in named for one in rule["backendRefs"]} == {1}
    maps = [one for path, one in server.objects.items() if "/configmaps/" in path and "plan.json" in one["data"]]
    for one in maps:
        replicas = json.loads(one["data"]["plan.json"])["replicas"]
        assert {name: count for name, count in replicas.items() if count} == fleet
    assert bool(routes) != bool(maps)


def test_one_controller_at_a_time_holds_the_lease() -> None:
    """Another takes over after it has run out, or was given up; who is slower in between is refused."""
    with ApiServer() as server:
        clients = Clients(server.url)
        first, second = (ClusterLease(clients, "default", "melange-operate", who, 60) for who in ("first", "second"))
        assert first.hold(1_000.0) == ""
        assert second.hold(1_030.0) == "first"
        assert first.hold(1_059.0) == ""
        assert second.hold(1_118.0) == "first"
        assert second.hold(1_120.0) == ""
        assert first.hold(1_121.0) == "second"
        first.release()
        assert second.hold(1_122.0) == ""
        second.release()
        assert first.hold(1_123.0) == ""
        lease = server.get(LEASES, "melange-operate")
        assert lease["spec"]["holderIdentity"] == "first"


def test_a_server_that_refuses_is_said(cluster: tuple[ApiServer, Plan]) -> None:
    """With what was to be done; and a namespace without Deployments says the next step."""
    server, plan = cluster
    driver = driver_of(server, plan)
    server.refuses.add(PODS.format("default"))
    with pytest.raises(MelangeError, match="list Deployments and pods: 403"):
        driver.look(1.0)
    with pytest.raises(InputError, match="no Deployment of melange"):
        KubernetesDriver(Clients(server.url), "elsewhere", plan.replica_types, "other").look(1.0)


def test_a_missing_kubeconfig_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outside of a cluster, without one."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no cluster is configured"):
        Clients()
