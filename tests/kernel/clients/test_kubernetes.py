"""Kubernetes' side of containerd: the CRI calls of a kubelet, with a RuntimeClass's handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.cri import as_bytes, fields, message
from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.cri import Cri

pytestmark = pytest.mark.kernel
EXITED = 2  # a ContainerState


def test_a_pod_with_two_containers_shares_its_network_and_its_name(cri: Cri) -> None:
    pod = cri.pod()
    one, two = (cri.container(pod, name) for name in ("one", "two"))
    link = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; hostname; ls /sys/class/net"

    first, second = (cri.exec(identity, "sh", "-c", link) for identity in (one, two))

    assert first == second
    assert first[1].split()[2:] == ["podded", "eth0", "lo"]
    assert all(cri.state(identity).is_dir() for identity in (pod[0], one, two))


def test_an_exec_gives_its_exit_code_and_both_streams(cri: Cri) -> None:
    container = cri.container(cri.pod(), "one")

    assert cri.exec(container, "sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")


def test_a_security_context_is_what_the_container_has(cri: Cri) -> None:
    drop = message((2, "ALL"))
    user, group = message((1, 1000)), message((1, 2000))
    context = message((1, drop), (5, user), (7, 1), (8, 77), (11, 1), (12, group), (15, message((1, 0))))
    resources = message((1, 100000), (2, 50000), (4, 64 << 20))
    container = cri.container(cri.pod(), "one", (15, message((1, resources), (2, context))))
    script = "id -u; id -g; id -G; grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; touch /x || echo refused"

    said = cri.exec(container, "sh", "-c", script)[1].split()

    assert said[:4] == ["1000", "2000", "2000", "77"]
    assert said[4:] == ["CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2", "refused"]
    limits = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes cpu.max cpu/cpu.cfs_quota_us 2>/dev/null"
    assert cri.exec(container, "sh", "-c", limits)[1].split()[:2] == [str(64 << 20), "50000"]
    cri.call("UpdateContainerResources", (1, container), (2, message((4, 128 << 20))))
    assert cri.exec(container, "sh", "-c", limits)[1].split()[0] == str(128 << 20)


def test_a_privileged_pod_has_what_the_caller_has(cri: Cri) -> None:
    pod = cri.pod((8, message((2, message((6, 1))))))
    container = cri.container(pod, "one", (15, message((2, message((2, 1))))))
    line = "awk '/^CapEff:/ {print $2}' /proc/self/status"
    mine = cri.world.run("sh", "-c", line).stdout

    said = cri.exec(container, "sh", "-c", f"{line}; ls /dev/kmsg")[1].split()

    assert int(said[0], 16) & ~int(mine, 16) == 0
    assert int(said[0], 16) & 1 << 21  # CAP_SYS_ADMIN
    assert said[1] == "/dev/kmsg"


def test_a_pod_may_use_the_hosts_network(cri: Cri) -> None:
    node = message((1, message((1, 2))))
    pod = cri.pod((8, message((2, node))), name="")  # a host's name is the host's
    container = cri.container(pod, "one", (15, message((2, message((3, message((1, 2))))))))

    assert (
        cri.exec(container, "readlink", "/proc/self/ns/net")[1] == cri.world.run("readlink", "/proc/self/ns/net").stdout
    )


def test_a_stopped_container_is_gone_and_a_pod_leaves_nothing(cri: Cri) -> None:
    pod = cri.pod()
    container = cri.container(pod, "one")

    cri.call("StopContainer", (1, container), (2, 1))

    status = fields(as_bytes(cri.call("ContainerStatus", (1, container))[1][0]))
    assert (status[3], status[7]) == ([EXITED], [143])  # not process 1 here, which the pod's first container is
    cri.clean()
    eventually(lambda: not any(cri.state(identity).exists() for identity in (pod[0], container)))


def test_a_command_that_cant_be_started_is_told(cri: Cri) -> None:
    pod = cri.pod()

    with pytest.raises(AssertionError, match="StartContainer is refused"):
        cri.container(pod, "one", command=("nosuchprogram",))
