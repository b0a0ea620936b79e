"""The engines of the matrix, each in a world of its own, with the runtime under test as what starts its containers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kernel.clients.under_test import NAME, configured
from tests.kernel.clients.world import PATH

if TYPE_CHECKING:
    import contextlib
    import pwd

    from tests.kernel.clients.world import Terminal, World

# The v2 hierarchy beside v1's controllers, which crun takes for the only one and then refuses to run.
LEAVE_OUT = ("unified",) if NAME == "crun" else ()
IMAGE = "localhost/busybox"
# root has no CAP_SYS_RESOURCE on some machines: podman's own defaults are above the limits it then has.
LIMITS = ("nofile=1000:1000", "nproc=1000:1000")

# Not of the runtime: how to do without systemd, and the network of user-defined bridges.
ENGINE = """[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
REST = f"""
[containers]
default_ulimits = {json.dumps(LIMITS)}
[network]
network_backend = "netavark"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
USER_STORAGE_CONF = """
[storage]
driver = "overlay"
"""


def image(directory: Path) -> Path:
    """Write a tar file of a root file system: busybox with its applets in /bin, users root and app, no program else."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "there is no busybox: run ./dev setup as root, or install busybox-static"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    root = directory / "image"
    for name in ("bin", "etc", "tmp", "root", "var", "home"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    shutil.copy(busybox, root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).hardlink_to(root / "bin/busybox")
    (root / "etc/notrunnable").write_text("not a program")
    with tarfile.open(directory / "image.tar", "w") as archive:
        archive.add(root, ".")
    return directory / "image.tar"


class Podman:
    """Podman as root, and as the unprivileged user: `podman("run", …)` runs a command to its end."""

    def __init__(self, world: World, archive: Path, user: pwd.struct_passwd | None = None) -> None:
        self.world = world
        self.user = user
        self.states = Path(f"/run/{NAME}" if user is None else f"/run/user/{user.pw_uid}/{NAME}")
        etc = world.root / "tmp/etc"
        etc.mkdir(exist_ok=True)
        (etc / "containers.conf").write_text(configured("podman.md", "toml").replace("[engine]\n", ENGINE) + REST)
        (etc / "storage.conf").write_text(STORAGE_CONF)
        (etc / "user-storage.conf").write_text(USER_STORAGE_CONF)
        world.environment["CONTAINERS_CONF"] = "/tmp/etc/containers.conf"
        world.environment["CONTAINERS_STORAGE_CONF"] = "/tmp/etc/storage.conf"
        if user is not None:
            self._prepare(user)
        else:  # the ids that --userns=auto takes from
            for file in ("subuid", "subgid"):
                text = Path("/etc", file).read_text() + "containers:500000:100000\n"
                (etc / file).write_text(text)
                world.run("mount", "--bind", f"/tmp/etc/{file}", f"/etc/{file}", check=True)
        shutil.copy(archive, world.root / "tmp/image.tar")
        changes = ("-c", 'CMD=["/bin/sh"]', "-c", "ENV=IMAGE=yes", "-c", f"ENV=PATH={PATH}")
        self("import", *changes, "/tmp/image.tar", IMAGE, check=True)

    def _prepare(self, user: pwd.struct_passwd) -> None:
        for name in (user.pw_dir, f"run/user/{user.pw_uid}"):
            directory = self.world.root / name.lstrip("/")
            directory.mkdir(parents=True)
            directory.chmod(0o700)
            os.chown(directory, user.pw_uid, user.pw_gid)
        self.world.user_environment = {
            "HOME": user.pw_dir,
            "USER": user.pw_name,
            "XDG_RUNTIME_DIR": f"/run/user/{user.pw_uid}",
            "CONTAINERS_STORAGE_CONF": "/tmp/etc/user-storage.conf",
        }

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.world.run("podman", *words, user=self.user, **options)

    def said(self, *words: str, **options: Any) -> str:
        """Give what a command that succeeds writes, without the last newline."""
        return self(*words, check=True, **options).stdout.strip()

    def clean(self) -> None:
        """Remove every pod and every container."""
        self("pod", "rm", "--all", "--force", "--time", "0", check=True)
        self("rm", "--all", "--force", "--time", "0", check=True)

    def background(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        """Start a container that runs on; give its full id."""
        self.said("run", "--detach", "--name", name, "--network", "none", *options, IMAGE, *command)
        return self.inspect(name, "{{.Id}}")

    def sh(self, script: str, *options: str, **others: Any) -> subprocess.CompletedProcess[str]:
        """Run a shell script in a container that is removed afterwards."""
        return self("run", "--rm", "--network", "none", *options, IMAGE, "sh", "-c", script, **others)

    def shown(self, script: str, *options: str, **others: Any) -> str:
        """Give what a shell script that succeeds writes in a container, without the last newline."""
        done = self.sh(script, *options, **others)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def terminal(self, *words: str) -> contextlib.AbstractContextManager[Terminal]:
        """Run a command on a terminal."""
        return self.world.terminal("podman", *words, user=self.user)

    def limit(self, name: str, of: str) -> str:
        """Give what the cgroup of a running container says, see World.limit."""
        return self.world.limit(self.inspect(name, "{{.State.Pid}}"), of)

    def inspect(self, name: str, template: str) -> str:
        """Give what inspect says of a container."""
        return self.said("inspect", "--format", template, name)

    def state(self, identity: str) -> Path:
        """Give the directory in which the runtime under test keeps a container, as this process sees it."""
        return self.world.root / str(self.states / identity).lstrip("/")
