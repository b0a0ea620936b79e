"""Containers of `stockade-runtime` in the guest: one is made of a configuration, asked things by exec, and deleted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ("/usr/bin/python3", "-I", "-S", str(ROOT / "sandbox/runtime/boot.py"))
CGROUPS = Path("/sys/fs/cgroup")
ROOTFS = Path("/srv/rootfs")
MIB = 1 << 20
CAPABILITIES = [f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "KILL", "MKNOD", "SETGID", "SETUID")]
MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
]  # fmt: skip
KINDS = ("mount", "pid", "ipc", "uts", "network", "cgroup")
WAITS = ["sleep", "1000"]


def call(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, 60 seconds at most; nothing is raised for its exit code.

    Its streams are files: what it leaves behind would hold a pipe open.
    """
    defaults: dict[str, Any] = {"text": True, "timeout": 60}
    if "input" not in options:
        defaults["stdin"] = subprocess.DEVNULL
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams: dict[str, Any] = {"stdout": out, "stderr": err}
        done = subprocess.run(argv, check=False, **(defaults | streams | options))
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())


def said(*argv: str, **options: Any) -> str:
    """Give what a command that succeeds writes, without the last newline."""
    done = call(*argv, **options)
    assert done.returncode == 0, done
    return done.stdout.rstrip("\n")


def rootfs() -> Path:
    """Give the root file system of all containers, busybox, made at the first call."""
    if not ROOTFS.exists():
        for name in ("bin", "etc", "dev", "proc", "sys/fs/cgroup", "tmp", "root", "var", "run"):
            (ROOTFS / name).mkdir(parents=True)
        (ROOTFS / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
        (ROOTFS / "etc/group").write_text("root:x:0:\napp:x:1000:\n")
        shutil.copy("/bin/busybox", ROOTFS / "bin/busybox")
        for applet in said("/bin/busybox", "--list").split():
            if applet != "busybox":
                (ROOTFS / "bin" / applet).symlink_to("busybox")
    return ROOTFS


def configuration(args: list[str], resources: dict[str, Any], path: str, **changes: Any) -> dict[str, Any]:
    """Give a config.json. Changes: `process`, `linux` (merged), `mounts` (added), `namespaces` (added)."""
    sets = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    process = {"cwd": "/", "env": ["PATH=/bin"], "args": args, "capabilities": sets, "noNewPrivileges": True}
    devices = resources.pop("devices", [{"allow": False, "access": "rwm"}])
    namespaces = [{"type": kind} for kind in (*KINDS, *changes.get("namespaces", ()))]
    linux = {"namespaces": namespaces, "resources": resources | {"devices": devices}, "cgroupsPath": path}
    return {
        "ociVersion": "1.2.0",
        "process": process | changes.get("process", {}),
        "root": {"path": str(rootfs())},
        "mounts": MOUNTS + changes.get("mounts", []),
        "linux": linux | changes.get("linux", {}),
    }


class Box:
    """A container: `exec` asks it, `read` and `write` its group's files, `runtime` runs a command of the runtime."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.id = f"box{uuid.uuid4().hex[:8]}"
        self.bundle = directory / self.id
        self.bundle.mkdir()
        self.options = options
        self.pid = 0
        self.group = CGROUPS

    def write_bundle(self, args: list[str], resources: dict[str, Any], path: str, **changes: Any) -> None:
        (self.bundle / "config.json").write_text(json.dumps(configuration(args, resources, path, **changes)))

    def runtime(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return call(*RUNTIME, *self.options, *words, **options)

    def said(self, *words: str, **options: Any) -> str:
        return said(*RUNTIME, *self.options, *words, **options)

    def create(self) -> None:
        """Create the container; its standard streams are files of the bundle."""
        with (self.bundle / "stdout").open("w") as out:
            done = self.runtime(
                *("create", "--bundle", str(self.bundle), "--pid-file", str(self.bundle / "pid"), self.id),
                stdout=out, stderr=out,
            )  # fmt: skip
        assert done.returncode == 0, self.output()
        self.pid = int((self.bundle / "pid").read_text())
        self.group = group_of(self.pid)

    def start(self) -> None:
        self.said("start", self.id)

    def output(self) -> str:
        return (self.bundle / "stdout").read_text()

    def exec(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.runtime("exec", self.id, "sh", "-c", script)

    def shown(self, script: str) -> str:
        done = self.exec(script)
        assert done.returncode == 0, done
        return done.stdout.rstrip("\n")

    def read(self, file: str) -> str:
        return (self.group / file).read_text().strip()

    def numbers(self, file: str) -> dict[str, int]:
        """Give a file of names and numbers, such as memory.stat."""
        return {name: int(number) for name, number in (line.split() for line in self.read(file).splitlines())}

    def status(self) -> str:
        return str(json.loads(self.said("state", self.id))["status"])

    def update(self, resources: dict[str, Any]) -> None:
        self.said("update", "--resources", "-", self.id, input=json.dumps(resources))

    def delete(self) -> None:
        """Delete the container; nothing of its group is left."""
        self.said("delete", "--force", self.id)
        assert self.group == CGROUPS or not os.path.exists(self.group), self.group


def group_of(pid: int | str) -> Path:
    """Give the directory of a process's group."""
    return CGROUPS / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def properties(unit: str, *names: str, user: bool = False) -> dict[str, str]:
    """Give what systemd says of a unit."""
    command = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    text = said(*as_user(*command)) if user else said(*command)
    return dict(line.split("=", 1) for line in text.splitlines())


def as_user(*argv: str) -> tuple[str, ...]:
    """Give the command that runs another in a service of the user's own systemd, as at a login."""
    session = ("XDG_RUNTIME_DIR=/run/user/1000", "HOME=/home/stockade-test", "USER=stockade-test", "LANG=C.UTF-8")
    if argv[0] == "systemctl":
        return ("runuser", "-u", "stockade-test", "--", "env", *session, "systemctl", "--user", *argv[1:])
    literal = [word.replace("$", "$$") for word in argv]  # systemd expands variables
    # podman leaves conmon in a service that it runs as, which then would not end
    plain = ("--working-directory=/", "--", "env", "--unset=INVOCATION_ID")
    # its own OOMPolicy would end the service when a container below it runs out of memory
    service = ("systemd-run", "--user", "--pipe", "--wait", "--collect", "--quiet", "--property=OOMPolicy=continue")
    return ("runuser", "-u", "stockade-test", "--", "env", *session, *service, *plain, *literal)
