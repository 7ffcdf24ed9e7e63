"""What the files of cluster targets say: of a plan, of each option, and of what they cannot do."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from deploy_cases import SMALL_SHARE, plan_of, replica_type, two_types
from plan_cases import answering
from starters import CLUSTER, STARTERS, in_market, objects_of, one_of, pod_of

from melange.deploy.elsewhere import elsewhere, is_size_aware, weights_of
from melange.deploy.plan_in_use import plan_in_use
from melange.deploy.render import render
from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.profile.formats.aibrix import profile_from_aibrix


@pytest.mark.parametrize("target", STARTERS)
def test_a_file_says_which_plan_it_is_from(target: str) -> None:
    """Fingerprint, model, cost, replicas, servers; and cautions, in a comment at its top."""
    manifest = render(two_types(), target)
    first = " ".join(next(iter(manifest.files.values())).replace("\n# ", " ").split())
    for said in (
        two_types().fingerprint,
        "5.69 USD/h",
        "2 x aws/us-east-1/g5.xlarge",
        "A replica of aws/us-east-1/p4d",
    ):
        assert said in first
    assert all(f"CAUTION: {caution}"[:60] in first for caution in manifest.cautions)


@pytest.mark.parametrize("target", STARTERS)
def test_files_start_the_engine_as_the_plan_assumes(target: str) -> None:
    """The same words in every target's own place, and no token in any file."""
    text = str(render(two_types(), target))
    words = re.sub(r"""[\s'"\\,-]+""", " ", text)
    assert re.search(r"served model name meta llama/Llama 3.1 8B Instruct|served model name llama 3 1 8b", words)
    for flag in (
        "tensor parallel size 1",
        "pipeline parallel size 1",
        "no enable prefix caching",
        "kv cache dtype auto",
    ):
        assert flag in words
    assert "HF_TOKEN" in text
    assert "vllm/vllm-openai:v0.32.0" in text


@pytest.mark.parametrize("target", CLUSTER)
def test_a_pod_is_a_replica(target: str) -> None:
    """Its accelerators, its probes, its token as a reference, its end after its requests, its node."""
    pod = pod_of(render(two_types(), target))
    (engine,) = pod["containers"]
    assert engine["resources"]["requests"] == engine["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert engine["startupProbe"]["failureThreshold"] * engine["startupProbe"]["periodSeconds"] == 1800
    assert engine["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "hf-token"
    assert pod["terminationGracePeriodSeconds"] == 96  # twice (1 s + 400 tokens of 80 ms), and 30
    assert "num_requests_running" in engine["lifecycle"]["preStop"]["exec"]["command"][2]
    assert pod["nodeSelector"]["node.kubernetes.io/instance-type"] == "g5.xlarge"
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod["volumes"]
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("target", CLUSTER)
def test_replicas_and_budgets_are_the_plans(target: str) -> None:
    """As many as planned where nothing scales them; a budget and a name for each type."""
    options = {} if target in {"kubernetes", "kserve"} else {"scaling": "fixed"}
    manifest = render(two_types(), target, **options)
    kind = "LLMInferenceService" if target == "kserve" else "Deployment"
    counts = {one["metadata"]["name"]: one["spec"]["replicas"] for one in objects_of(manifest) if one["kind"] == kind}
    assert counts.pop("llama-3-1-8b-balancer", 2) == 2
    assert list(counts.values()) == [2, 1]
    assert [one["kind"] for one in objects_of(manifest)].count("PodDisruptionBudget") == 3
    assert one_of(manifest, "Service", "g5-xlarge")["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("target", CLUSTER)
def test_the_balancer_follows_the_plan(target: str) -> None:
    """It has the plan, with the same fingerprint and without the types that are not used, and finds every type."""
    manifest = render(two_types(), target)
    stored = json.loads(one_of(manifest, "ConfigMap", "-plan")["data"]["plan.json"])
    again = Plan.from_json(stored)
    assert again.fingerprint == two_types().fingerprint == stored["fingerprint"]
    assert [one.name for one in again.replica_types] == ["aws/us-east-1/g5.xlarge", "aws/us-east-1/p4d"]
    pod = one_of(manifest, "Deployment", "-balancer")["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"][:3] == ["balance", "/plan/plan.json", "--replicas"]
    assert pod["containers"][1]["args"][-2:] == [
        "aws/us-east-1/g5.xlarge=http://llama-3-1-8b-aws-us-east-1-g5-xlarge:8000",
        "aws/us-east-1/p4d=http://llama-3-1-8b-aws-us-east-1-p4d:8000",
    ]
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_a_plan_in_use_is_the_same_plan() -> None:
    """With the options that bind types in use, and without those that name others."""
    plan = two_types()
    options = Options(
        max_instances={"aws/us-east-1/g5.xlarge": 4, "aws/us-east-1/g6.xlarge": 9},
        max_accelerators={"L4": 3, "A10G": 8},
        min_replicas={"aws/us-east-1/g6.xlarge": 1, "aws/us-east-1/p4d": 1},
        exclude=("L4",),
        headroom=0.2,
    )
    plan = replace(plan, question=replace(plan.question, options=options))
    left = plan_in_use(plan)
    assert left.fingerprint == plan.fingerprint
    assert left.options == Options(
        max_instances={"aws/us-east-1/g5.xlarge": 4},
        max_accelerators={"A10G": 8},
        min_replicas={"aws/us-east-1/p4d": 1},
        headroom=0.2,
    )
    assert Plan.from_json(json.loads(left.dumps())).fingerprint == plan.fingerprint


def test_a_pod_that_stays_as_it_is_is_not_started_again() -> None:
    """Another plan with the same servers changes no pod of theirs."""
    pods = []
    for part in (0.65, 0.4):
        share = SMALL_SHARE.copy()
        share[1, 0] = part
        types = [replica_type("aws/us-east-1/g5.xlarge", "A10G"), replica_type("aws/us-east-1/p4d", "A100-80GB")]
        plan = plan_of(np.stack([share, 1.0 - share]), [2, 1], types)
        pods.append(one_of(render(plan, "kubernetes"), "Deployment", "g5-xlarge")["spec"]["template"])
    assert pods[0] == pods[1]


@pytest.mark.parametrize(
    ("market", "provider", "options", "labels", "taints"),
    [
        ("spot", "gcp", {}, {"cloud.google.com/gke-spot": "true"}, ["nvidia.com/gpu", "cloud.google.com/gke-spot"]),
        ("on-demand", "gcp", {}, {}, ["nvidia.com/gpu"]),
        ("spot", "aws", {}, {"karpenter.sh/capacity-type": "spot"}, ["nvidia.com/gpu"]),
        ("reserved", "aws", {}, {"karpenter.sh/capacity-type": "reserved"}, ["nvidia.com/gpu"]),
        ("spot", "aws", {"aws_nodes": "managed"}, {"eks.amazonaws.com/capacityType": "SPOT"}, ["nvidia.com/gpu"]),
        (
            "spot",
            "azure",
            {},
            {"kubernetes.azure.com/scalesetpriority": "spot"},
            ["nvidia.com/gpu", "sku", "kubernetes.azure.com/scalesetpriority"],
        ),
        ("on-demand", "nebius", {}, {}, ["nvidia.com/gpu"]),
    ],
)
def test_nodes_are_those_of_the_market(
    market: str, provider: str, options: dict[str, object], labels: dict[str, str], taints: list[str]
) -> None:
    """By the labels and taints that the provider's clusters have."""
    pod = pod_of(render(in_market(market, provider), "kubernetes", **options))
    assert labels.items() <= pod["nodeSelector"].items()
    assert [one["key"] for one in pod["tolerations"]] == taints
    assert ("spot" in str(pod["nodeSelector"]).lower()) == (market == "spot")


@pytest.mark.parametrize(
    ("machine", "accelerator", "label"),
    [
        ("a3-highgpu-8g", "H100-80GB", "nvidia-h100-80gb"),
        ("a3-megagpu-8g", "H100-80GB", "nvidia-h100-mega-80gb"),
        ("a3-ultragpu-8g", "H200", "nvidia-h200-141gb"),
        ("a4-highgpu-8g", "B200", "nvidia-b200"),
        ("a4x-highgpu-4g", "GB200", "nvidia-gb200"),
    ],
)
def test_nodes_of_gke_have_its_names_of_accelerators(machine: str, accelerator: str, label: str) -> None:
    """Which differ between machines with the same accelerator."""
    plan = in_market("on-demand", "gcp", instance_type=machine, accelerator=accelerator)
    selector = pod_of(render(plan, "kubernetes"))["nodeSelector"]
    assert selector["cloud.google.com/gke-accelerator"] == label
    assert selector["node.kubernetes.io/instance-type"] == machine


@pytest.mark.parametrize("target", STARTERS)
def test_a_model_of_a_local_folder_gets_a_caution(target: str) -> None:
    """Its name is none on the hub; named models, and those of the catalog without an organization, get none."""

    def cautioned(name: str, **options: object) -> bool:
        plan = answering(two_types(), model=name)
        return "local-model" in [one.kind for one in render(plan, target, **options).cautions]

    assert cautioned("mistral-7b")
    assert not cautioned("mistral-7b", model="mistralai/Mistral-7B-v0.1")
    assert not cautioned("mistralai/Mistral-7B-v0.1")
    assert not cautioned("meta-llama/Llama-3.1-8B")


def test_types_on_the_same_instances_keep_apart() -> None:
    """Else pods of one would leave too few accelerators together for those of the other."""
    types = [replica_type(f"aws/p4d tp{k}", "A100-40GB") for k in (1, 2)]
    types = [
        replace(one, tensor_parallel=k, offer=replace(one.offer, accelerators=8, instance_type="p4d.24xlarge"))
        for one, k in zip(types, (1, 2), strict=True)
    ]
    plan = plan_of(np.full((2, 3, 2), 0.5), [1, 1], types)
    manifest = render(plan, "kubernetes")
    pod = pod_of(manifest, "p4d-tp1")
    (term,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchExpressions"][0]["values"] == ["aws-p4d-tp2"]
    assert pod_of(manifest, "p4d-tp2")["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert one_of(manifest, "Deployment", "p4d-tp2")["spec"]["replicas"] == 4


def test_weights_are_parts_of_all_requests() -> None:
    """By hand: 4.17 of 10 go to the A10G, and of each size that part goes to another type than planned."""
    plan = two_types()
    assert weights_of(plan) == (4170, 5830)
    rates = np.array([[2.0, 1.0], [1.0, 2.0], [3.0, 1.0]])
    by_hand = (rates * np.abs(SMALL_SHARE - 0.417)).sum() / 10
    assert elsewhere(plan)[0] == pytest.approx(by_hand)
    # The A100 has a rate of 2 for short prompts and can serve them; nothing has a rate of 0.
    assert elsewhere(plan)[1] == 0.0
    even = plan_of(np.full((2, 3, 2), 0.5), [1, 1], [replica_type("a", "L4"), replica_type("b", "L4")])
    assert not is_size_aware(even)
    assert is_size_aware(plan)


def test_a_route_has_the_weights_and_a_pool_a_type() -> None:
    """And a rule for each type by header, for a proxy that knows sizes; the caution says what is lost."""
    manifest = render(two_types(), "kubernetes", routing="gateway", gateway="front")
    route = one_of(manifest, "HTTPRoute")["spec"]
    assert route["parentRefs"] == [{"name": "front"}]
    assert [one["weight"] for one in route["rules"][-1]["backendRefs"]] == [4170, 5830]
    assert [rule["matches"][0]["headers"][0]["value"] for rule in route["rules"][:-1]] == [
        "aws-us-east-1-g5-xlarge",
        "aws-us-east-1-p4d",
    ]
    pools = [one for one in objects_of(manifest) if one["kind"] == "InferencePool"]
    assert [one["spec"]["targetPorts"] for one in pools] == [[{"number": 8000}]] * 2
    (caution,) = (one for one in manifest.cautions if one.kind == "routing")
    assert f"{elsewhere(two_types())[0]:.0%} of requests go to another type than planned" in caution.message


def test_keda_scales_around_the_plan() -> None:
    """From the planned, or what is given, to twice that, on the planned requests in flight."""
    manifest = render(two_types(), "kubernetes", scaling="keda", least_replicas=1, prometheus="http://p:9090")
    assert "replicas" not in one_of(manifest, "Deployment", "g5-xlarge")["spec"]
    scaled = one_of(manifest, "ScaledObject", "g5-xlarge")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 4)
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["serverAddress"] == "http://p:9090"
    assert 'pod=~"llama-3-1-8b-aws-us-east-1-g5-xlarge-.*"' in trigger["metadata"]["query"]
    planned = one_of(render(two_types(), "kubernetes", scaling="keda"), "ScaledObject", "g5-xlarge")["spec"]
    assert planned["minReplicaCount"] == 2
    few = render(in_market("on-demand", max_instances=3), "kubernetes", scaling="keda")
    assert one_of(few, "ScaledObject", "g5-xlarge")["spec"]["maxReplicaCount"] == 3


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
def test_keda_asks_for_the_metrics_of_its_own_namespace(target: str) -> None:
    """Every metric of a query has the namespace that was given, and none without one."""
    given = json.dumps(list(objects_of(render(two_types(), target, scaling="keda", namespace="chat"))))
    assert given.count("avg_over_time") == given.count(r"-.*\",namespace=\"chat\"}") == 4
    without = json.dumps(list(objects_of(render(two_types(), target, scaling="keda"))))
    assert without.count("avg_over_time") == without.count(r"-.*\"}") == 4


@pytest.mark.parametrize("number", [-1, 2**31, 10**400])
def test_numbers_of_replicas_are_those_that_clusters_count(number: int) -> None:
    """32 bits; none at least where they are scaled, one balancer at least."""
    with pytest.raises(InputError, match="least_replicas must be 0 to 2,147,483,647"):
        render(two_types(), "kubernetes", scaling="keda", least_replicas=number)
    with pytest.raises(InputError, match="balancers must be 1 to 2,147,483,647"):
        render(two_types(), "kubernetes", balancers=number)


def test_variants_have_their_costs() -> None:
    """What a replica costs: 1.01 USD/h of an instance of one; in llm-d's objects, its annotations and KServe's."""
    manifest = render(two_types(), "llm-d")
    assert one_of(manifest, "VariantAutoscaling", "g5-xlarge")["spec"]["variantCost"] == "1.0100"
    told = one_of(manifest, "ScaledObject", "g5-xlarge")["metadata"]["annotations"]
    assert told == {
        "llm-d.ai/managed": "true",
        "llm-d.ai/model-id": "meta-llama/Llama-3.1-8B-Instruct",
        "llm-d.ai/variant-cost": "1.0100",
    }
    spec = one_of(render(two_types(), "kserve", scaling="wva"), "LLMInferenceService", "g5-xlarge")["spec"]
    assert spec["scaling"]["wva"]["variantCost"] == "1.0100"
    assert "replicas" not in spec


def test_kserve_downloads_and_the_plan_says_the_command() -> None:
    """The model from the hub, or by the URI that is given; a local path is refused."""
    spec = one_of(render(two_types(), "kserve", routing="gateway"), "LLMInferenceService", "g5-xlarge")["spec"]
    assert spec["model"] == {
        "uri": "hf://meta-llama/Llama-3.1-8B-Instruct",
        "name": "meta-llama/Llama-3.1-8B-Instruct",
    }
    assert spec["template"]["containers"][0]["args"][:2] == ["serve", "/mnt/models"]
    assert spec["router"]["route"] == {"group": "llama-3-1-8b", "weight": 4170}
    spec = one_of(render(two_types(), "kserve", model="pvc://claim/llama"), "LLMInferenceService", "g5-xlarge")["spec"]
    assert spec["model"]["uri"] == "pvc://claim/llama"
    with pytest.raises(InputError, match="is a path"):
        render(two_types(), "kserve", model="/models/llama")


def test_aibrix_has_its_labels_and_profiles() -> None:
    """A model name without a slash; profiles that AIBrix's own reader of ours takes, with the rates of a replica."""
    manifest = render(two_types(), "aibrix")
    deployment = one_of(manifest, "Deployment", "g5-xlarge")
    assert deployment["metadata"]["labels"]["model.aibrix.ai/name"] == "llama-3-1-8b"
    assert "--served-model-name" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    scaler = one_of(manifest, "PodAutoscaler", "g5-xlarge")["spec"]
    assert (scaler["scalingStrategy"], scaler["minReplicas"], scaler["maxReplicas"]) == ("APA", 2, 4)
    stored = {name: json.loads(text) for name, text in manifest.files.items() if name.startswith("profiles/")}
    profile = profile_from_aibrix(list(stored.values()), list(stored))
    assert [one.name for one in profile.replica_types] == [
        "llama-3-1-8b-aws-us-east-1-g5-xlarge",
        "llama-3-1-8b-aws-us-east-1-p4d",
    ]
    assert (profile.max_request_rate == plan_in_use(two_types()).max_request_rate).all()


def test_plans_without_sizes_have_no_balancer() -> None:
    """Numbered buckets have no sizes to route by; routing=none starts the servers all the same."""
    from plan_cases import authors

    from melange.plan.solve import solve

    plan = solve(*authors())
    options = {"engine": "vllm", "model": "meta-llama/Llama-2-7b-hf"}
    with pytest.raises(InputError, match="without token counts"):
        render(plan, "kubernetes", **options)
    assert render(plan, "kubernetes", routing="none", **options).files
    with pytest.raises(InputError, match="without an engine"):
        render(plan, "kubernetes", routing="none", model="m")
