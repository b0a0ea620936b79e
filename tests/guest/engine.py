"""Podman in the guest, as root and as a user with a session of systemd, with `stockade-runtime` as its runtime."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.guest import boxes
from tests.kernel.clients.engines import image

if TYPE_CHECKING:
    import subprocess

COMMAND = Path("/usr/local/bin/stockade-runtime")
IMAGE = "localhost/busybox"
CONTAINERS_CONF = f"""
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "systemd"
events_logger = "file"
runtime = "stockade-runtime"
runtime_supports_json = ["stockade-runtime"]
[engine.runtimes]
stockade-runtime = ["{COMMAND}"]
[network]
network_backend = "netavark"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
"""


def prepare(directory: Path) -> Path:
    """Configure Podman for everyone, and give the file that its image is made from."""
    COMMAND.write_text(f'#!/bin/sh\nexec {shlex.join(boxes.RUNTIME)} "$@"\n')
    COMMAND.chmod(0o755)
    Path("/etc/containers/containers.conf").write_text(CONTAINERS_CONF)
    Path("/home/stockade-test/.config/containers").mkdir(parents=True)
    Path("/home/stockade-test/.config/containers/storage.conf").write_text(STORAGE_CONF)
    boxes.said("chown", "-R", "stockade-test:stockade-test", "/home/stockade-test")
    archive = Path("/srv/image.tar")
    image(directory).rename(archive)
    return archive


class Podman:
    """`podman("run", …)` runs a command to its end; `said` gives what one that succeeds writes."""

    def __init__(self, archive: Path, *, user: bool) -> None:
        self.user = user
        self.said("import", "-c", 'CMD=["/bin/sh"]', "-c", "ENV=PATH=/bin", str(archive), IMAGE)

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = ("podman", *words)
        return boxes.call(*(boxes.as_user(*command) if self.user else command), **options)

    def said(self, *words: str, **options: Any) -> str:
        done = self(*words, **options)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def background(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> Path:
        """Start a container that runs on, and give the directory of its group."""
        self.said("run", "--detach", "--name", name, "--network", "none", *options, IMAGE, *command)
        assert self.inspect(name)["OCIRuntime"] == "stockade-runtime"
        return self.group(name)

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.said("inspect", name))[0]
        return found

    def group(self, name: str) -> Path:
        return boxes.group_of(self.inspect(name)["State"]["Pid"])

    def sh(self, script: str, *options: str) -> str:
        """Give what a script writes in a container that is removed afterwards."""
        return self.said("run", "--rm", "--network", "none", *options, IMAGE, "sh", "-c", script)

    def clean(self) -> None:
        self.said("pod", "rm", "--all", "--force", "--time", "0")
        self.said("rm", "--all", "--force", "--time", "0")
        states = Path(f"/run/user/1000/{COMMAND.name}" if self.user else f"/run/{COMMAND.name}")
        assert not states.exists() or os.listdir(states) == []
