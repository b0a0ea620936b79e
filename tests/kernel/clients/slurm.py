"""Slurm on three hosts: slurmctld on the first, slurmd on each, with the runtime under test in oci.conf."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from tests.kernel.clients.engines import LEAVE_OUT
from tests.kernel.clients.network import Network
from tests.kernel.clients.under_test import configured
from tests.kernel.clients.world import PATH, eventually

if TYPE_CHECKING:
    import pwd
    import subprocess
    from pathlib import Path

    from tests.kernel.clients.world import World

STATES = "/run/slurm-containers"  # in docs/slurm.md
# Without munge, whose socket and key are one machine's: auth/none believes who asks.
CONFIGURATION = """
ClusterName=stockade
SlurmctldHost=host1({address[host1]})
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/tmp/slurmctld
SlurmdSpoolDir=/tmp/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
ReturnToService=2
KillWait=2
Prolog=/tmp/slurm/prolog
SlurmdTimeout=0
"""
NAMESPACES = ("pid", "ipc", "uts", "mount", "network")
CONFIG = {
    "ociVersion": "1.0.2",
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": [f"PATH={PATH}"], "cwd": "/"},
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "inside",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
    ],
    "linux": {"namespaces": [{"type": name} for name in NAMESPACES]},
}


class Slurm:
    """Three hosts with a bundle at /tmp/bundle each: `slurm("srun", …)` runs a command on the first to its end.

    At /tmp/user-bundle there is one of a user: theirs, with a user namespace in which they are root.
    """

    def __init__(self, archive: Path, user: pwd.struct_passwd) -> None:
        self.user = user
        self.network = Network(("host1", "host2", "host3"), LEAVE_OUT)
        try:
            self._begin(archive)
        except BaseException:
            self.end()
            raise

    def _begin(self, archive: Path) -> None:
        address = self.network.address
        nodes = "".join(f"NodeName={name} NodeAddr={at} CPUs=2 State=UNKNOWN\n" for name, at in address.items())
        partition = "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        for host in self.network.hosts.values():
            (host.root / "tmp/slurm").mkdir()
            (host.root / "tmp/slurm/slurm.conf").write_text(CONFIGURATION.format(address=address) + nodes + partition)
            (host.root / "tmp/slurm/oci.conf").write_text(configured("slurm.md", "conf"))
            (host.root / "tmp/slurm/prolog").write_text(configured("slurm.md", "sh"))
            (host.root / "tmp/slurm/prolog").chmod(0o755)
            (host.root / "tmp/slurmctld").mkdir()
            self._unpack(host, archive)
            host.environment["SLURM_CONF"] = "/tmp/slurm/slurm.conf"
        self.first = self.network.hosts["host1"]
        self._daemon(self.first, "slurmctld", "-D", "-c")
        for name, host in self.network.hosts.items():
            self._daemon(host, "slurmd", "-D", "-N", name)
        eventually(
            lambda: self("sinfo", "--noheader", "--format", "%D %t").stdout.strip() == "3 idle",
            what="three idle nodes",
        )

    def _unpack(self, host: World, archive: Path) -> None:
        (host.root / "tmp/bundle/rootfs").mkdir(parents=True)
        shutil.copy(archive, host.root / "tmp/image.tar")
        host.run("tar", "xf", "/tmp/image.tar", "-C", "/tmp/bundle/rootfs", check=True)
        host.run("mkdir", "-p", "/tmp/bundle/rootfs/proc", "/tmp/bundle/rootfs/dev", check=True)
        host.run("sh", "-c", "hostname >/tmp/bundle/rootfs/etc/host", check=True)
        host.run("cp", "-a", "/tmp/bundle", "/tmp/user-bundle", check=True)
        host.run("chown", "-R", f"{self.user.pw_uid}:{self.user.pw_gid}", "/tmp/user-bundle", check=True)
        (host.root / "tmp/bundle/config.json").write_text(json.dumps(CONFIG))
        linux: dict[str, Any] = {"namespaces": [{"type": name} for name in (*NAMESPACES, "user")]}
        for kind, own in (("uid", self.user.pw_uid), ("gid", self.user.pw_gid)):
            linux[f"{kind}Mappings"] = [{"containerID": 0, "hostID": own, "size": 1}]
        (host.root / "tmp/user-bundle/config.json").write_text(json.dumps(CONFIG | {"linux": linux}))

    @staticmethod
    def _daemon(host: World, *command: str) -> None:
        with open(host.directory / f"{command[0]}.log", "wb") as log:
            host.start(command, stdout=log)

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.first.run(*words, **options)

    def states(self, user: str = "root") -> dict[str, Path]:
        """Give each host's directory of the states of a user's containers, as this process sees it."""
        return {name: host.root / STATES.lstrip("/") / user for name, host in self.network.hosts.items()}

    def end(self) -> None:
        """Take everything away."""
        self.network.end()
