"""A small machine of its own, for tests that must account for all that is left: `arena.run(function)`.

Other containers run on the real machine. An arena has a PID namespace and a mount namespace of its own, an empty
/run/stockade and /run/user, and a control group of its own in every hierarchy: what is there afterwards was left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from stockade.sandbox.linux import calls, cgroups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
PR_SET_PDEATHSIG = 1
KILLED = 1 << (signal.SIGKILL - 1)
USER_RUNTIME = "/run/user/{}"
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2), for tests that change their own mount namespace."""
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)
    if _libc.mount(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def private_mounts() -> None:
    """Take a mount namespace of one's own: nothing that is mounted from here on reaches the host."""
    calls.unshare(CLONE_NEWNS)
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def own_groups() -> dict[str, str]:
    """Give our own control group in each hierarchy: mount point → directory."""
    own = cgroups.membership()
    found = {}
    for hierarchy in cgroups.layout().hierarchies:
        key = "" if hierarchy.version == 2 else hierarchy.controllers[0]
        path = hierarchy.path(own[key]) if key in own else None
        if path:
            found[hierarchy.directory] = path
    return found


def groups_below(directories: list[str]) -> list[str]:
    return sorted(
        os.path.join(top, name) for directory in directories for top, names, _ in os.walk(directory) for name in names
    )


def run(function: Callable[[], T], *, uid: int = 0) -> T:
    """Give the function's result, or raise its exception (both are pickled). `uid` gets an empty XDG_RUNTIME_DIR."""
    reader, writer = os.pipe()
    groups = _make_groups()
    try:
        child = os.fork()
        if child == 0:
            os.close(reader)
            _outside(function, writer, groups, uid)
        os.close(writer)
        try:
            with os.fdopen(reader, "rb") as pipe:
                answer = pipe.read()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    finally:
        _remove_groups(groups)
    assert answer, "the arena died"
    succeeded, result = pickle.loads(answer)  # noqa: S301 - from our own child
    if not succeeded:
        raise result
    return result  # type: ignore[no-any-return]


def _make_groups() -> list[str]:
    made = []
    for mount_point, own in own_groups().items():
        group = f"{own}/arena-{os.getpid()}"
        os.mkdir(group)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if mount_point.endswith("cpuset"):
                with open(f"{own}/{file}") as source, open(f"{group}/{file}", "w") as target:
                    target.write(source.read())
        made.append(group)
    return made


def _remove_groups(groups: list[str]) -> None:
    deadline = time.monotonic() + 5
    for directory in sorted([*groups, *groups_below(groups)], key=len, reverse=True):
        while os.path.isdir(directory):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
            assert time.monotonic() < deadline, f"{directory} can't be removed"


def _outside(function: Callable[[], Any], writer: int, groups: list[str], uid: int) -> None:
    """Become the parent of process 1 of the arena, and end with it."""
    try:
        calls.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for group in groups:
            with open(f"{group}/cgroup.procs", "w") as procs:
                procs.write("0")
        calls.unshare(CLONE_NEWPID)
        private_mounts()
        first = os.fork()
        if first == 0:
            _first(function, writer, uid)
        os.close(writer)
        os.waitpid(first, 0)
    finally:
        os._exit(0)


def _first(function: Callable[[], Any], writer: int, uid: int) -> None:
    """Process 1: reap orphans until the function has ended; the kernel kills the rest then."""
    try:
        calls.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        mount("proc", "/proc", "proc")
        for directory in ("/run/stockade", "/run/user"):
            os.makedirs(directory, exist_ok=True)
            mount("arena", directory, "tmpfs", data="mode=0755" if directory == "/run/user" else "mode=0700")
        if uid:
            os.mkdir(USER_RUNTIME.format(uid), 0o700)
            os.chown(USER_RUNTIME.format(uid), uid, uid)
        second = os.fork()
        if second == 0:
            _answer(function, writer)
        os.close(writer)
        while os.waitpid(-1, 0)[0] != second:
            pass
    finally:
        os._exit(0)


def _answer(function: Callable[[], Any], writer: int) -> None:
    try:
        try:
            answer = pickle.dumps((True, function()))
        except BaseException as error:  # noqa: BLE001 - a failed assert too is told by the parent
            answer = pickle.dumps((False, AssertionError(f"{error!r}\n{traceback.format_exc()}")))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    name: str
    state: str
    killed: bool

    @property
    def lives(self) -> bool:
        """Tell whether it runs on: neither ended nor about to, with SIGKILL pending."""
        return self.state not in "ZX" and not self.killed


def processes() -> Iterator[Process]:
    """Give every process of the arena but the first and the test itself."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in {1, os.getpid()}:
            continue
        try:
            with open(f"/proc/{entry}/status", errors="replace") as file:
                fields = dict(line.split(":", 1) for line in file if ":" in line)
        except OSError:
            continue
        killed = (int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)) & KILLED
        yield Process(int(entry), int(fields["PPid"]), fields["Name"].strip(), fields["State"].split()[0], bool(killed))


def survivors(seconds: float = 1.0) -> list[Process]:
    """Wait until nothing of the arena lives; give what still does after so many seconds."""
    deadline = time.monotonic() + seconds
    while living := [process for process in processes() if process.lives]:
        if time.monotonic() > deadline:
            return living
        time.sleep(0.005)
    return []


def launcher_of(supervisor: int) -> int | None:
    """Find the launcher of a supervisor: its first child from the memfd."""
    for process in sorted(processes(), key=lambda process: process.pid):
        if process.parent == supervisor and process.lives:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/exe").startswith("/memfd:stockade-init"):
                    return process.pid
    return None


@dataclass(frozen=True)
class Left:
    """What can be left behind. Two of them are compared."""

    processes: list[str]
    groups: list[str]
    mounts: list[str]
    namespaces: list[str]
    records: list[str]


def left() -> Left:
    """Look at everything in the arena, after giving what is dying a moment."""
    deadline = time.monotonic() + 2
    while list(processes()) and time.monotonic() < deadline:
        time.sleep(0.005)
    namespaces = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                namespaces |= {os.readlink(f"/proc/{entry}/ns/{kind}") for kind in os.listdir(f"/proc/{entry}/ns")}
    with open("/proc/self/mountinfo") as file:
        mounts = sorted(line.split(" ", 3)[3] for line in file)
    records = [
        os.path.join(top, name)
        for directory in ("/run/stockade", "/run/user")
        for top, folders, files in os.walk(directory)
        for name in (*folders, *files)
        if name != "names" and (top != "/run/user" and name != "stockade")
    ]
    return Left(
        sorted(f"{process.name} {process.state}" for process in processes()),
        groups_below(list(own_groups().values())),
        mounts,
        sorted(namespaces),
        sorted(records),
    )
