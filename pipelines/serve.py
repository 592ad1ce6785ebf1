"""serve: the value model -> value-guided search behind an OpenAI-compatible endpoint on Ray Serve.

In: the policy and `{run}/train/value_model`, or a policy with a value head. Out: `http://{host}:{port}/v1`. Nothing is written.
"""

from __future__ import annotations

import logging
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import openai
import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from pipelines.asking.reply_text import labelled, reply_rows
from pipelines.cli import cli, parse
from pipelines.placement import autoscales, check_engine_nodes
from pipelines.progress import progress
from pipelines.serving.address import base_url, check_address, check_nodes, open_access_warning
from pipelines.serving.application import application
from pipelines.serving.controller import check_controller, failure_reason, shut_down
from pipelines.serving.ray_watch import ends_with_ray
from pipelines.session import logs, ray_session
from vgs_ray.config import Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.errors import UserError
from vgs_ray.models.checks import check_models, value_model
from vgs_ray.serve.access import keys_of_environment

APPLICATION = "vgs"
ASK_LIMIT_S = 600.0
PROBLEM_CHARS = 300
TERMINAL_COLUMNS = 100


def build(args: dict[str, str]) -> serve.Application:
    """The application for `serve run` and `serve deploy` (see jobs/serve.yaml).

    Args:
        args: `recipe`, and `options` as one command line.

    Raises:
        UserError: an unknown key, or a missing model.
    """
    if unknown := set(args) - {"recipe", "options"}:
        raise UserError(f"args has {', '.join(sorted(unknown))}; its keys are recipe and options: see jobs/serve.yaml")
    recipe = parse("pipelines.serve", [args.get("recipe", "sandbox"), *shlex.split(args.get("options", ""))])
    value = value_model(recipe, recipe.serve.value_model)
    check_models(recipe, "serve")
    return application(recipe, value)


def start(recipe: Recipe) -> None:
    """Start the endpoint on the open Ray session. When this returns, it accepts requests.

    Raises:
        UserError: the recipe is invalid, the value model is missing, the address cannot be used, or a replica does not start.
    """
    check_recipe(recipe)
    host, port = recipe.serve.host, recipe.serve.port
    check_address(host, port)
    check_nodes(host, several=autoscales() or sum(node["Alive"] for node in ray.nodes()) > 1)
    _check_engine_nodes(recipe)
    app = application(recipe, value_model(recipe, recipe.serve.value_model))
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # importing Ray Serve sets it to INFO
    replicas = recipe.serve.resources.replicas if recipe.serve.layout == "together" else recipe.serve.search_replicas
    with progress("serve", replicas, lambda: 0, "replica", lambda: "starting engines"):
        try:
            serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
            serve.run(app, name=APPLICATION, logging_config=quiet)
        except RuntimeError as error:
            reason = failure_reason(APPLICATION, str(error))
            shut_down()
            raise UserError(
                f"the endpoint did not start: {reason}. The model and the engine settings must fit this machine: change the "
                f"recipe's section serve; the complete log is in {logs()}/serve"
            ) from error
        except BaseException:  # also Ctrl-C: on a cluster, Ray Serve outlives its driver
            shut_down()
            raise


def _check_engine_nodes(recipe: Recipe) -> None:
    names = ["resources"] if recipe.serve.layout == "together" else ["policy_resources", "value_resources"]
    for name in names[:1] if recipe.uses_own_head("serve") else names:
        check_engine_nodes(f"serve.{name}", getattr(recipe.serve, name), beside=0.0)


def stop() -> None:
    """Let running searches finish, then end the endpoint."""
    with suppress(RayServeException, ray.exceptions.RayActorError):  # the controller has ended
        serve.delete(APPLICATION)  # the proxies stay until `shut_down` and deliver the last replies
    shut_down()


@contextmanager
def endpoint(recipe: Recipe) -> Iterator[str]:
    """A running endpoint's base URL."""
    # `start` checks this as well; here it is checked before Ray starts.
    check_recipe(recipe)
    check_address(recipe.serve.host, recipe.serve.port)
    value_model(recipe, recipe.serve.value_model)
    check_models(recipe, "serve")
    with ray_session(recipe.serve), ends_with_ray("the endpoint"):
        start(recipe)
        try:
            yield base_url(recipe.serve)
        finally:
            stop()


def run(recipe: Recipe) -> None:
    """Serve until Ctrl-C or SIGTERM, then drain."""
    stopped = threading.Event()
    with endpoint(recipe) as url:
        handlers = {
            number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)
        }
        print(f"serving {recipe.serve.model_name} at {url}; press Ctrl-C to stop", flush=True)
        if warning := open_access_warning(recipe.serve.host):
            print(warning, flush=True)
        try:
            while not stopped.wait(1.0):  # on some platforms, signals do not interrupt a wait without a timeout
                check_controller()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        print("draining: waiting for running searches; press Ctrl-C again to cancel them", flush=True)
    print("the endpoint has stopped", flush=True)


def ask_once(recipe: Recipe, problem: str) -> None:
    """Start the endpoint, send it one problem with OpenAI's client, print the reply, and stop the endpoint."""
    with endpoint(recipe) as url:
        client = openai.OpenAI(
            base_url=url, api_key=next(iter(keys_of_environment()), "none"), max_retries=0, timeout=ASK_LIMIT_S,
            http_client=openai.DefaultHttpxClient(trust_env=False),  # ignores the environment's proxy
        )  # fmt: skip
        with client, progress("ask", None, lambda: 0, "answer", lambda: "searching"):
            reply = client.chat.completions.create(
                model=recipe.serve.model_name, messages=[{"role": "user", "content": problem}]
            )
        print(formatted_reply(problem, url, reply.model_dump()), flush=True)


def formatted_reply(problem: str, url: str, reply: dict[str, Any]) -> str:
    """A reply for the terminal."""
    text = " ".join(problem.split())
    shown = text if len(text) <= PROBLEM_CHARS else f"{text[: PROBLEM_CHARS - 3]}..."
    lines = {"asked": [url], "problem": [shown], **reply_rows(reply["vgs_ray"], reply["usage"])}
    return labelled(lines, TERMINAL_COLUMNS)


if __name__ == "__main__":
    cli(run, "pipelines.serve", writes=False)
