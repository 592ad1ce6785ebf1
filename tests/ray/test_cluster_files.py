"""cluster.yaml, the files for KubeRay and the images: valid, of the same Ray, and with the same node groups."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema
from real_data import DATA

from pipelines.cli import parse
from vgs_ray.config import Recipe

ROOT = Path(__file__).parents[2]
CLUSTER: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
KUBERNETES = ROOT / "jobs/kubernetes"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RAY = re.search(r"^ray\[.*\]==(\S+)$", "\n".join(PROJECT["dependencies"]), re.M)[1]  # type: ignore[index]


def manifest(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((KUBERNETES / name).read_text()))


def pod_specs(name: str) -> dict[str, dict[str, Any]]:
    """KubeRay's cluster in a file: the pod of the head and of each worker group."""
    cluster = cluster_spec(name)
    workers = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"]} | workers


def cluster_spec(name: str) -> dict[str, Any]:
    spec = manifest(name)["spec"]
    return dict(spec.get("rayClusterSpec") or spec["rayClusterConfig"])


def test_ray_accepts_cluster_yaml() -> None:
    validate_config(prepare_config(CLUSTER))


def parsed(arguments: dict[str, str]) -> Recipe:
    return parse("pipelines.serve", [arguments["recipe"], *shlex.split(arguments["options"])])


def test_serve_configurations_are_valid() -> None:
    files = [(ROOT / "jobs/serve.yaml").read_text(), manifest("service.yaml")["spec"]["serveConfigV2"]]
    deployed = [ServeDeploySchema.model_validate(yaml.safe_load(text)) for text in files]
    local, service = [parsed(each.applications[0].args) for each in deployed]
    assert (local.name, service.name) == ("sandbox", "vgs")
    assert service.serve.host == deployed[1].http_options.host == "0.0.0.0"


def test_the_job_runs_a_command_of_this_package() -> None:
    python, _, module, *arguments = shlex.split(manifest("job.yaml")["spec"]["entrypoint"])
    recipe = parse(module, arguments)
    assert (python, recipe.name, recipe.root) == ("python", "vgs", "s3://BUCKET/runs")


@pytest.mark.parametrize("name", ["job.yaml", "service.yaml"])
def test_kubernetes_files_come_from_cluster_yaml(name: str) -> None:
    written = runpy.run_path(str(KUBERNETES / "generate.py"))["manifests"](CLUSTER)
    assert (KUBERNETES / name).read_text() == written[name], "run python jobs/kubernetes/generate.py"


@pytest.mark.parametrize("name", ["job.yaml", "service.yaml"])
def test_ray_reads_the_groups_of_cluster_yaml_from_kubernetes(name: str) -> None:
    spec = {"metadata": {"name": "vgs", "namespace": "default"}, "spec": cluster_spec(name)}
    found = _derive_autoscaling_config_from_ray_cr(spec)["available_node_types"]
    head = found.pop("headgroup")
    wanted = dict(CLUSTER["available_node_types"])
    assert head["resources"]["CPU"] == wanted.pop(CLUSTER["head_node_type"])["resources"]["CPU"]
    assert [name.replace("_", "-") for name in wanted] == list(found)
    for group, other in zip(wanted.values(), found.values(), strict=True):
        resources = {name: count for name, count in other["resources"].items() if name != "memory"}
        assert resources == group["resources"]
        assert other["labels"] == group.get("labels", {})
        assert (other["min_workers"], other["max_workers"]) == (group["min_workers"], group["max_workers"])
    gpus = {
        name: pod["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu", 0)
        for name, pod in pod_specs(name).items()
    }
    assert list(gpus.values()) == [
        group["resources"].get("GPU", 0) for group in CLUSTER["available_node_types"].values()
    ]


@pytest.mark.parametrize(
    ("name", "schema"), [("job.yaml", "ray.io_rayjobs.yaml"), ("service.yaml", "ray.io_rayservices.yaml")]
)
def test_the_operator_accepts_the_kubernetes_files(name: str, schema: str) -> None:
    """Against KubeRay's custom resource definitions. Kubernetes drops unknown fields without a word; here they are errors."""
    if not (DATA / "schemas" / schema).is_file():
        pytest.skip(f"KubeRay's {schema} is not on this machine: put it into {DATA / 'schemas'}")
    definition = yaml.load((DATA / "schemas" / schema).read_text(), Loader=yaml.CSafeLoader)
    given = manifest(name)
    [version] = [each for each in definition["spec"]["versions"] if each["storage"]]
    assert given["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
    assert given["kind"] == definition["spec"]["names"]["kind"]
    validator = Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))
    assert [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(given)] == []
    given["spec"]["backofLimit"] = 1
    assert len(list(validator.iter_errors(given))) == 1


def closed(schema: Any) -> Any:
    """The schema with unknown fields forbidden where it lists the fields."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    listed = schema.get("type") == "object" and "properties" in schema
    kept = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    inner = {name: closed(value) for name, value in schema.items()}
    return inner | {"additionalProperties": False} if listed and not kept else inner


def test_images_have_the_ray_of_pyproject() -> None:
    groups = CLUSTER["available_node_types"]
    gpus = {name: "gpu" if group["resources"].get("GPU") else "cpu" for name, group in groups.items()}
    docker = CLUSTER["docker"]
    wanted = {name: f"REGISTRY/vgs-ray:{RAY}-{kind}" for name, kind in gpus.items()}
    images = {name: group.get("docker", docker)["worker_image"] for name, group in groups.items()}
    assert images | {"head": docker["head_image"]} == wanted
    for file in ("job.yaml", "service.yaml"):
        assert cluster_spec(file)["rayVersion"] == RAY
        assert [pod["containers"][0]["image"] for pod in pod_specs(file).values()] == list(wanted.values())
    for kind in ("cpu", "gpu"):
        text = (ROOT / f"docker/{kind}.Dockerfile").read_text()
        assert f"FROM rayproject/ray:{RAY}-py311-{kind}\n" in text
        assert f"-t REGISTRY/vgs-ray:{RAY}-{kind} ." in text


def test_both_images_have_the_same_versions_of_what_processes_exchange() -> None:
    """The driver runs in the CPU image, and most workers in the GPU image."""
    pins = [
        dict(
            line.lower().replace("_", "-").split("==")
            for line in (ROOT / name).read_text().splitlines()
            if "==" in line and line[0] != "#"
        )
        for name in ("constraints.txt", "constraints-gpu.txt")
    ]
    names = {re.split(r"[\[=>]", text)[0].lower().replace("_", "-") for text in PROJECT["dependencies"]}
    assert {name: [pin[name] for pin in pins] for name in names if len({pin[name] for pin in pins}) > 1} == {}


def test_dockerfiles_pass_the_linter_and_copy_what_the_context_has() -> None:
    files = sorted((ROOT / "docker").glob("*.Dockerfile"))
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for file in files:
        copied = re.findall(r"^COPY --chown=ray (.*) \S+$", file.read_text(), re.M)
        for name in " ".join(copied).split():
            assert (ROOT / name).exists()
            assert any(Path(name).match(pattern) for pattern in kept), name
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if not linter:
        pytest.skip("hadolint is not installed: run make setup")
    done = subprocess.run([linter, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
