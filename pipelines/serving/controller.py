"""Ray Serve's controller: whether it lives, why an application did not start, and the end of Ray Serve."""

from __future__ import annotations

import re
from contextlib import suppress

import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from pipelines.serving.engine_replicas import DRAIN_S
from vgs_ray.errors import UserError

EXCEPTION_LINE = re.compile(r"[\w.]*(?:Error|Exception|Died)\b: ")


def check_controller() -> None:
    """Check that the controller is alive or being restarted.

    Raises:
        UserError: it has ended, for example by `serve shutdown`.
    """
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError as error:
        _kill_serve_actors()
        raise UserError(
            "Ray Serve was shut down or its controller has died, and the endpoint has ended with it; start it again"
        ) from error


def _kill_serve_actors() -> None:
    """Kill replicas and proxies, which survive their controller and would keep the port in use."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == SERVE_NAMESPACE:
            with suppress(ValueError):  # it has ended in the meantime
                ray.kill(ray.get_actor(actor["name"], namespace=SERVE_NAMESPACE))


def shut_down() -> None:
    """End Ray Serve without messages on the terminal.

    `serve.shutdown` alone waits for a call that the controller's exit interrupts, and Ray prints that it retries the call.
    Therefore the controller is first ended by a call without retries.
    """
    try:
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        ray.get(controller.graceful_shutdown.options(max_task_retries=0).remote(), timeout=DRAIN_S)
    except (ValueError, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        pass  # it has ended already; `serve.shutdown` removes the rest
    serve.shutdown()


def failure_reason(application: str, error: str) -> str:
    """The last exception in the traceback of the application's replicas, or `error` if they have none."""
    status = serve.status().applications.get(application)
    messages = [deployment.message for deployment in status.deployments.values()] if status else []
    lines = [line.strip() for message in messages for line in message.splitlines()]
    exceptions = [line for line in lines if EXCEPTION_LINE.match(line)]
    return exceptions[-1] if exceptions else " ".join(error.split())
