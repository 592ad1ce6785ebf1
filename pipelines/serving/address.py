"""The address on which the endpoint listens: checks before it starts, and its URL."""

from __future__ import annotations

import errno
import os
import socket

from pipelines.serving.ingress import EVERY_INTERFACE, SWITCH
from vgs_ray.config import Serve
from vgs_ray.errors import UserError
from vgs_ray.serve.access import KEYS, is_loopback, keys_of_environment


def base_url(settings: Serve) -> str:
    """The endpoint's URL on this machine, with the path /v1."""
    host = {EVERY_INTERFACE: "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/v1"


def check_address(host: str, port: int) -> None:
    """Check that the endpoint can listen on this address, before the engines start.

    Raises:
        UserError: the port is in use, or the host is not an address of this machine.
    """
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"serve.port is {port}, which is in use on {host}; the endpoint needs a free port: "
                f"stop the process that uses it or pass another --serve.port"
            ) from error
        raise UserError(
            f"cannot listen on {host}:{port} ({(error.strerror or str(error)).partition(' (while')[0]}); "
            f"it must be an address of this machine: pass another --serve.host or --serve.port"
        ) from error


def check_nodes(host: str, several: bool) -> None:
    """Check that HAProxy, if the cluster was started with it, can reach the search replicas of all nodes.

    Args:
        host: address of the endpoint.
        several: the cluster has, or can get, more than one node.

    Raises:
        UserError: the replicas would listen on the loopback interface of their nodes.
    """
    if several and os.environ.get(SWITCH) == "1" and host != EVERY_INTERFACE:
        raise UserError(
            f"serve.host is {host}, and {SWITCH} is 1 on a cluster of several nodes; HAProxy can reach search replicas on "
            f"other nodes only if they listen on every interface: pass --serve.host {EVERY_INTERFACE} and set API keys"
        )


def open_access_warning(host: str) -> str:
    """A warning if other machines can reach the endpoint and this process has no API keys; else empty."""
    if is_loopback(host) or keys_of_environment():
        return ""
    return f"anyone who can reach {host} can use the endpoint, unless the cluster's nodes have API keys: set {KEYS}"
