"""CPU time of a call from a search replica to an engine replica: python bench/apart_calls.py [--prefix 100] [--block 16].

The engine is scripted and answers after 5 ms, so only the way between the processes counts. 8 searches call at the same time.
Each asks for `--width` blocks at once and waits for all of them. Out: CPU milliseconds of a call in the search replica, in
the engine replica, and in both.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from typing import Any

import ray
from ray import serve

from pipelines.serving.call_batches import BatchReplica
from pipelines.serving.engine_replicas import STICKY_ROUTER
from pipelines.serving.remote_engines import RemotePolicy
from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import interface

SEARCHES, LIMIT_S = 8, 60.0


class Engine(BatchReplica):
    """As `engine_replicas.PolicyReplica`."""

    def __init__(self) -> None:
        super().__init__(limit=512)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> interface.Completion:
        await asyncio.sleep(0.005)
        return interface.Completion(prefix[:1] * sampling.max_tokens, False, "length", 0.0)

    async def cpu_s(self) -> float:
        return time.process_time()


class Searches:
    """As a search replica."""

    def __init__(self, engines: Any) -> None:
        self.engines, self.policy = engines, RemotePolicy(engines, LIMIT_S)

    async def run(self, prefix: Tokens, block: int, width: int, rounds: int) -> tuple[float, float]:
        """Milliseconds of CPU time of a call, here and in the engine."""
        read = self.engines.options(method_name="cpu_s", _by_reference=False)
        engine_s, here_s = await read.remote(), time.process_time()
        searches = (self.search(str(number), prefix, block, width, rounds) for number in range(SEARCHES))
        await asyncio.gather(*map(asyncio.ensure_future, searches))
        here_s, engine_s = time.process_time() - here_s, await read.remote() - engine_s
        calls = SEARCHES * width * rounds
        return 1000 * here_s / calls, 1000 * engine_s / calls

    async def search(self, name: str, prefix: Tokens, block: int, width: int, rounds: int) -> None:
        interface.SEARCH_CONTEXT.set(interface.SearchContext(name))
        for _ in range(rounds):
            prefixes = [(*prefix[:-1], lane) for lane in range(width)]  # equal tuples would be sent once
            await asyncio.gather(*(self.policy.extend(each, Sampling(max_tokens=block), 0) for each in prefixes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefix", type=int, default=100, help="tokens of a prefix")
    parser.add_argument("--block", type=int, default=16, help="tokens of a block")
    parser.add_argument(
        "--width", type=int, nargs="+", default=[1, 2, 4, 16], help="blocks that a search asks for at once"
    )
    parser.add_argument("--calls", type=int, default=4000)
    options = parser.parse_args()
    env = {"env_vars": {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}}  # as pipelines.serving.ingress
    placed: dict[str, Any] = {"max_ongoing_requests": 512, "ray_actor_options": {"num_cpus": 0.1, "runtime_env": env}}
    ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    serve.start(proxy_location="Disabled", logging_config=quiet)
    engines = serve.deployment(Engine, request_router_config=STICKY_ROUTER, **placed).bind()
    searches: Any = serve.run(
        serve.deployment(Searches, **placed).bind(engines), route_prefix=None, logging_config=quiet
    )
    print("| blocks at once | search replica, CPU ms a call | engine replica | both |\n|---|---|---|---|")
    prefix = tuple(range(options.prefix))
    for width in options.width:
        rounds = max(options.calls // (SEARCHES * width), 1)
        searches.run.remote(prefix, options.block, width, rounds // 4 + 1).result()  # warms up
        here, engine = searches.run.remote(prefix, options.block, width, rounds).result()
        print(f"| {width} | {here:.3f} | {engine:.3f} | {here + engine:.3f} |", flush=True)


if __name__ == "__main__":
    main()
