"""Policy replicas are added for the beams in flight, not for the requests."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from apart_endpoint import replica_processes
from ray import cloudpickle, serve
from scripted_server import scripted_searcher

from pipelines.serving import engine_replicas
from pipelines.serving.call_batches import BatchReplica
from pipelines.serving.remote_engines import RemotePolicy
from vgs_ray.config import Beam, Engine, Resources, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion
from vgs_ray.engines.scripted import ScriptedPolicy, World
from vgs_ray.serve.search_spec import SearchSpec

LIMIT_S = 60.0


class SlowPolicy(BatchReplica):
    """Stands in for `engine_replicas.PolicyReplica`."""

    def __init__(self) -> None:
        super().__init__(limit=4)
        self.policy = ScriptedPolicy(World(steps=24, slip=0.08))

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        await asyncio.sleep(0.3)
        return await self.policy.extend(prefix, sampling, seed)


@pytest.fixture
def policies(apart_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A handle of policy replicas: one, or two under load. Each runs up to 4 calls at a time."""
    monkeypatch.setattr(engine_replicas, "UPSCALE_S", 1.0)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # replicas cannot import a test
    deployment = engine_replicas.engine_deployment(
        SlowPolicy, "policy", Engine(max_num_seqs=4), Resources(num_cpus=0.01, num_gpus=0), 2
    )
    yield serve.run(deployment.bind(), name="scaling", route_prefix=None)
    serve.delete("scaling")
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.timeout(600)
async def test_a_second_policy_starts_while_one_search_has_more_beams_than_one_engine_batches(policies: Any) -> None:
    assert len(replica_processes("policy", "scaling")) == 1
    searcher = scripted_searcher(policy=RemotePolicy(policies, LIMIT_S))
    beam = Beam(keep=2, branch=2, block=6, groups=2)
    began = time.monotonic()
    while len(replica_processes("policy", "scaling")) < 2:
        assert time.monotonic() - began < LIMIT_S, "no second policy"
        spec = SearchSpec("3", "beam", "majority", beam, beam.budget, Sampling(max_tokens=40), 1)
        assert (await searcher.solve(spec)).leaves
