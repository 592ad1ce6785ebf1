"""Patch the configuration that Ray Serve writes for HAProxy: deadlines, limits and error replies.

In: Ray's configuration, and `Limits`. Out: the configuration for HAProxy. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple, Self

from vgs_ray.config import Serve

REQUEST_TIMEOUT = "VGS_RAY_REQUEST_TIMEOUT_S"
ADDRESS_LIMIT = "VGS_RAY_CONNECTIONS_PER_ADDRESS"
"""Environment variables that pass the recipe's limits to HAProxy. On a cluster, set them for each node's `ray start`."""
OVERRIDES = {
    "RAY_SERVE_HAPROXY_MAXCONN": "maxconn",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "timeout client",
    "RAY_SERVE_HAPROXY_RETRY_ON": "retry-on",
}
"""Ray's variables that override a setting: if one is set, Ray's value for the setting stays."""
MAX_CONNECTIONS = 20_000
RESERVED_FILES = 200
"""File descriptors of HAProxy that are not connections. Each connection needs two: to the client and to the replica."""
REFUSED_CONNECTIONS = 256
"""Connections above an address's limit that get a 429 reply. Further connections are closed without a reply."""
IDLE_S = 30
"""Seconds until a connection without a request is closed."""
UNREAD_S = 60
"""Seconds in which a client must read some of a waiting reply or send some of a large body."""
BUFFER_BYTES = 65_536
LARGE_BYTES = 49_152
"""A body up to this size reaches a search replica when HAProxy has received all of it; a larger one when the buffer is full."""
MAX_LARGE = 256
"""Concurrent requests with large bodies. Slow clients can occupy this many requests of the search replicas."""
REPEATED = "conn-failure empty-response\n    retries 1"
"""A request is sent to another replica, once, if its replica closes the connection before it replies. It is sent as a whole from
HAProxy's buffer, so it must fit there."""
SPLICED = re.compile(r"^\s*option splice-(?:request|response)\n", re.MULTILINE)
STATISTICS = re.compile(r"^((?:frontend prometheus|listen stats)\n\s*bind )\*?:(\d+)$", re.MULTILINE)
FRONTEND = re.compile(r"^frontend http_frontend\n\s*bind .*\n", re.MULTILINE)
DEFAULTS = "defaults\n    mode http\n"
NO_REPLICA = "no search replica is available; Ray Serve starts a new one: try again in half a minute"


class Limits(NamedTuple):
    """Limits on clients.

    Attributes:
        request_s: seconds for a request's headers and body to arrive.
        per_address: connections of one address; 0 for no limit.
        connections: connections of all addresses.
    """

    request_s: float
    per_address: int
    connections: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], open_files: int) -> Self:
        """Limits from the environment, or the recipe's defaults, for a process that can open this many files.

        One address gets at most half of the connections.
        """
        connections = max(min(MAX_CONNECTIONS, (open_files - RESERVED_FILES) // 2), 2)
        request_s = float(environment.get(REQUEST_TIMEOUT, Serve.request_timeout_s))
        per_address = int(environment.get(ADDRESS_LIMIT, Serve.connections_per_address))
        return cls(request_s, min(per_address, connections // 2), connections)


def environment_of(serve: Serve) -> dict[str, str]:
    """The environment variables that pass a recipe's limits to HAProxy."""
    return {REQUEST_TIMEOUT: str(serve.request_timeout_s), ADDRESS_LIMIT: str(serve.connections_per_address)}


def patched(config: str, limits: Limits, keep: frozenset[str] = frozenset()) -> str:
    """Ray's configuration with deadlines and limits, and with three more changes.

    - Requests of replicas that died are repeated (`REPEATED`).
    - The statistics pages, which Ray binds to every interface, listen on the loopback interface.
    - Splicing is off. With spliced requests, HAProxy 2.8 did not notice most clients that disconnect before their reply begins,
      so their searches went on. Pipes for spliced replies would use the file descriptors of every fifth connection.

    Args:
        config: Ray's configuration.
        limits: limits on clients.
        keep: settings of `OVERRIDES` that are not changed.
    """
    settings = {"maxconn": str(limits.connections), "timeout client": f"{UNREAD_S}s", "retry-on": REPEATED}
    for setting, value in settings.items():
        if setting not in keep:
            config = re.sub(rf"^(\s*{setting}) \S+$", rf"\g<1> {value}", config, flags=re.MULTILINE)
    config = re.sub(r"^(\s*tune.bufsize) \d+$", rf"\g<1> {BUFFER_BYTES}", config, flags=re.MULTILINE)
    config = SPLICED.sub("", STATISTICS.sub(r"\g<1>127.0.0.1:\g<2>", config))
    config = config.replace(DEFAULTS, DEFAULTS + _defaults(limits))
    config = FRONTEND.sub(lambda frontend: frontend[0] + _frontend(limits), config)
    return config.rstrip("\n") + "\n" + _TABLES


def _defaults(limits: Limits) -> str:
    """Deadlines of all frontends, and HAProxy's own errors in OpenAI's format.

    The deadlines do not apply to clients that wait for a reply: they have sent their complete request.
    """
    seconds = f"{limits.request_s:g}"
    unreadable = _error(400, "the request is not valid HTTP, or its headers are too long", "bad_request")
    late = _error(408, f"the request did not arrive completely within {seconds} s; send it faster", "request_timeout")
    return _lines(
        f"timeout http-request {round(1000 * limits.request_s)}ms", f"timeout http-keep-alive {IDLE_S}s",
        "option http-ignore-probes", f"http-error {unreadable}", f"http-error {late}",
    )  # fmt: skip


def _frontend(limits: Limits) -> str:
    """Limits on the connections of each address and on requests with large bodies."""
    many = _error(
        429, f"this address has more than {limits.per_address} open connections; close some of them and try again",
        "too_many_connections", 5,
    )  # fmt: skip
    large = _error(
        429,
        f"the server is busy: it receives {MAX_LARGE} requests with bodies over {LARGE_BYTES} bytes; try again later",
        "overloaded",
        5,
    )
    each = (
        "tcp-request connection track-sc0 src table vgs_addresses",
        f"tcp-request connection reject if {{ sc_conn_cur(0) gt {limits.per_address + REFUSED_CONNECTIONS} }}",
        f"http-request return {many} hdr Connection close if {{ sc_conn_cur(0) gt {limits.per_address} }}",
    )
    return _lines(
        "option http-buffer-request",
        *(each if limits.per_address else ()),
        f"http-request track-sc1 int(1) table vgs_large if {{ req.body_size gt {LARGE_BYTES} }}",
        f"http-request return {large} if {{ sc_conn_cur(1) gt {MAX_LARGE} }}",
    )


_TABLES = """\
backend vgs_addresses
    stick-table type ipv6 size 100k expire 10s store conn_cur
backend vgs_large
    stick-table type integer size 1 expire 10s store conn_cur
"""


def _lines(*lines: str) -> str:
    return "".join(f"    {line}\n" for line in lines)


def _error(status: int, message: str, code: str, retry_s: int | None = None) -> str:
    """Arguments of `http-error` or `http-request return` for an error in OpenAI's format."""
    retry = f" hdr Retry-After {retry_s}" if retry_s else ""
    return f"status {status} content-type application/json string '{_body(status, message, code)}'{retry}"


def _body(status: int, message: str, code: str) -> str:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def no_replica_reply() -> bytes:
    """HAProxy's reply if no replica is available or one dies before its reply."""
    body = _body(503, NO_REPLICA, "replica_gone")
    lines = [
        "HTTP/1.1 503 Service Unavailable", "Content-Type: application/json", "Cache-Control: no-cache",
        "Retry-After: 30", f"Content-Length: {len(body)}", "", body,
    ]  # fmt: skip
    return "\r\n".join(lines).encode()
