"""What the files of targets that start servers say: of a plan, of each option, and of what they cannot do."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from deploy_cases import SMALL_SHARE, plan_of, replica_type, two_types
from hostile import HOSTILE, hostile_plan
from plan_cases import answering

from melange.deploy.elsewhere import elsewhere, is_size_aware, weights_of
from melange.deploy.manifest import Manifest
from melange.deploy.plan_in_use import plan_in_use
from melange.deploy.render import TARGETS, render
from melange.deploy.server_options import ServerOptions
from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.profile.formats.aibrix import profile_from_aibrix

STARTERS = tuple(name for name, target in TARGETS.items() if issubclass(target.options, ServerOptions))
CLUSTER = ("kubernetes", "kserve", "llm-d", "aibrix")


def in_market(market: str, provider: str = "aws", **offer: object) -> Plan:
    """Two A10G and an A100 in a market of a cloud."""
    plan = two_types()
    types = [
        replace(one, offer=replace(one.offer, market=market, provider=provider, **offer)) for one in plan.replica_types
    ]
    return answering(plan, replica_types=tuple(types))


def objects_of(manifest: Manifest) -> list[dict[str, Any]]:
    """Kubernetes objects of its files."""
    return [
        one
        for name, text in manifest.files.items()
        if name.startswith("manifests/")
        for one in yaml.safe_load_all(text)
    ]


def one_of(manifest: Manifest, kind: str, name: str = "") -> dict[str, Any]:
    """The object of a kind whose name ends so."""
    (found,) = (one for one in objects_of(manifest) if one["kind"] == kind and one["metadata"]["name"].endswith(name))
    return found


def pod_of(manifest: Manifest, name: str = "g5-xlarge") -> dict[str, Any]:
    """The pod of a type, whatever makes it."""
    if manifest.target == "kserve":
        return one_of(manifest, "LLMInferenceService", name)["spec"]["template"]
    return one_of(manifest, "Deployment", name)["spec"]["template"]["spec"]


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
    """By hand: 4.17 of 10 go to the A10G, and so many of each size to another type than planned."""
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


def test_compose_on_one_machine_runs_everything() -> None:
    """Each replica with its own accelerators; the balancer when they are ready; no other file is needed."""
    one = replica_type("aws/p4d tp2", "A100-40GB")
    one = replace(one, tensor_parallel=2, offer=replace(one.offer, accelerators=8, instance_type="p4d.24xlarge"))
    manifest = render(plan_of(np.ones((1, 3, 2)), [1], [one]), "docker-compose", listen="0.0.0.0:80")
    assert list(manifest.files) == ["compose.yaml", "config/plan.json", "config/replicas.txt"]
    services = yaml.safe_load(manifest.files["compose.yaml"])["services"]
    devices = [
        service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in services.items()
        if name != "balancer"
    ]
    assert devices == [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"]]
    assert services["balancer"]["ports"] == ["0.0.0.0:80:8080"]
    assert set(services["balancer"]["depends_on"]) == {f"replica-{k}" for k in range(4)}
    assert manifest.files["config/replicas.txt"].splitlines()[0] == "aws/p4d tp2=http://replica-0:8000"


def test_compose_on_several_machines_has_a_file_for_each_kind() -> None:
    """And one for the balancer, which is told where replicas are."""
    urls = {"A10G": ["http://10.0.0.1:8000", "http://10.0.0.2:8000"], "A100-80GB": ["http://10.0.0.3:8000"]}
    manifest = render(two_types(), "docker-compose", replicas=urls)
    assert [name for name in manifest.files if name.endswith("compose.yaml")] == [
        "aws-us-east-1-g5-xlarge/compose.yaml",
        "aws-us-east-1-p4d/compose.yaml",
        "balancer/compose.yaml",
    ]
    assert manifest.files["balancer/config/replicas.txt"].splitlines()[-1] == "aws/us-east-1/p4d=http://10.0.0.3:8000"
    assert [caution.kind for caution in manifest.cautions] == ["limits", "machines"]


def test_a_sky_service_has_the_planned_instances() -> None:
    """Each on its own instance type; in one service the rates that each carries, which is not a count."""
    manifest = render(in_market("spot"), "skypilot")
    task = yaml.safe_load(manifest.files["aws-us-east-1-g5-xlarge.yaml"])
    assert task["service"]["replicas"] == 2
    assert task["resources"]["infra"] == "aws/us-east-1"
    assert task["resources"]["use_spot"] is True
    assert task["secrets"] == {"HF_TOKEN": None}
    types = [replica_type("aws/us-east-1/g5.xlarge", "A10G"), replica_type("aws/us-east-1/g6e.xlarge", "L40S")]
    plan = plan_of(np.stack([SMALL_SHARE, 1.0 - SMALL_SHARE]), [2, 1], types)
    manifest = render(plan, "skypilot", layout="one-service")
    policy = yaml.safe_load(manifest.files["service.yaml"])["service"]["replica_policy"]
    assert policy["target_qps_per_replica"] == {"A10G:1": pytest.approx(2.085), "L40S:1": pytest.approx(5.83)}
    assert [caution.kind for caution in manifest.cautions] == ["limits", "counts", "routing"]
    with pytest.raises(InputError, match="takes no rate"):
        render(two_types(), "skypilot", layout="one-service")


def test_a_dstack_service_has_a_group_a_type() -> None:
    """With counts, markets and the instances that are allowed."""
    service = yaml.safe_load(render(in_market("spot"), "dstack").files["service.dstack.yml"])
    assert [(one["count"], one["spot_policy"]) for one in service["replicas"]] == [(2, "spot"), (1, "spot")]
    assert service["instance_types"] == ["g5.xlarge", "p4d"]
    assert service["replicas"][1]["resources"]["gpu"] == "A100:80GB:1"
    scaled = yaml.safe_load(render(two_types(), "dstack", scaling="rps").files["service.dstack.yml"])["replicas"][0]
    assert (scaled["count"], scaled["scaling"]) == ("2..4", {"metric": "rps", "target": pytest.approx(2.085)})


def test_terraform_has_a_group_a_type() -> None:
    """As many instances as planned, by market; other clouds are left out with a word, or refused if nothing is left."""
    files = render(in_market("spot"), "terraform").files
    assert 'instance_type          = "g5.xlarge"' in files["aws.tf"]
    assert "desired_capacity          = 2" in files["aws.tf"]
    assert 'market_type = "spot"' in files["aws.tf"]
    assert "capacity_reservation_specification" in render(in_market("reserved"), "terraform").files["aws.tf"]
    files = render(in_market("reserved", "gcp"), "terraform").files
    assert "SPECIFIC_RESERVATION" in files["gcp.tf"]
    assert "start 0 0" in files["startup/aws-us-east-1-g5-xlarge.sh"]
    with pytest.raises(InputError, match="instances of nebius"):
        render(in_market("on-demand", "nebius"), "terraform")
    plan = two_types()
    first, *others = plan.replica_types
    mixed = answering(plan, replica_types=(replace(first, offer=replace(first.offer, provider="nebius")), *others))
    (left,) = (one for one in render(mixed, "terraform").cautions if one.kind == "left-out")
    assert left.message.startswith("2 x aws/us-east-1/g5.xlarge: not written")


def test_plans_without_sizes_have_no_balancer() -> None:
    """Numbered buckets cannot be told apart; routing=none starts the servers all the same."""
    from plan_cases import authors

    from melange.plan.solve import solve

    plan = solve(*authors())
    options = {"engine": "vllm", "model": "meta-llama/Llama-2-7b-hf"}
    with pytest.raises(InputError, match="have no sizes in tokens"):
        render(plan, "kubernetes", **options)
    assert render(plan, "kubernetes", routing="none", **options).files
    with pytest.raises(InputError, match="without an engine"):
        render(plan, "kubernetes", routing="none", model="m")


@pytest.mark.parametrize("is_model_alone", [True, False])
@pytest.mark.parametrize("target", STARTERS)
def test_what_users_name_cannot_break_out(target: str, is_model_alone: bool) -> None:
    """YAML reads back with the keys that it has for plain names; comments stay comments; files have plain names."""
    plain = [keys(one) for one in parsed(render(hostile_plan("plain"), target))]
    made = 0
    for text in HOSTILE:
        plan = answering(hostile_plan("plain"), model=text) if is_model_alone else hostile_plan(text)
        try:
            manifest = render(plan, target)
        except InputError as error:
            if error.hint is None:
                raise
            continue
        made += 1
        assert [keys(one) for one in parsed(manifest)] == plain
        assert all(re.fullmatch(r"[a-z0-9./-]+", name) for name in manifest.files)
        top, _, _ = next(iter(manifest.files.values())).partition("\n\n")
        assert all(line.startswith("#") for line in top.splitlines())
    assert made >= (30 if is_model_alone else 4)


def parsed(manifest: Manifest) -> list[Any]:
    """Everything that its YAML files hold."""
    texts = [text for name, text in manifest.files.items() if name.endswith((".yaml", ".yml"))]
    return [one for text in texts for one in yaml.safe_load_all(text)]


def keys(value: object) -> object:
    """Its keys at every depth and types of values, less what only holds names that have a certain form."""
    if isinstance(value, dict):
        return {
            key: keys(one) for key, one in value.items() if key not in {"nodeSelector", "regions", "instance_types"}
        }
    return [keys(one) for one in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() and text.strip()])
def test_a_cluster_gets_the_model_as_it_is_called(text: str) -> None:
    """An argument of its own, in which the kubelet puts nothing in the place of a variable."""
    plan = answering(two_types(), model=text)
    (engine,) = pod_of(render(plan, "kubernetes", name="chat", routing="none"), "g5-xlarge")["containers"]
    assert engine["args"][1].replace("$$", "$") == text
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", engine["args"][1])


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() and text.strip()])
def test_a_shell_gets_the_model_of_a_task_as_it_is_called(text: str) -> None:
    """Also where dstack would read a variable."""
    plan = answering(two_types(), model=text)
    service = yaml.safe_load(render(plan, "dstack").files["service.dstack.yml"])
    command = service["replicas"][0]["commands"][0]
    assert shlex.split(command)[2] == text
    assert "${{" not in command
