"""Fields of Kubernetes that decide whether a study runs, as the CRDs name them.

KubeRay's CRDs of `ray.io/v1` and Kueue's of `kueue.x-k8s.io/v1beta2` were read for them.
"""

import importlib.metadata

import pytest

from tests.orchestrator.deploy.conftest import AWKWARD, documents

JOB_FIELDS = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint",
    "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy",
    "metadata", "preRunningDeadlineSeconds", "rayClusterSpec", "runtimeEnvYAML",
    "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate",
    "suspend", "ttlSecondsAfterFinished",
}  # fmt: skip
CLUSTER_FIELDS = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions",
    "headGroupSpec", "headServiceAnnotations", "managedBy", "networkPolicy", "rayVersion",
    "suspend", "upgradeStrategy", "workerGroupSpecs",
}  # fmt: skip
GROUP_FIELDS = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts",
    "rayStartParams", "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip


def cluster_of(document):
    """The specification of the Ray cluster in a RayJob or RayCluster."""
    return document["spec"].get("rayClusterSpec", document["spec"])


def pods_of(document):
    """The pods of the head and of the workers."""
    cluster = cluster_of(document)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.fixture(params=["kuberay-job", "kuberay-cluster"])
def kind(request):
    return request.param


def test_what_is_written_is_what_kuberay_knows(kind):
    (found,) = documents(kind, gpus=8, queue="line", secret="credentials")
    assert found["apiVersion"] == "ray.io/v1"
    assert found["kind"] == {"kuberay-job": "RayJob", "kuberay-cluster": "RayCluster"}[kind]
    assert found["spec"].keys() <= (JOB_FIELDS if kind == "kuberay-job" else CLUSTER_FIELDS)
    cluster = cluster_of(found)
    assert cluster.keys() <= CLUSTER_FIELDS
    (workers,) = cluster["workerGroupSpecs"]
    assert workers.keys() <= GROUP_FIELDS
    for group in (cluster["headGroupSpec"], workers):
        # KubeRay takes parameters of `ray start` as strings only.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_all_workers_are_there_from_the_beginning_and_the_head_trains_nothing(kind):
    (found,) = documents(kind, nodes=3, gpus=4, cpus=16, memory=100)
    cluster = cluster_of(found)
    (workers,) = cluster["workerGroupSpecs"]
    assert {workers[name] for name in ("replicas", "minReplicas", "maxReplicas")} == {3}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    head, worker = (pod["containers"][0]["resources"] for pod in pods_of(found))
    assert "nvidia.com/gpu" not in head["limits"]
    amounts = {"cpu": "16", "memory": "100Gi", "nvidia.com/gpu": "4"}
    assert worker == {"requests": amounts, "limits": amounts}


def test_its_ray_is_the_one_installed_and_asks_for_a_token(kind):
    cluster = cluster_of(documents(kind)[0])
    assert cluster["rayVersion"] == importlib.metadata.version("ray")
    assert cluster["authOptions"] == {"mode": "token"}


def test_no_pod_is_root_or_can_become_it(kind):
    for pod in pods_of(documents(kind)[0]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}


def test_a_folder_is_a_claim_of_every_pod_and_a_bucket_none(kind):
    for pod in pods_of(documents(kind, root="/runs", claim="shared")[0]):
        (volume,) = pod["volumes"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert volume["persistentVolumeClaim"] == {"claimName": "shared"}
        assert (mount["name"], mount["mountPath"]) == (volume["name"], "/runs")
    for pod in pods_of(documents(kind, root="s3://bucket/runs")[0]):
        assert "volumes" not in pod
        assert "volumeMounts" not in pod["containers"][0]


def test_a_secret_is_named_and_its_values_come_from_kubernetes(kind):
    for pod in pods_of(documents(kind, secret="credentials")[0]):
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "credentials"}}]
    for pod in pods_of(documents(kind)[0]):
        assert "envFrom" not in pod["containers"][0]


def test_kubernetes_makes_the_root_of_an_awkward_text_again(kind):
    for pod in pods_of(documents(kind, root=AWKWARD)[0]):
        (variable,) = pod["containers"][0]["env"]
        assert variable["name"] == "DINOLAB_ROOT"
        # It makes one dollar of two, and looks for $(NAME) after single ones only.
        assert "$" not in variable["value"].replace("$$", "")
        assert variable["value"].replace("$$", "$") == AWKWARD
        assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == AWKWARD


def test_a_job_tries_a_lost_cluster_again_but_never_two_submitters_at_once():
    (found,) = documents("kuberay-job", hours=5, study="demo")
    spec = found["spec"]
    assert spec["entrypoint"] == "dinolab run demo --quiet"
    assert spec["backoffLimit"] > 0
    assert spec["submitterConfig"] == {"backoffLimit": 0}
    assert spec["activeDeadlineSeconds"] == 5 * 3600
    # Kueue takes no job that leaves its cluster behind.
    assert spec["shutdownAfterJobFinishes"] is True


def test_without_a_queue_no_label_asks_for_kueue(kind):
    assert "labels" not in documents(kind)[0]["metadata"]


def test_a_study_is_queued_in_the_queue_that_kueue_is_given_with_a_priority_it_knows(kind):
    labels = documents(kind, queue="line")[0]["metadata"]["labels"]
    found = {document["kind"]: [] for document in documents("kueue", queue="line")}
    for document in documents("kueue", queue="line"):
        found[document["kind"]].append(document["metadata"]["name"])
    assert [labels["kueue.x-k8s.io/queue-name"]] == found["LocalQueue"]
    assert labels["kueue.x-k8s.io/priority-class"] in found["WorkloadPriorityClass"]


def test_a_queue_holds_one_study_of_its_size_whole_and_lets_urgent_ones_go_first():
    size = {"nodes": 3, "gpus": 4, "cpus": 16, "memory": 100}
    flavor, queue, local, *classes = documents("kueue", **size)
    assert all(one["apiVersion"] == "kueue.x-k8s.io/v1beta2" for one in (flavor, queue, local))
    assert local["spec"] == {"clusterQueue": queue["metadata"]["name"]}
    (group,) = queue["spec"]["resourceGroups"]
    (only,) = group["flavors"]
    assert only["name"] == flavor["metadata"]["name"]
    quota = {one["name"]: one["nominalQuota"] for one in only["resources"]}
    assert list(quota) == group["coveredResources"]
    pods = pods_of(documents("kuberay-job", **size)[0])
    amounts = [pod["containers"][0]["resources"]["requests"] for pod in pods]
    head, worker = amounts
    # Beside them KubeRay's pod that submits the job: at most 1 CPU and 1 GiB.
    assert quota["cpu"] == int(head["cpu"]) + 3 * int(worker["cpu"]) + 1
    gib = [int(one["memory"].removesuffix("Gi")) for one in amounts]
    assert quota["memory"] == f"{gib[0] + 3 * gib[1] + 1}Gi"
    assert quota["nvidia.com/gpu"] == 3 * 4
    assert queue["spec"]["preemption"]["withinClusterQueue"] == "LowerPriority"
    values = {one["metadata"]["name"]: one["value"] for one in classes}
    assert values["dinolab-urgent"] > values["dinolab-study"]
