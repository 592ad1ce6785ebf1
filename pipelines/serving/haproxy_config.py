"""What this project changes in the configuration that Ray Serve writes for HAProxy: deadlines, limits and error replies.

In: Ray's text, and `Limits`. Out: the text that HAProxy reads. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple, Self

from vgs_ray.config import Serve

REQUEST_TIMEOUT = "VGS_RAY_REQUEST_TIMEOUT_S"
ADDRESS_LIMIT = "VGS_RAY_CONNECTIONS_PER_ADDRESS"
"""How the recipe's section serve reaches HAProxy; on a cluster, its nodes' `ray start` sets them."""
RAYS_OWN = {"RAY_SERVE_HAPROXY_MAXCONN": "maxconn", "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "timeout client"}
"""Settings that stay as Ray renders them where the environment has these."""
MOST_CONNECTIONS = 20_000
RESERVED_FILES = 200
"""Descriptors of HAProxy that are no connections; each connection takes two, the client's and the replica's."""
TOLD = 256
"""Connections above an address's limit that get a reply with 429; more than that are closed without a word."""
IDLE_S = 30
"""Seconds until a connection without a request is closed."""
UNREAD_S = 60
"""Seconds in which a client has to read something of a reply that waits for it, or send something of a large body."""
BUFFER_BYTES = 65_536
LARGE_BYTES = 49_152
"""Of a body. A smaller one reaches a search replica when HAProxy has all of it; a larger one, once the buffer is full."""
MOST_LARGE = 256
"""Requests with large bodies at a time: so many places in search replicas can slow clients hold until the deadline."""
SPLICED = re.compile(r"^\s*option splice-(?:request|response)\n", re.MULTILINE)
STATISTICS = re.compile(r"^((?:frontend prometheus|listen stats)\n\s*bind )\*?:(\d+)$", re.MULTILINE)
FRONTEND = re.compile(r"^frontend http_frontend\n\s*bind .*\n", re.MULTILINE)
DEFAULTS = "defaults\n    mode http\n"
GONE = "no search replica answers: it has ended, and Ray Serve starts another one; ask again in half a minute"


class Limits(NamedTuple):
    """What slow clients may hold.

    Attributes:
        request_s: seconds for a request's headers and body to arrive.
        per_address: connections of one address; 0 for no limit.
        connections: of all addresses.
    """

    request_s: float
    per_address: int
    connections: int

    @classmethod
    def of(cls, environment: Mapping[str, str], open_files: int) -> Self:
        """Those of an environment, for a process that may have so many files open.

        Without a variable its limit is the recipe's default. One address gets at most half of the connections.
        """
        connections = max(min(MOST_CONNECTIONS, (open_files - RESERVED_FILES) // 2), 2)
        request_s = float(environment.get(REQUEST_TIMEOUT, Serve.request_timeout_s))
        per_address = int(environment.get(ADDRESS_LIMIT, Serve.connections_per_address))
        return cls(request_s, min(per_address, connections // 2), connections)


def settings_of(serve: Serve) -> dict[str, str]:
    """The environment that hands on a recipe's limits."""
    return {REQUEST_TIMEOUT: str(serve.request_timeout_s), ADDRESS_LIMIT: str(serve.connections_per_address)}


def mended(config: str, limits: Limits, keep: frozenset[str] = frozenset()) -> str:
    """Ray's configuration with deadlines and limits, and with two more changes.

    The pages of statistics, which Ray binds to every interface, are on the loopback; the endpoint stays where `serve.host` says.
    Nothing is spliced: with requests spliced, HAProxy 2.8 did not see most clients go away before their reply began, and their
    searches went on; and pipes for replies would take the descriptors of every fifth connection.

    Args:
        keep: settings of `RAYS_OWN` that stay as they are.
    """
    for setting, value in {"maxconn": str(limits.connections), "timeout client": f"{UNREAD_S}s"}.items():
        if setting not in keep:
            config = re.sub(rf"^(\s*{setting}) \S+$", rf"\g<1> {value}", config, flags=re.MULTILINE)
    config = re.sub(r"^(\s*tune.bufsize) \d+$", rf"\g<1> {BUFFER_BYTES}", config, flags=re.MULTILINE)
    config = SPLICED.sub("", STATISTICS.sub(r"\g<1>127.0.0.1:\g<2>", config))
    config = config.replace(DEFAULTS, DEFAULTS + _defaults(limits))
    config = FRONTEND.sub(lambda found: found[0] + _frontend(limits), config)
    return config.rstrip("\n") + "\n" + _TABLES


def _defaults(limits: Limits) -> str:
    """Deadlines for every frontend, and HAProxy's own errors in OpenAI's layout.

    Clients that wait for a reply have sent all of their request, and neither deadline counts for them.
    """
    seconds = f"{limits.request_s:g}"
    unreadable = _error(
        400, "the request is not HTTP that this server can read, or its headers are too long", "bad_request"
    )
    late = _error(408, f"the request did not arrive whole within {seconds} s; send it faster", "request_timeout")
    return _lines(
        f"timeout http-request {round(1000 * limits.request_s)}ms", f"timeout http-keep-alive {IDLE_S}s",
        "option http-ignore-probes", f"http-error {unreadable}", f"http-error {late}",
    )  # fmt: skip


def _frontend(limits: Limits) -> str:
    """Limits of the endpoint: for each address, and for requests with large bodies."""
    many = _error(
        429, f"this address has more than {limits.per_address} connections open; close some, then ask again",
        "too_many_connections", 5,
    )  # fmt: skip
    large = _error(
        429,
        f"{MOST_LARGE} requests with bodies over {LARGE_BYTES} bytes are under way; ask again later",
        "overloaded",
        5,
    )
    each = (
        "tcp-request connection track-sc0 src table vgs_addresses",
        f"tcp-request connection reject if {{ sc_conn_cur(0) gt {limits.per_address + TOLD} }}",
        f"http-request return {many} hdr Connection close if {{ sc_conn_cur(0) gt {limits.per_address} }}",
    )
    return _lines(
        "option http-buffer-request",
        *(each if limits.per_address else ()),
        f"http-request track-sc1 int(1) table vgs_large if {{ req.body_size gt {LARGE_BYTES} }}",
        f"http-request return {large} if {{ sc_conn_cur(1) gt {MOST_LARGE} }}",
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
    """The arguments of `http-error` or `http-request return` for an error in OpenAI's layout."""
    retry = f" hdr Retry-After {retry_s}" if retry_s else ""
    return f"status {status} content-type application/json string '{_body(status, message, code)}'{retry}"


def _body(status: int, message: str, code: str) -> str:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def gone_reply() -> bytes:
    """What HAProxy says where no replica answers or one dies before its reply."""
    body = _body(503, GONE, "replica_gone")
    lines = [
        "HTTP/1.1 503 Service Unavailable", "Content-Type: application/json", "Cache-Control: no-cache",
        "Retry-After: 30", f"Content-Length: {len(body)}", "", body,
    ]  # fmt: skip
    return "\r\n".join(lines).encode()
