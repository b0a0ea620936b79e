"""Hosts on one network: worlds whose interfaces eth0 meet at a bridge in another world."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.kernel.clients.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

SWITCH = "10.77.0.1"


class Network:
    """The bridge and its world `switch`, and one world a host, by name; a host's address is `address[NAME]`."""

    def __init__(self, names: Sequence[str], leave_out: Sequence[str] = ()) -> None:
        self.hosts: dict[str, World] = {}
        self.address: dict[str, str] = {}
        self.switch = World("switch", {}, leave_out)
        try:
            self.switch.run("ip", "link", "add", "bridge", "type", "bridge", check=True)
            self.switch.run("ip", "address", "add", f"{SWITCH}/24", "dev", "bridge", check=True)
            self.switch.run("ip", "link", "set", "bridge", "up", check=True)
            for number, name in enumerate(names, 11):
                self._add(name, f"10.77.0.{number}", leave_out)
        except BaseException:
            self.end()
            raise

    def _add(self, name: str, address: str, leave_out: Sequence[str]) -> None:
        host = self.hosts[name] = World(name, {}, leave_out)
        self.address[name] = address
        peer = ["peer", "name", "eth0", "netns", str(host.pid)]  # the pid as this process sees it
        enter = ["nsenter", "-t", str(self.switch.pid), "-n"]
        subprocess.run([*enter, "ip", "link", "add", name, "type", "veth", *peer], check=True)
        self.switch.run("ip", "link", "set", name, "master", "bridge", "up", check=True)
        host.run("hostname", name, check=True)
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0", check=True)
        host.run("ip", "link", "set", "eth0", "up", check=True)
        host.run("ip", "route", "add", "default", "via", SWITCH, check=True)

    def lose(self, name: str) -> None:
        """Take a host away with all that runs on it, as a cut of its power would."""
        self.hosts.pop(name).end()

    def end(self) -> None:
        """Take everything away."""
        for name in list(self.hosts):
            self.lose(name)
        self.switch.end()
