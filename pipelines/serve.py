"""serve: the finished value model -> value-guided search behind an OpenAI-compatible endpoint on Ray Serve.

In: the policy of the roll-outs and `{run}/train/value_model`. Out: `http://{host}:{port}/v1`; nothing is written.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import openai
import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.exceptions import RayServeException

from pipelines.ask import spent
from pipelines.cli import cli, parse
from pipelines.serving.application import DRAIN_S, application
from pipelines.serving.ingress import EVERY_INTERFACE, SWITCH
from pipelines.serving.ray_watch import ends_with_ray
from pipelines.session import logs, progress, ray_session
from vgs_ray.config import Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.errors import UserError
from vgs_ray.models.checks import check_models, value_model
from vgs_ray.serve.access import KEYS, keys_of_environment

APPLICATION = "vgs"
ASK_LIMIT_S = 600.0
SHOWN_CHARS = 300
LOOPBACK = ("127.0.0.1", "localhost", "::1")
RAISED = re.compile(r"[\w.]*(?:Error|Exception|Died)\b: ")


def build(args: dict[str, str]) -> serve.Application:
    """The application for `serve run` and `serve deploy` (see jobs/serve.yaml).

    Args:
        args: `recipe`, and `options` of the command line, as one line.

    Raises:
        UserError: an unknown key, or no value model.
    """
    if unknown := set(args) - {"recipe", "options"}:
        raise UserError(f"args has {', '.join(sorted(unknown))}; it may have recipe and options: see jobs/serve.yaml")
    recipe = parse("pipelines.serve", [args.get("recipe", "sandbox"), *shlex.split(args.get("options", ""))])
    return application(recipe, value_model(recipe, recipe.serve.value_model))


def start(recipe: Recipe) -> None:
    """Start the endpoint on the open Ray session; it answers when this returns.

    Raises:
        UserError: a recipe that can't run, no value model, an address that can't be listened on, a replica that does not
            start.
    """
    check_recipe(recipe)
    host, port = recipe.serve.host, recipe.serve.port
    check_address(host, port)
    check_nodes(host, sum(node["Alive"] for node in ray.nodes()))
    app = application(recipe, value_model(recipe, recipe.serve.value_model))
    replicas = recipe.serve.resources.replicas if recipe.serve.layout == "together" else recipe.serve.search_replicas
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # importing Serve has set it to tell the terminal everything
    with progress("serve", replicas, lambda: 0, "replica", lambda: "starting engines"):
        try:
            serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
            serve.run(app, name=APPLICATION, logging_config=quiet)
        except RuntimeError as error:
            reason = _reason(str(error))
            shut_down()
            raise UserError(
                f"the endpoint did not start: {reason}. An engine needs a model and settings that fit this machine: "
                f"change the recipe's section serve; the whole log is in {logs()}/serve"
            ) from error
        except BaseException:  # Ctrl-C too: on a cluster, Serve outlives its driver
            shut_down()
            raise


def check_address(host: str, port: int) -> None:
    """Whether the endpoint can listen there; asked before engines take half a minute to start.

    Raises:
        UserError: the port is in use, or the host is not this machine's.
    """
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"serve.port is {port}, which is in use on {host}; the endpoint needs a free one: "
                f"end what listens there or pass another --serve.port"
            ) from error
        raise UserError(
            f"{host}:{port} can't be listened on ({(error.strerror or str(error)).partition(' (while')[0]}); "
            f"it must be an address of this machine: pass another --serve.host or --serve.port"
        ) from error


def check_nodes(host: str, nodes: int) -> None:
    """Whether HAProxy, where a cluster was started for it, finds the search replicas of so many nodes.

    Raises:
        UserError: they listen on their own node's loopback.
    """
    if nodes > 1 and os.environ.get(SWITCH) == "1" and host != EVERY_INTERFACE:
        raise UserError(
            f"serve.host is {host}, and {SWITCH} is 1 on a cluster of {nodes} nodes; HAProxy reaches the search replicas of "
            f"other nodes only where they listen on every interface: pass --serve.host {EVERY_INTERFACE}, with API keys"
        )


def open_to_others(host: str) -> str:
    """A warning where other machines may reach an endpoint for which this process has no key."""
    if host in LOOPBACK or keys_of_environment():
        return ""
    return f"whoever reaches {host} may ask, unless the cluster's nodes have API keys: set {KEYS} to close the endpoint"


def stop() -> None:
    """Let searches under way finish, then end the endpoint."""
    with suppress(RayServeException, ray.exceptions.RayActorError):  # its controller is gone
        serve.delete(APPLICATION)  # the proxy lives on meanwhile and delivers their replies
    shut_down()


def check_controller() -> None:
    """Whether Ray Serve's controller lives, or is being started anew.

    Raises:
        UserError: it has ended for good, as by `serve shutdown`.
    """
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError as error:
        _end_actors_of_serve()
        raise UserError(
            "Ray Serve was shut down or its controller has ended for good, and the endpoint has ended with it; start it again"
        ) from error


def _end_actors_of_serve() -> None:
    """Replicas and proxies live on without their controller, and would keep the port."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == SERVE_NAMESPACE:
            with suppress(ValueError):  # it has just ended
                ray.kill(ray.get_actor(actor["name"], namespace=SERVE_NAMESPACE))


def shut_down() -> None:
    """End Ray Serve without a word.

    `serve.shutdown` alone waits on a call to the controller that the controller's own end breaks off, and Ray tells the
    terminal that it will be retried; so the controller ends by a call without retries first.
    """
    try:
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        ray.get(controller.graceful_shutdown.options(max_task_retries=0).remote(), timeout=DRAIN_S)
    except (ValueError, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        pass  # it is gone; what is left of it, `serve.shutdown` ends
    serve.shutdown()


@contextmanager
def endpoint(recipe: Recipe) -> Iterator[str]:
    """A running endpoint's base URL."""
    # Asked here too, so that a bad answer comes before Ray starts.
    check_recipe(recipe)
    check_address(recipe.serve.host, recipe.serve.port)
    value_model(recipe, recipe.serve.value_model)
    check_models(recipe, "serve")
    with ray_session(recipe.serve), ends_with_ray("the endpoint"):
        start(recipe)
        try:
            yield base_url(recipe)
        finally:
            stop()


def base_url(recipe: Recipe) -> str:
    host = {EVERY_INTERFACE: "127.0.0.1", "::": "::1"}.get(recipe.serve.host, recipe.serve.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{recipe.serve.port}/v1"


def run(recipe: Recipe) -> None:
    """Serve until Ctrl-C or SIGTERM, then drain."""
    ended = threading.Event()
    with endpoint(recipe) as url:
        previous = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        print(f"serving {recipe.serve.model_name} at {url}; Ctrl-C ends it", flush=True)
        if note := open_to_others(recipe.serve.host):
            print(note, flush=True)
        try:
            while not ended.wait(1.0):  # a wait without a limit would not hear the signal on every platform
                check_controller()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        print("draining: searches under way may finish; Ctrl-C again ends them", flush=True)
    print("the endpoint has ended", flush=True)


def ask_once(recipe: Recipe, problem: str) -> None:
    """Start the endpoint, ask it one problem through the official client, print the reply, and shut it down."""
    with endpoint(recipe) as url:
        # No proxy of the environment may stand between this machine and itself.
        client = openai.OpenAI(
            base_url=url, api_key=next(iter(keys_of_environment()), "none"), max_retries=0, timeout=ASK_LIMIT_S,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        )  # fmt: skip
        with client, progress("ask", None, lambda: 0, "answer", lambda: "searching"):
            reply = client.chat.completions.create(
                model=recipe.serve.model_name, messages=[{"role": "user", "content": problem}]
            )
        print(shown(problem, url, reply.model_dump()), flush=True)


def shown(problem: str, url: str, reply: dict[str, Any]) -> str:
    """The reply for a terminal, at most 100 columns wide where the answer allows."""
    found = reply["vgs_ray"]
    flat = " ".join(problem.split())
    value = "unknown" if found["value"] is None else f"{found['value']:.3f}"
    votes = "  ".join(f"{vote['answer']}: {vote['weight']:.2f} ({vote['leaves']})" for vote in found["votes"][:5])
    lines = {
        "asked": url,
        "problem": flat if len(flat) <= SHOWN_CHARS else f"{flat[: SHOWN_CHARS - 3]}...",
        "answer": found["answer"] or "none",
        "value": f"{value}   P(correct) by the value model",
        "votes": votes or "none",
        "usage": spent(found, reply["usage"]),
    }
    return "\n".join(f"{name:<9} {text}" for name, text in lines.items())


def _reason(error: str) -> str:
    """What the replica's traceback ends with, where Serve has one, else the error itself."""
    found = serve.status().applications.get(APPLICATION)
    messages = [deployment.message for deployment in found.deployments.values()] if found else []
    raised = [line.strip() for text in messages for line in text.splitlines() if RAISED.match(line.strip())]
    return raised[-1] if raised else " ".join(error.split())


if __name__ == "__main__":
    cli(run, "pipelines.serve", writes=False)
