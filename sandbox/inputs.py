"""What a plan needs opened before it is walked: the descriptors, in the plan's order, and who closes them."""

from __future__ import annotations

import errno
import os

from stockade.errors import StockadeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from stockade.sandbox.cgroups import Cgroup
    from stockade.sandbox.plan import Plan

OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, AT_EMPTY_PATH, AT_RECURSIVE = 1, 0o2000000, 0x1000, 0x8000
MFD_CLOEXEC, MFD_NOEXEC_SEAL = 1, 8


def placement(cgroup: Cgroup | None) -> dict[str, Any]:
    """Give the options that say where the launcher puts the process."""
    if cgroup is None:
        return {"procs": (), "cgroup": False, "freezer": False}
    v1 = tuple(group.path for group in cgroup.groups if group.hierarchy.version == 1)
    return {"procs": v1, "cgroup": cgroup.directory is not None, "freezer": cgroup.freezer is not None}


def inputs(
    the_plan: Plan, streams: Sequence[int], cgroup: Cgroup | None, process: int = -1
) -> tuple[list[int], list[int]]:
    """Open what the plan needs: all descriptors in order, and those of them to close afterwards.

    `process` is the pidfd of the process that is joined. OSError, StockadeError.
    """
    given: list[int] = []
    opened: list[int] = []
    procs = iter(cgroup.procs if cgroup else ())  # v1 first, as in `placement`
    directory, freezer = (cgroup.directory, cgroup.freezer) if cgroup else (None, None)
    what = ""
    try:
        for wanted in the_plan.inputs:
            what = f"{wanted.kind} {wanted.path}"
            if wanted.kind in {"stdin", "stdout", "stderr"}:
                given.append(streams[("stdin", "stdout", "stderr").index(wanted.kind)])
            elif wanted.kind == "process":
                given.append(process)
            elif wanted.kind == "procs":
                given.append(next(procs))
            elif wanted.kind == "cgroup" and directory is not None:
                given.append(directory)
            elif wanted.kind == "freezer" and freezer is not None:
                given.append(freezer)
            else:
                opened.append(_open(wanted.kind, wanted.path))
                given.append(opened[-1])
    except OSError as error:
        close(opened)
        raise StockadeError(
            f"{what}: {error.strerror}", hint="the path must exist, and root must be able to reach it"
        ) from error
    return given, opened


def _open(kind: str, path: str) -> int:
    """Give a namespace file, or a detached copy of the mounts at a path: opened once, never looked up by name again."""
    if kind == "namespace":
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if kind == "state":
        return memory_file(kind)
    from stockade.sandbox.linux import calls_mount

    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if kind == "tree" else 0)
        return calls_mount.open_tree(place, "", flags)
    finally:
        os.close(place)


def memory_file(name: str, data: bytes = b"") -> int:
    """Give a memfd with `data`, at its beginning, memfd_create(2)."""
    try:
        descriptor = os.memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create(name, MFD_CLOEXEC)  # before Linux 6.3
    fill(descriptor, data)
    return descriptor


def fill(descriptor: int, data: bytes) -> None:
    """Write `data` to the beginning of a file and leave its offset there."""
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], done)


def close(descriptors: list[int]) -> None:
    """Close them all and empty the list, so that none is closed twice when an interrupt comes between."""
    while descriptors:
        os.close(descriptors.pop())


def give(pipe: int, owner: tuple[int, int]) -> None:
    """Let every user of the container open the pipe by name, who has it anyway, and its root change the owner.

    Servers start as root, open /dev/stdout as another user, or chown(2) it to one, as nginx does when it reopens logs.
    """
    os.fchmod(pipe, 0o666)
    if owner[0] != os.geteuid():
        os.fchown(pipe, *owner)
