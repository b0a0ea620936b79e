"""Docker in a world of its own: dockerd, its containerd and its shims, with the runtime under test as the default."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from tests.kernel.clients.engines import IMAGE
from tests.kernel.clients.under_test import RUNTIME, configured
from tests.kernel.clients.world import PATH, eventually

if TYPE_CHECKING:
    import contextlib
    import subprocess
    from pathlib import Path

    from tests.kernel.clients.world import Terminal, World

CALLED = "stockade"  # what docs/docker.md calls the runtime
DOCKER = "/usr/bin/docker"  # Debian's, which is of the daemon's version
# Not of the runtime: how to do without systemd, and an address that no other network has.
EXTRA = {
    "storage-driver": "overlay2",
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
    "bip": "172.31.250.1/24",
}


class Docker:
    """Docker as root: `docker("run", …)` runs a command to its end."""

    def __init__(self, world: World, page: str = "docker.md", settings: dict[str, Any] | None = None) -> None:
        self.world = world
        self.log = world.directory / "dockerd.log"
        (world.root / "tmp/daemon.json").write_text(
            json.dumps(json.loads(configured(page, "json")) | EXTRA | (settings or {}))
        )
        world.environment["DOCKER_HOST"] = "unix:///run/docker.sock"
        self.begin()

    def begin(self) -> None:
        """Start the daemon, with its containerd, and wait until it answers."""
        command = ["dockerd", "--config-file", "/tmp/daemon.json", "--host", "unix:///run/docker.sock"]
        with open(self.log, "ab") as log:
            daemon = self.world.start(command, stdout=log)
        eventually(lambda: daemon.ended() or self("version").returncode == 0, what="dockerd to answer")
        assert not daemon.ended(), self.log.read_text()

    def load(self, archive: Path) -> None:
        """Make the image of all containers."""
        shutil.copy(archive, self.world.root / "tmp/image.tar")
        changes = ("-c", 'CMD ["/bin/sh"]', "-c", "ENV IMAGE=yes", "-c", f"ENV PATH={PATH}")
        self("import", *changes, "/tmp/image.tar", IMAGE, check=True)

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.world.run(DOCKER, *words, **options)

    def said(self, *words: str, **options: Any) -> str:
        """Give what a command that succeeds writes, without the last newline."""
        return self(*words, check=True, **options).stdout.strip()

    def state(self, identity: str) -> Path:
        """Give the directory in which the runtime under test keeps a container, as this process sees it."""
        return self.world.root / "run/docker/runtime-runc/moby" / identity  # so for every runtime, in 20.10

    def options(self, identity: str) -> str:
        """Give the options, in JSON, with which containerd started a container's shim."""
        bundles = self.world.root / "run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby"
        return (bundles / identity / "options.json").read_text()

    def clean(self) -> None:
        """Remove every container."""
        identities = self.said("ps", "--all", "--quiet").split()
        if identities:
            self("rm", "--force", "--volumes", *identities)

    def background(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        """Start a container that runs on; give its full id."""
        return self.said("run", "--detach", "--name", name, *options, IMAGE, *command)

    def sh(self, script: str, *options: str, **others: Any) -> subprocess.CompletedProcess[str]:
        """Run a shell script in a container without a network that is removed afterwards."""
        return self("run", "--rm", "--network", "none", *options, IMAGE, "sh", "-c", script, **others)

    def shown(self, script: str, *options: str, **others: Any) -> str:
        """Give what a shell script that succeeds writes in a container, without the last newline."""
        done = self.sh(script, *options, **others)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def inspect(self, name: str, template: str) -> str:
        """Give what inspect says of a container."""
        return self.said("inspect", "--format", template, name)

    def limit(self, name: str, of: str) -> str:
        """Give what the cgroup of a running container says, see World.limit."""
        return self.world.limit(self.inspect(name, "{{.State.Pid}}"), of)

    def terminal(self, *words: str) -> contextlib.AbstractContextManager[Terminal]:
        """Run a command on a terminal."""
        return self.world.terminal(DOCKER, *words)


class Ctr:
    """ctr, the client of containerd: `ctr("task", …)`, and `ctr.run(NAME, COMMAND…)` with the runtime under test."""

    def __init__(self, docker: Docker) -> None:
        self.world = docker.world
        docker("save", "--output", "/tmp/image.docker", IMAGE, check=True)
        self("image", "import", "/tmp/image.docker", check=True)
        self.image = next(word for word in self.said("image", "ls", "--quiet").split() if "busybox" in word)

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.world.run("ctr", "--address", "/run/docker/containerd/containerd.sock", *words, **options)

    def said(self, *words: str) -> str:
        """Give what a command that succeeds writes, without the last newline."""
        return self(*words, check=True).stdout.strip()

    def run(
        self, name: str, *command: str, options: tuple[str, ...] = (), **others: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container; it is removed afterwards unless it is detached."""
        removed = () if "--detach" in options else ("--rm",)
        return self("run", *removed, "--runc-binary", str(RUNTIME), *options, self.image, name, *command, **others)

    def terminal(self, name: str, *command: str) -> contextlib.AbstractContextManager[Terminal]:
        """Run a command in a container, on a terminal."""
        address = ("--address", "/run/docker/containerd/containerd.sock")
        options = ("--rm", "--tty", "--runc-binary", str(RUNTIME))
        return self.world.terminal("ctr", *address, "run", *options, self.image, name, *command)

    def state(self, identity: str) -> Path:
        """Give the directory in which the runtime under test keeps a container, as this process sees it."""
        return self.world.root / "run/containerd/runc/default" / identity

    def clean(self) -> None:
        """Remove every container."""
        for identity in self.said("container", "ls", "--quiet").split():
            self("task", "delete", "--force", identity)
            self("container", "delete", identity)
