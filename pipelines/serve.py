"""serve: the search behind an OpenAI-compatible endpoint on Ray Serve, or one question to it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from openai import OpenAI
from ray import serve

from pipelines.recipes import cli
from pipelines.session import progress, ray_session
from pipelines.stage import UserError, value_model
from vgs_ray.config import Recipe
from vgs_ray.sandbox import model_path

CONCURRENT = 64
START_LIMIT_S = 600


def build_app(recipe: Recipe, value_folder: str) -> FastAPI:
    """Runs in the replica: both engines in its process, and the application around them."""
    from vgs_ray.engines import build_policy, build_value
    from vgs_ray.judge import Judge
    from vgs_ray.prompts import load_tokenizer
    from vgs_ray.serve.app import create_app
    from vgs_ray.serve.searcher import Searcher

    model = model_path(recipe.roll_out.model)
    searcher = Searcher(
        policy=build_policy(model, recipe.serve.policy_engine),
        value=build_value(value_folder, recipe.serve.value_engine),
        tokenizer=load_tokenizer(model),
        judge=Judge(1, recipe.verify.timeout_s, recipe.verify.memory_gib),
        instruction=recipe.instruction,
    )
    return create_app(recipe.serve, lambda: searcher)


def application(recipe: Recipe) -> serve.Application:
    """The Serve application of a recipe."""
    folder, config = value_model(recipe), recipe.serve

    def builder() -> FastAPI:
        return build_app(recipe, folder)

    deployment = serve.deployment(serve.ingress(builder)())
    return deployment.options(
        name="search",
        num_replicas=config.policy_engine.replicas,
        max_ongoing_requests=CONCURRENT,
        ray_actor_options={
            "num_cpus": config.policy_engine.num_cpus + config.value_engine.num_cpus,
            "num_gpus": config.policy_engine.num_gpus + config.value_engine.num_gpus,
        },
    ).bind()


@contextmanager
def endpoint(recipe: Recipe) -> Iterator[str]:
    """Start the endpoint, give its address, and take it down in the end."""
    config = recipe.serve
    target = application(recipe)
    _check_port(config.host, config.port)
    with ray_session():
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        with progress("serve", None, lambda: 0, note=lambda: "starting engines"):
            serve.start(http_options={"host": config.host, "port": config.port}, logging_config=quiet)
            serve.run(target, name="vgs", route_prefix="/", logging_config=quiet)
        try:
            yield f"http://{config.host}:{config.port}/v1"
        finally:
            serve.shutdown()


def run(recipe: Recipe) -> None:
    """Serve until Ctrl-C; requests in flight are answered first."""
    with endpoint(recipe) as address:
        print(
            f"serving {recipe.serve.model_name} at {address} (docs at {address.removesuffix('/v1')}/docs)", flush=True
        )
        while True:
            time.sleep(1)


def ask(recipe: Recipe, problem: str) -> None:
    """Start the endpoint, ask one problem through the official client, print what came back, and shut down."""
    with endpoint(recipe) as address:
        client = OpenAI(base_url=address, api_key="none", timeout=START_LIMIT_S, max_retries=0)
        reply = client.chat.completions.create(
            model=recipe.serve.model_name, messages=[{"role": "user", "content": problem}]
        )
        client.close()
    found = (reply.model_extra or {})["vgs_ray"]
    usage = reply.usage.model_dump(exclude_none=True) if reply.usage else {}
    votes = ", ".join(
        f"{vote['answer']} ({vote['answers']} answers, {vote['value']:.2f})" for vote in found["votes"][:3]
    )
    print(f"\nasked {address}/chat/completions:\n    " + problem.replace("\n", "\n    "))
    print(f"reply:  {reply.choices[0].message.content}")
    print(f"value:  {found['value']:.3f}   votes: {votes}   leaves: {found['leaves']}   {found['seconds']:.2f} s")
    print("usage:  " + ", ".join(f"{name} {count:,}" for name, count in usage.items()), flush=True)


def _check_port(host: str, port: int) -> None:
    """Before engines start, not after."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"{host}:{port} can't be listened on ({error.strerror}); the endpoint needs a free port: stop what uses it or "
                "pass --serve.port N"
            ) from error


if __name__ == "__main__":
    cli(run, "pipelines.serve")
