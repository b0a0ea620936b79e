"""Docker with userns-remap and live-restore: ids of an unprivileged user, and containers that outlive their daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.engines import IMAGE
from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.docker import Docker

pytestmark = pytest.mark.kernel


def test_root_inside_is_a_subordinate_id_outside(remapped: Docker) -> None:
    remapped.background("mapped")
    pid = remapped.inspect("mapped", "{{.State.Pid}}")

    assert (remapped.world.root / "proc" / pid).stat().st_uid >= 100000
    script = "id -u; touch /made && stat -c %u /made /etc/passwd /proc/1"
    assert remapped.said("exec", "mapped", "sh", "-c", script).split() == ["0", "0", "0", "0"]


def test_networks_terminals_and_limits_work_with_mapped_ids(remapped: Docker) -> None:
    assert "inet 172.31.250." in remapped.said("run", "--rm", IMAGE, "ip", "-4", "address", "show", "eth0")
    with remapped.terminal(
        "run", "-it", "--rm", "--sysctl", "net.ipv4.ip_default_ttl=77", "-m", "64m", IMAGE, "sh"
    ) as terminal:
        terminal.type(
            "cd /sys/fs/cgroup; cat /proc/sys/net/ipv4/ip_default_ttl memory.max memory/memory.limit_in_bytes; exit 9\n"
        )
        terminal.expect("77\r\n")
        terminal.expect(f"{64 << 20}\r\n")

        assert terminal.process.wait() == 9


def test_one_container_may_have_the_hosts_user_namespace(remapped: Docker) -> None:
    mine = remapped.world.run("readlink", "/proc/self/ns/user").stdout.strip()
    line = "readlink /proc/self/ns/user"

    assert remapped.shown(line) != mine
    assert remapped.shown(line, "--userns", "host") == mine


def test_a_container_outlives_the_daemon_and_is_found_again(remapped: Docker) -> None:
    identity = remapped.background("kept")
    pid = remapped.inspect("kept", "{{.State.Pid}}")
    daemons = remapped.world.run("pgrep", "-x", "dockerd|containerd").stdout.split()
    assert len(daemons) == 2

    remapped.world.run("kill", "-KILL", *daemons, check=True)
    (remapped.world.root / "run/docker.pid").unlink()
    remapped.begin()

    assert remapped.inspect("kept", "{{.State.Status}} {{.State.Pid}}") == f"running {pid}"
    assert remapped.said("exec", "kept", "id", "-u") == "0"
    remapped("stop", "--time", "0", "kept", check=True)
    assert remapped.inspect("kept", "{{.State.ExitCode}}") == "137"
    eventually(lambda: not remapped.state(identity).exists())
