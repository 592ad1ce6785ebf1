"""Shared by all tests: two tiny random models, served by one policy and one value engine, and an S3 server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from early import EARLY
from s3_server import BUCKET, S3Server, reach, s3_server
from tiny import EOS, TINY_ENGINE
from upath import UPath

from vgs_ray.data.storage import storage_path

GCS_SERVER = os.environ.get("VGS_GCS_SERVER", "")


def pytest_collection_finish(session: pytest.Session) -> None:
    modules = dict.fromkeys(item.module for item in session.items if isinstance(item, pytest.Function))
    if not session.config.option.collectonly:
        EARLY.start({module.__name__: module.early_work for module in modules if hasattr(module, "early_work")})


def pytest_sessionfinish() -> None:
    EARLY.stop()


@pytest.fixture(autouse=True)
def gradients(request: pytest.FixtureRequest) -> None:
    """Let a test compute gradients, and warn if something before it, such as the end of an engine, has turned them off."""
    torch = sys.modules.get("torch")
    if torch and not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        warnings.warn(f"gradients were disabled before {request.node.nodeid}", stacklevel=1)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server. Only tests that use `s3_root` reach it by the environment."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_root(s3: S3Server) -> Iterator[UPath]:
    """An empty folder on the S3 server, which this process and those that the test starts reach."""
    with reach(s3.endpoint):
        yield storage_path(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def gcs_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key file of a service account on the server that VGS_GCS_SERVER names (see gcs_server.py)."""
    private = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True, text=True).stdout
    file = tmp_path_factory.mktemp("gcs") / "key.json"
    key = {
        "type": "service_account", "client_email": "test@example.com", "private_key": private, "private_key_id": "1",
        "token_uri": f"{GCS_SERVER}/token", "gcs_base_url": GCS_SERVER, "disable_oauth": True,
    }  # fmt: skip
    file.write_text(json.dumps(key))
    return file


@pytest.fixture
def gcs_root(gcs_key: Path, monkeypatch: pytest.MonkeyPatch) -> UPath:
    """An empty folder on that server."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(gcs_key))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(gcs_key))  # obstore reads the URL of a server only from this one
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", GCS_SERVER)  # pyarrow
    return storage_path(f"gs://vgs-test/{uuid.uuid4().hex}")


@pytest.fixture(params=["disk", "s3", *(["gcs"] if GCS_SERVER else [])])
def any_root(request: pytest.FixtureRequest) -> UPath:
    """An empty folder on a disk, on an S3 server, and on a GCS server where there is one."""
    if request.param == "disk":
        return storage_path(request.getfixturevalue("tmp_path"))
    root: UPath = request.getfixturevalue(f"{request.param}_root")
    return root


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of 0.2M parameters; its wide initialisation keeps greedy choices far from ties."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=120,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=EOS,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("policy")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def value_folder(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A value model on that backbone, with a fresh head."""
    from vgs_ray.value.model import ValueModel

    folder = tmp_path_factory.mktemp("value")
    ValueModel.from_backbone(policy_folder, dropout=0.1, seed=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def policy(policy_folder: Path) -> Iterator[Any]:
    """A running vLLM policy."""
    from vgs_ray.engines import build_policy

    engine = build_policy(str(policy_folder), TINY_ENGINE)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def value(value_folder: Path) -> Iterator[Any]:
    """A running vLLM value, in the same process as the policy."""
    from vgs_ray.engines import build_value

    engine = build_value(str(value_folder), TINY_ENGINE)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A backbone of 0.02M parameters for training."""
    from toy import make_backbone

    return make_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of a toy task, and the store made of them."""
    from toy import make_tables

    return make_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="session")
def headed_policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sandbox's policy with a new value head."""
    from vgs_ray.models.folder import TOKENIZER_FILES
    from vgs_ray.sandbox import policy_path
    from vgs_ray.value.policy_value import PolicyValueModel

    folder, shipped = tmp_path_factory.mktemp("headed"), policy_path("ref")
    PolicyValueModel.from_policy(shipped, seed=1).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (shipped / name).is_file():
            shutil.copy(shipped / name, folder)
    return str(folder)
