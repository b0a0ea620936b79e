"""Open descriptors, working directory and program, and whether they lie outside the mounts (CVE-2024-21626).

A file that was opened before the process entered its mount namespace lies on a mount that its mountinfo does not list.
Files are looked at with statx only, which does not wait for a FUSE file system of the container's.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from stockade.audit import facts
from stockade.audit.facts import Where
from stockade.audit.targets.host import HostView
from stockade.sandbox.linux import procfs, statx
from stockade.sandbox.linux.mountinfo import Mount

#: descriptors that are looked at, of one process
MOST = 4096
# c 1:3 null, 1:5 zero, 1:7 full, 1:8 random, 1:9 urandom, 5:0 tty, 5:1 console, 5:2 ptmx; majors of terminals
_HARMLESS = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})
_TERMINALS = frozenset({4, *range(136, 144)})
_NAMESPACES = ("user:[", "pid:[", "mnt:[", "net:[", "ipc:[", "uts:[", "cgroup:[", "time:[")

Kind = Literal["directory", "file", "device", "socket", "netlink", "namespace", "other"]


class Place(NamedTuple):
    """Where a container stands: its mounts by id and by device, its namespaces by kind."""

    mounts: frozenset[int]
    devices: frozenset[tuple[int, int]]
    inodes: dict[str, int]

    def including(self, own: tuple[Mount, ...], inodes: dict[str, int]) -> "Place":
        """Add the mounts of a mount namespace that is nested in the container's."""
        return Place(
            self.mounts | {mount.id for mount in own},
            self.devices | {(mount.major, mount.minor) for mount in own},
            inodes or self.inodes,
        )


class Held(NamedTuple):
    """What a process holds open. `sockets` are (descriptor, inode); `gap` says why one of them is unknown."""

    facts: tuple[facts.OpenDescriptor, ...]
    sockets: tuple[tuple[int, int], ...]
    gap: str = ""


def look(pid: int, place: Place, host: HostView) -> Held:
    """Give what lies outside its mounts or is worth a look, all of its directories, and its sockets.

    Raises PermissionError without ptrace access, ProcessLookupError when it has gone.
    """
    found: list[facts.OpenDescriptor] = []
    sockets: list[tuple[int, int]] = []
    gap = ""
    for name in procfs.names(pid, "fd")[:MOST]:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                sockets.append((int(name), int(target[8:-1])))
            fact = _descriptor(pid, int(name), target, place, host)
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed since the listing
        except OSError as error:
            # One that can't be told (a stale file of a server) must not hide the others.
            gap = gap or f"descriptor {name} of process {pid}: {error.strerror}"
            continue
        if fact:
            found.append(fact)
    return Held(tuple(found), tuple(sockets), gap)


def _descriptor(pid: int, number: int, target: str, place: Place, host: HostView) -> facts.OpenDescriptor | None:
    if target.startswith("/"):
        return _file(pid, number, target, place, host)
    kind: Kind
    if target.startswith(_NAMESPACES):
        space, _, inode = target[:-1].partition(":[")
        kind, outside = "namespace", int(inode) != place.inodes.get(space) and host.is_host(space, int(inode))
    elif target.startswith("socket:[") and int(target[8:-1]) in host.netlink:
        kind, outside = "netlink", host.is_host("net", place.inodes.get("net", 0)) is False
    else:
        return None  # pipes, sockets, anonymous inodes: nothing of the host's
    where = Where(f"/proc/{pid}/fd/{number}")
    return facts.OpenDescriptor(
        where=where, fd=number, target=target, kind=kind, outside=outside if host.trusted else None, pid=pid
    )


def _file(pid: int, number: int, target: str, place: Place, host: HostView) -> facts.OpenDescriptor | None:
    path = f"/proc/{pid}/fd/{number}"
    status = statx.of(path)
    kind = _kind(status)
    outside = _outside(status, place, host)
    if kind == "device" and (status.rdev in _HARMLESS or status.rdev[0] in _TERMINALS) and stat.S_ISCHR(status.mode):
        return None
    if not outside and kind not in {"directory", "device"}:
        return None
    return facts.OpenDescriptor(
        where=Where(path),
        fd=number,
        target=target,
        kind=kind,
        writable=_writable(pid, number),
        outside=outside,
        pid=pid,
    )


def _kind(status: statx.Statx) -> Kind:
    kinds: dict[int, Kind] = {
        stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFCHR: "device", stat.S_IFBLK: "device",
        stat.S_IFSOCK: "socket",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(status.mode), "other")


def _outside(status: statx.Statx, place: Place, host: HostView) -> bool | None:
    """Say whether a file lies on none of the container's mounts; None before Linux 5.8, which doesn't tell."""
    if status.mount is None:
        return None
    if status.mount in place.mounts:
        return False
    # memfd_create(2), SysV memory and the like live on mounts inside the kernel that nobody lists.
    return stat.S_ISDIR(status.mode) or status.dev in host.by_device or status.dev in place.devices


def _writable(pid: int, number: int) -> bool | None:
    for line in procfs.read(pid, f"fdinfo/{number}").split(b"\n"):
        if line.startswith(b"flags:"):
            flags = int(line[6:], 8)
            return flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_PATH
    return None


def engine_sockets(
    pid: int, inodes: Iterable[tuple[int, int]], peers: dict[int, int], host: HostView
) -> Iterator[facts.EngineSocket]:
    """Find sockets that are connected to an engine. `inodes` are (descriptor, inode) of a process's sockets."""
    for number, inode in inodes:
        end = host.engine_ends.get(inode) or host.engine_ends.get(peers.get(inode, 0))
        if end:
            path, engine = end
            where = Where(f"/proc/{pid}/fd/{number}")
            yield facts.EngineSocket(
                where=where, path=path, engine=engine, via="descriptor", host_path=path, permitted=True
            )


def working_directory(pid: int, place: Place, host: HostView) -> facts.WorkingDirectory | None:
    """Give the working directory, None where the kernel doesn't tell its mount. Raises as `look` does."""
    path = f"/proc/{pid}/cwd"
    status = statx.of(path)
    outside = _outside(status, place, host)
    if outside is None:
        return None
    return facts.WorkingDirectory(where=Where(path), path=procfs.link(pid, "cwd"), outside=outside)


def executable(pid: int, place: Place, host: HostView) -> facts.Executable:
    """Give the program of a process. Raises FileNotFoundError for a kernel thread and a zombie, else as `look` does.

    A program in a memfd, as container runtimes start themselves, is no file of the host's and was not deleted either.
    """
    path = f"/proc/{pid}/exe"
    target = procfs.link(pid, "exe")
    deleted = target.endswith(" (deleted)") and not target.startswith("/memfd:")
    return facts.Executable(
        where=Where(path), path=target, outside=_outside(statx.of(path), place, host), deleted=deleted, pid=pid
    )
