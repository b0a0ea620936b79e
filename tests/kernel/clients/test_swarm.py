"""Docker Swarm: three hosts whose default runtime is the runtime under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.docker import CALLED
from tests.kernel.clients.swarm import SHARED
from tests.kernel.clients.world import eventually

if TYPE_CHECKING:
    from tests.kernel.clients.swarm import Swarm

pytestmark = pytest.mark.kernel


def recovered(running: dict[str, int]) -> bool:
    return sum(running.values()) == 6 and "host1" not in running


def test_a_job_is_done_and_a_service_survives_the_loss_of_a_host(swarm: Swarm) -> None:
    manager = swarm.nodes["host1"]
    for node in swarm.nodes.values():
        assert node.said("info", "--format", "{{.DefaultRuntime}}") == CALLED

    job = ("service", "create", "--detach", "--name", "job", "--mode", "replicated-job", "--replicas", "9")
    manager(*job, SHARED, "sh", "-c", "hostname >/tmp/x && test -s /tmp/x", check=True)
    options = ("--cap-drop", "ALL", "--read-only", "--init", "--limit-memory", "64m", "--ulimit", "nofile=99:99")
    service = ("service", "create", "--detach", "--name", "service", "--replicas", "6", *options)
    manager(*service, SHARED, "sleep", "1000", check=True)
    eventually(lambda: swarm.running("service") == {"host1": 2, "host2": 2, "host3": 2}, 30)
    eventually(lambda: "(9/9 completed)" in manager.said("service", "ls", "--format", "{{.Replicas}}"), 30)

    for node in swarm.nodes.values():
        identity = node.said("ps", "--quiet", "--no-trunc", "--filter", "name=service").split()[0]
        assert node.state(identity).is_dir()
        script = "grep CapBnd /proc/1/status; ulimit -n; cat /proc/1/comm; touch /x || echo refused"
        said = node.said("exec", identity, "sh", "-c", script).split()
        assert said == ["CapBnd:", "0" * 16, "99", "docker-init", "refused"]
        assert node.limit(identity, "memory") == str(64 << 20)

    swarm.lose("host1")  # the leader

    eventually(lambda: recovered(swarm.running("service")), 60, "six replicas on the two hosts that are left")
