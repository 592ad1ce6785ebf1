"""Writes job.yaml and service.yaml for KubeRay, with the images, node groups and labels of cluster.yaml.

Run it after a change of cluster.yaml: python jobs/kubernetes/generate.py
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CLUSTER = HERE.parents[1] / "cluster.yaml"
FREE_CPUS = 2
"""CPUs of a node that its pod does not request: Kubernetes and its agents need some. Ray still counts all of them."""
ROOT = "s3://BUCKET/runs"
SECRET = "vgs"
"""With `auth_token`, which Ray requires, and optionally HF_TOKEN and VGS_RAY_API_KEYS."""
HEADER = """\
# For KubeRay 1.6 or later (docs/cluster.md#kubernetes). python jobs/kubernetes/generate.py writes this file from cluster.yaml.
# Replace REGISTRY and BUCKET.
"""


def manifests(cluster: dict[str, Any]) -> dict[str, str]:
    """The text of each file by its name."""
    job = "# All stages of the published run, as a RayJob; `entrypoint` may be one stage. A failed job is repeated.\n"
    service = "# The endpoint of the published run, as a RayService.\n"
    return {
        "job.yaml": job + HEADER + dump(ray_job(cluster)),
        "service.yaml": service + HEADER + dump(ray_service(cluster)),
    }


def ray_job(cluster: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"generateName": "vgs-"},
        "spec": {
            "entrypoint": f"python -m pipelines.run vgs --root {ROOT}",
            "backoffLimit": 3,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": cluster_spec(cluster),
        },
    }


def ray_service(cluster: dict[str, Any]) -> dict[str, Any]:
    application = {
        "name": "vgs",
        "route_prefix": "/",
        "import_path": "pipelines.serve:build",
        "args": {"recipe": "vgs", "options": f"--root {ROOT} --serve.host 0.0.0.0"},
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "vgs"},
        "spec": {
            "serveConfigV2": dump({"http_options": {"host": "0.0.0.0", "port": 8000}, "applications": [application]}),
            "rayClusterConfig": cluster_spec(cluster),
        },
    }


def cluster_spec(cluster: dict[str, Any]) -> dict[str, Any]:
    """KubeRay's description of the cluster: one pod for each node of cluster.yaml."""
    types, docker = cluster["available_node_types"], cluster["docker"]
    head = cluster["head_node_type"]
    return {
        "rayVersion": importlib.metadata.version("ray"),
        "authOptions": {"mode": "token", "secretName": SECRET},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": 60 * cluster["idle_timeout_minutes"]},
        "headGroupSpec": {
            "rayStartParams": {},
            **group_resources(types[head]),
            "template": pod(types[head], docker["head_image"], {"cpu": 6, "memory": "24Gi"}),
        },
        "workerGroupSpecs": [
            {
                "groupName": name.replace("_", "-"),
                "replicas": group["min_workers"],
                "minReplicas": group["min_workers"],
                "maxReplicas": group["max_workers"],
                "rayStartParams": {},
                **group_resources(group),
                "template": pod(
                    group,
                    group.get("docker", docker)["worker_image"],
                    {"cpu": group["resources"]["CPU"] - FREE_CPUS},
                ),
            }
            for name, group in types.items()
            if name != head
        ],
    }


def group_resources(group: dict[str, Any]) -> dict[str, Any]:
    """What Ray counts on a node of the group, and the labels by which recipes choose it."""
    counted = {"resources": {name: str(count) for name, count in group["resources"].items()}}
    return counted | ({"labels": group["labels"]} if "labels" in group else {})


def pod(group: dict[str, Any], image: str, requests: dict[str, Any]) -> dict[str, Any]:
    """The template of a pod that takes a whole node of the group's instance type."""
    gpus = group["resources"].get("GPU", 0)
    limits = {"limits": {"nvidia.com/gpu": gpus}} if gpus else {}
    secret = {
        variable: {"secretKeyRef": {"name": SECRET, "key": variable, "optional": True}}
        for variable in ("HF_TOKEN", "VGS_RAY_API_KEYS")
    }
    container = {
        "name": "ray",
        "image": image,
        "env": [
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "HF_HOME", "value": "/cache/huggingface"},
            *({"name": name, "valueFrom": source} for name, source in secret.items()),
        ],
        "resources": {"requests": requests, **limits},
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    return {
        "spec": {
            "nodeSelector": {"node.kubernetes.io/instance-type": group["node_config"]["InstanceType"]},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}] if gpus else [],
            "containers": [container],
            "volumes": [{"name": "cache", "emptyDir": {}}],
        }
    }


def dump(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, width=120))


def main() -> None:
    for name, text in manifests(yaml.safe_load(CLUSTER.read_text())).items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
