"""Directories of control groups, by descriptor: make, write and read back, list, remove.

Every step is relative to an open directory, so that a group that is renamed, replaced or removed meanwhile can't
lead a write elsewhere. Functions raise OSError with the path.
"""

from __future__ import annotations

import errno
import os
import time

from stockade.sandbox.linux import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PAUSE = 0.0005  # seconds between two looks at a group that is emptying


def open_directory(path: str, *, dir_fd: int | None = None) -> int:
    """Open a group's directory; there are no symbolic links in a cgroup file system, and none is followed."""
    return os.open(path, _DIRECTORY, dir_fd=dir_fd)


def write(fd: int, file: str, text: str) -> None:
    """Put one value into a file of a group at once, as the kernel wants it; the file is never created."""
    target = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.write(target, text.encode())
    except OSError as error:
        error.filename = file
        raise
    finally:
        os.close(target)


def read(fd: int, file: str) -> str:
    """Read one file of a group."""
    return cgroups.read_text(file, dir_fd=fd)


def has(fd: int, file: str) -> bool:
    """Whether a group has a file."""
    return os.access(file, os.F_OK, dir_fd=fd)


def open_procs(fd: int) -> int:
    """Open cgroup.procs of a group for a writer; a pid written to it moves that process."""
    return os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)


def split(name: str) -> tuple[str, ...]:
    """Give the components of a group's name; ValueError for one that would leave its parent or isn't a name."""
    parts = tuple(part for part in name.split("/") if part)
    if not parts or any(part in {".", ".."} or "\n" in part or "\0" in part for part in parts):
        raise ValueError(f"{name!r} is not the name of a control group")
    return parts


def make(base: int, parts: tuple[str, ...], *, cpuset: bool = False, enable: str = "") -> int:
    """Make a group below `base` and give its directory. The last part is new; a stale empty one is replaced.

    `cpuset` copies a v1 parent's CPUs and nodes at each step, without which a v1 cpuset admits no process. `enable` is
    written to cgroup.subtree_control of each parent below the base (cgroup2). EBUSY if the group exists and is in use.
    """
    for attempt in range(8):
        try:
            return _make_once(base, parts, cpuset=cpuset, enable=enable)
        except FileNotFoundError:  # someone removed an empty parent between our two steps
            if attempt == 7:
                raise
    raise AssertionError


def _make_once(base: int, parts: tuple[str, ...], *, cpuset: bool, enable: str) -> int:
    current = open_directory(".", dir_fd=base)
    try:
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            _make_directory(current, part, fresh=last)
            child = open_directory(part, dir_fd=current)
            parent, current = current, child
            try:
                if cpuset:
                    _inherit_cpuset(parent, current)
            finally:
                os.close(parent)
            if enable and not last:
                write(current, "cgroup.subtree_control", enable)
    except BaseException:
        os.close(current)
        raise
    return current


def _make_directory(parent: int, part: str, *, fresh: bool) -> None:
    try:
        os.mkdir(part, 0o755, dir_fd=parent)
    except FileExistsError:
        if fresh:  # counters and limits of an earlier user don't count for this one
            os.rmdir(part, dir_fd=parent)
            os.mkdir(part, 0o755, dir_fd=parent)


def _inherit_cpuset(parent: int, child: int) -> None:
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not read(child, file).strip():
            write(child, file, read(parent, file).strip())


def children(fd: int) -> list[str]:
    """List the groups in a group; none when it is gone."""
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def walk(top: int) -> Iterator[int]:
    """Yield the directory of each group in a tree, children first, `top` last; descriptors are closed on the way.

    A payload may nest groups as deep as it likes, so only one descriptor is open at a time, and the way up is "..",
    which cannot leave the tree: the kernel lets no cgroup move to another parent.
    """
    current = open_directory(".", dir_fd=top)  # not dup(2), which shares the offset with another thread's listing
    pending = [children(current)]
    try:
        while True:
            if pending[-1]:
                name = pending[-1].pop()
                try:
                    current = _step(current, name)
                except FileNotFoundError:
                    continue
                pending.append(children(current))
                continue
            yield current
            pending.pop()
            if not pending:
                return
            current = _step(current, "..")
    finally:
        os.close(current)


def _step(current: int, name: str) -> int:
    following = open_directory(name, dir_fd=current)
    os.close(current)
    return following


def members(fd: int) -> list[int]:
    """List the processes of one group alone, by their pids here."""
    return [int(line) for line in _read_all(fd, "cgroup.procs").split()]


def processes(top: int) -> list[int]:
    """List the processes of a group and of all groups in it, by their pids here (0: one that is not seen from here)."""
    pids: list[int] = []
    for fd in walk(top):
        try:
            pids += members(fd)
        except OSError as error:
            # EOPNOTSUPP: a threaded group of v2, whose processes are listed by the domain above it
            if not cgroups.gone(error) and error.errno != errno.EOPNOTSUPP:
                raise
    return pids


def _read_all(fd: int, file: str) -> bytes:
    source = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
    try:
        pieces = []
        while piece := os.read(source, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(source)


def prune(top: int, deadline: float) -> None:
    """Remove every group in a group, whatever its depth, but not the group itself; EBUSY when `deadline` passes."""
    current = open_directory(".", dir_fd=top)  # not dup(2), which shares the offset with another thread's listing
    pending: list[tuple[str, list[str]]] = [("", children(current))]
    try:
        while True:
            name, rest = pending[-1]
            if rest:
                child = rest.pop()
                try:
                    current = _step(current, child)
                except FileNotFoundError:
                    continue
                pending.append((child, children(current)))
                continue
            pending.pop()
            if not pending:
                return
            current = _step(current, "..")
            remove(current, name, deadline)
    finally:
        os.close(current)


def remove(parent: int, name: str, deadline: float) -> None:
    """Remove one group. A group stays busy for a moment after its last process died: retry until `deadline`."""
    while True:
        try:
            os.rmdir(name, dir_fd=parent)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                error.filename = name
                raise
        time.sleep(PAUSE)
