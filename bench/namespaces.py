"""A Ray cluster on one Linux machine whose nodes have networks, processes, host names, /tmp and homes of their own.

A node is a `ray start` in namespaces. A bridge connects the nodes with each other and with this process, which `in_namespaces`
puts into namespaces of its own: whatever happens to it, the kernel removes all of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import ray

ADDRESS = "10.77.0.{}"
HERE = ADDRESS.format(1)
"""The address of this process on the bridge."""
INSIDE = "VGS_DRILLS_INSIDE"
RAY = str(Path(ray.__file__).parents[4] / "bin" / "ray")
WAIT_S = 120.0
MOST_NODES = 60
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
START = """
hostname {name}
mount -t tmpfs -o size={disk} none /tmp
mount -t tmpfs -o size=2g none /dev/shm
mkdir /tmp/home
export HOME=/tmp/home
{program} start {options} --node-ip-address={address} --block >{log} 2>&1 &
ray=$!
trap "kill -TERM $ray" TERM
while kill -0 $ray 2>/dev/null; do wait $ray; done
"""
"""The shell is process 1 of the node, which passes SIGTERM on and collects the children of dead processes."""
FAST_CHECKS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
"""A node that does not answer is dead for Ray after about 12 seconds."""


def in_namespaces(environment: dict[str, str]) -> None:
    """Execute this program again in namespaces of its own, unless it is there already, and connect them to a bridge.

    Args:
        environment: variables that the program gets then.

    Raises:
        SystemExit: this needs root, and Linux.
    """
    if INSIDE not in os.environ:
        if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
            sys.exit("namespaces can't be made here: this needs Linux and root")
        os.execvpe("unshare", [*UNSHARE, sys.executable, *sys.argv], os.environ | {INSIDE: "1"} | environment)
    run("mount -t tmpfs none /run")
    run("ip link set lo up")
    run("ip link add bridge type bridge")
    # Otherwise it has the lowest address of its ports, and loses packets when a node with a lower one joins.
    run("ip link set bridge address 02:00:00:00:00:01")
    run("ip link set bridge up")
    run(f"ip address add {HERE}/24 dev bridge")
    hosts = Path("/run/hosts")
    names = [f"{ADDRESS.format(10 + number)} node{number}" for number in range(1, MOST_NODES)]
    hosts.write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
    run(f"mount --bind {hosts} /etc/hosts")


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


class Network:
    """The network of one node, with a host name and an address that no other one has.

    Args:
        number: from 1.
    """

    def __init__(self, number: int) -> None:
        self.name, self.address = f"node{number}", ADDRESS.format(10 + number)
        self._link = f"to-{self.name}"
        run(f"ip netns add {self.name}")
        run(f"ip link add {self._link} type veth peer name eth0 netns {self.name}")
        run(f"ip link set {self._link} master bridge up")
        run(f"ip -n {self.name} address add {self.address}/24 dev eth0")
        run(f"ip -n {self.name} link set eth0 up")
        run(f"ip -n {self.name} link set lo up")

    def cut(self, off: bool = True) -> None:
        """Cut it off, or connect it again. Packets are lost without an error."""
        run(f"ip link set {self._link} {'down' if off else 'up'}")

    def start_command(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process in this network, with the options of `Popen`."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **options)


class Node(Network):
    """A `ray start`, which may be started again.

    Args:
        number: of its network.
        options: of `ray start`.
        logs: folder for its output.
        environment: of its processes.
        disk: size of its /tmp, such as `300m`.
    """

    def __init__(self, number: int, options: str, logs: Path, environment: dict[str, str], disk: str) -> None:
        super().__init__(number)
        self._options, self._environment, self._disk = options, environment, disk
        self._log = logs / f"{self.name}.log"

    def start(self) -> Node:
        """Start its processes with an empty /tmp."""
        script = START.format(
            name=self.name, disk=self._disk, program=RAY, options=self._options, address=self.address, log=self._log
        )
        unshare = ["unshare", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc"]
        self._process = self.start_command([*unshare, "bash", "-c", script], env=self._environment)
        return self

    def lose(self) -> None:
        """What others see when a machine is lost: its network is silent, and its processes are gone."""
        self.cut()
        self.kill()

    def kill(self) -> None:
        """SIGKILL all its processes."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Send SIGTERM to `ray start`, as the operating system does when the machine is about to be stopped."""
        self._first().send_signal(signal.SIGTERM)

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def run(self, command: str) -> None:
        """Run a shell command with its network, files and processes."""
        enter = ["nsenter", "--target", str(self._first().pid), "--net", "--mount", "--pid", "--uts"]
        subprocess.run([*enter, "bash", "-c", command], check=True, env=self._environment | {"HOME": "/tmp/home"})

    def _first(self) -> psutil.Process:
        """Its process 1: the child of `unshare`, which `ip` has become."""
        return psutil.Process(self._process.pid).children()[0]


def wait_for(ready: Callable[[], object], what: str, seconds: float = WAIT_S) -> None:
    """Wait until `ready` returns something true.

    Raises:
        TimeoutError: that takes too long.
    """
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not in {seconds:.0f} s")
        time.sleep(0.1)
