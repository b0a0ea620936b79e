"""Run a Spec as the OCI runtime plans it, with the launcher but without the command: what the kernel then shows."""

from __future__ import annotations

import os
import pickle
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from stockade import StockadeError
from stockade.sandbox import inputs, launch
from stockade.sandbox.linux import calls, mountinfo
from stockade.sandbox.oci.read import read_spec
from stockade.sandbox.plan import Options, plan
from tests.kernel import arena

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000

ALL = [
    f"CAP_{name}"
    for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "MKNOD", "NET_ADMIN", "SETGID", "SETUID", "SYS_ADMIN", "SYS_CHROOT")
]
SHOW = "cat /proc/self/mountinfo"
#: the mounts of `runc spec`, without cgroups
MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
)  # fmt: skip


def config(root: Path | str, script: str, /, **changes: Any) -> dict[str, Any]:
    """Give a config.json that runs a shell script; `mounts` are added to runc's, `linux` and `process` are merged."""
    linux = {"namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network")]}
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), ALL)
    process = {"cwd": "/", "args": ["/bin/busybox", "sh", "-c", script], "env": ["PATH=/bin"]}
    return {
        "ociVersion": "1.2.0",
        "process": process | {"capabilities": capabilities} | changes.get("process", {}),
        "root": {"path": str(root)} | changes.get("root", {}),
        "mounts": [*changes.get("base", MOUNTS), *changes.get("mounts", ())],
        "linux": linux | changes.get("linux", {}),
    }


def user_namespace(*more: str) -> dict[str, Any]:
    """Give the part `linux` of a container with a user namespace of 65536 ids from 100000."""
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    kinds = ("user", "mount", "pid", "uts", "ipc", "network", *more)
    return {"namespaces": [{"type": kind} for kind in kinds], "uidMappings": ids, "gidMappings": ids}


@dataclass(frozen=True)
class Done:
    """What the program wrote, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def run(document: dict[str, Any], **options: Any) -> Done:
    """Run it as root's runtime would. Raises StockadeError where that fails."""
    spec = read_spec(document, "config.json")
    the_plan = plan(spec, Options(oci=True, privileged=True).replace(**options))
    null = os.open("/dev/null", os.O_RDWR)
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
    for _, write in pipes:
        os.fchmod(write, 0o666)
    given, opened = inputs.inputs(the_plan, (null, pipes[0][1], pipes[1][1]), None)
    launcher = launch.Launcher()
    try:
        child = launch.launch(launcher, launch.encode(the_plan), given)
        for _, write in pipes:
            os.close(write)
        out, err = (_all(read) for read, _ in pipes)
        _, status = os.waitpid(child.pid, 0)
        return Done(os.waitstatus_to_exitcode(status), out, err)
    finally:
        inputs.close(opened)
        launcher.close()
        os.close(null)


def _all(descriptor: int) -> str:
    with os.fdopen(descriptor, errors="replace") as pipe:
        return pipe.read()


def as_namespace_root(function: Callable[[], T]) -> T:
    """Give the function's result, from root of a user namespace with mounts of its own, as below rootless podman."""
    reader, writer = os.pipe()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                calls.unshare(CLONE_NEWUSER | CLONE_NEWNS)
                os.write(ready[1], b"r")
                os.read(go[0], 1)
                os.setgid(0)
                os.setuid(0)
                answer = pickle.dumps((True, function()))
            except BaseException as error:  # noqa: BLE001 - a failed assert too is told by the parent
                answer = pickle.dumps((False, AssertionError(f"{error!r}\n{traceback.format_exc()}")))
            os.write(writer, answer)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write("0 100000 65536")
    os.write(go[1], b"g")
    for descriptor in (writer, *ready, *go):
        os.close(descriptor)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    succeeded, result = pickle.loads(data)  # noqa: S301 - from our own child
    if not succeeded:
        raise result
    return result  # type: ignore[no-any-return]


def refusal(document: dict[str, Any], **options: Any) -> str:
    """Give what is said, with the remedy, of a Spec that is refused."""
    with pytest.raises(StockadeError) as failed:
        run(document, **options)
    return f"{failed.value}; {failed.value.hint}"


def inside(done: Done) -> dict[str, mountinfo.Mount]:
    """Give the mounts that the container saw by their mount point; of several the last."""
    assert done.code == 0, done.err
    return {mount.mount_point: mount for mount in mountinfo.parse(done.out)}


def bind(source: Path | str, destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": list(options)}


def tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def in_arena(function: Callable[[], Any]) -> Any:
    return arena.run(function)
