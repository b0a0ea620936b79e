"""A Docker Swarm of three hosts, each with its own dockerd, and a registry for the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kernel.clients.docker import Docker
from tests.kernel.clients.engines import IMAGE, LEAVE_OUT
from tests.kernel.clients.network import SWITCH, Network

if TYPE_CHECKING:
    from pathlib import Path

REGISTRY = f"{SWITCH}:5000"
SHARED = f"{REGISTRY}/busybox"
CONFIGURATION = f"""
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: /tmp/registry}}}}
http: {{addr: "{REGISTRY}"}}
"""


class Swarm:
    """Three hosts, all of them managers, so that any of them may be lost: `nodes` has the Docker of each."""

    def __init__(self, archive: Path) -> None:
        self.network = Network(("host1", "host2", "host3"), LEAVE_OUT)
        try:
            self._begin(archive)
        except BaseException:
            self.end()
            raise

    def _begin(self, archive: Path) -> None:
        switch = self.network.switch
        (switch.root / "tmp/registry.yml").write_text(CONFIGURATION)
        switch.start(["docker-registry", "serve", "/tmp/registry.yml"])
        settings = {"insecure-registries": [REGISTRY]}
        self.nodes = {name: Docker(host, "swarm.md", settings) for name, host in self.network.hosts.items()}
        first = self.nodes["host1"]
        address = self.network.address
        first("swarm", "init", "--advertise-addr", address["host1"], "--dispatcher-heartbeat", "1s", check=True)
        token = first.said("swarm", "join-token", "--quiet", "manager")
        for name in ("host2", "host3"):
            where = ("--advertise-addr", address[name], f"{address['host1']}:2377")
            self.nodes[name]("swarm", "join", "--token", token, *where, check=True)
        first.load(archive)
        first("tag", IMAGE, SHARED, check=True)
        first("push", SHARED, check=True)

    def lose(self, name: str) -> None:
        """Take a host away with all that runs on it."""
        del self.nodes[name]
        self.network.lose(name)

    def end(self) -> None:
        """Take everything away."""
        self.network.end()

    def running(self, service: str) -> dict[str, int]:
        """Give the number of tasks of a service that run, by host; none while the managers elect a leader."""
        first = next(iter(self.nodes.values()))
        template = "{{.Node}} {{.CurrentState}}"
        done = first("service", "ps", service, "--filter", "desired-state=running", "--format", template)
        hosts = [line.split()[0] for line in done.stdout.splitlines() if line.split()[1] == "Running"]
        return {host: hosts.count(host) for host in hosts}
