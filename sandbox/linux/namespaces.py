"""Namespaces of processes and who owns them, namespaces(7) and ioctl_nsfs(2)."""

from __future__ import annotations

import os

from stockade.sandbox.linux import procfs

#: the names of /proc/PID/ns
KINDS: tuple[str, ...] = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time")

#: /proc's name → the OCI runtime specification's
TO_OCI: dict[str, str] = {kind: {"mnt": "mount", "net": "network"}.get(kind, kind) for kind in KINDS}
#: the OCI runtime specification's name → /proc's
FROM_OCI: dict[str, str] = {oci: kind for kind, oci in TO_OCI.items()}

#: the CLONE_NEW* flag of each kind, sched.h
FLAGS: dict[str, int] = {
    "user": 0x10000000,
    "pid": 0x20000000,
    "mnt": 0x00020000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}

#: inode numbers of the namespaces the kernel boots with (include/uapi/linux/nsfs.h). The first six are as old as their
#: kinds; net and mnt have a fixed number since 6.18 only, so for them "another number" proves nothing before that.
INITIAL: dict[str, int] = {
    "ipc": 0xEFFFFFFF,
    "uts": 0xEFFFFFFE,
    "user": 0xEFFFFFFD,
    "pid": 0xEFFFFFFC,
    "cgroup": 0xEFFFFFFB,
    "time": 0xEFFFFFFA,
    "net": 0xEFFFFFF9,
    "mnt": 0xEFFFFFF8,
}

_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702
_NS_GET_NSTYPE = 0xB703
_NS_GET_OWNER_UID = 0xB704

#: device and inode of a namespace: equal for processes that share it, namespaces(7)
Identity = tuple[int, int]


def inode(pid: int | str, kind: str) -> Identity:
    """Give (device, inode) of a process's namespace of a KIND.

    Raises ProcessLookupError; FileNotFoundError for a kind that this kernel lacks, and for a zombie; PermissionError
    without ptrace access to the process.
    """
    path = f"{procfs.PROC}/{pid}/ns/{kind}"
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise procfs.gone_or_missing(pid, path) from None
    return found.st_dev, found.st_ino


def of(pid: int | str) -> dict[str, Identity]:
    """Give the identity of each namespace of a process that this kernel has. Raises as inode() does."""
    return {kind: inode(pid, kind) for kind in KINDS if supported(kind)}


def supported(kind: str) -> bool:
    """Whether this kernel has namespaces of a kind."""
    if kind not in _supported:
        _supported[kind] = os.path.exists(f"{procfs.PROC}/self/ns/{kind}")
    return _supported[kind]


_supported: dict[str, bool] = {}


def for_children(pid: int | str, kind: str) -> Identity:
    """Give the "pid" or "time" namespace of a process's future children, which unshare(2) makes differ from its own."""
    return inode(pid, f"{kind}_for_children")


def open(pid: int | str, kind: str) -> int:
    """Give a descriptor, close-on-exec, that keeps a process's namespace alive. Raises as inode() does."""
    path = f"{procfs.PROC}/{pid}/ns/{kind}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise procfs.gone_or_missing(pid, path) from None


def kind(descriptor: int) -> str:
    """Give the KIND of the namespace behind a descriptor. Raises OSError(ENOTTY) when it is no namespace."""
    flag = _ioctl(descriptor, _NS_GET_NSTYPE)
    for name, value in FLAGS.items():
        if value == flag:
            return name
    raise ValueError(f"unknown kind of namespace {flag:#x}")


def owner(descriptor: int) -> int:
    """Give a descriptor of the user namespace that owns a namespace.

    Raises PermissionError where that lies outside the caller's own user namespace.
    """
    return _ioctl(descriptor, _NS_GET_USERNS)


def parent(descriptor: int) -> int:
    """Give a descriptor of the parent of a user or pid namespace. PermissionError beyond the caller's own namespace."""
    return _ioctl(descriptor, _NS_GET_PARENT)


def owner_uid(descriptor: int) -> int:
    """Give the uid, in the caller's user namespace, of whoever made a user namespace; 65534 when it is not mapped."""
    import array
    import fcntl

    uid = array.array("I", [0])
    fcntl.ioctl(descriptor, _NS_GET_OWNER_UID, uid)
    return uid[0]


def owner_of(pid: int | str, kind: str) -> Identity | None:
    """Give the identity of the user namespace that owns a process's namespace; for "user", of its parent.

    None where the kernel will not say since the owner lies outside the caller's user namespace. Capabilities of the
    owner (and of those above it) count for what the namespace holds. Raises as inode() does.
    """
    descriptor = open(pid, kind)
    try:
        outer = parent(descriptor) if kind == "user" else owner(descriptor)
    except PermissionError:
        return None
    finally:
        os.close(descriptor)
    try:
        found = os.fstat(outer)
        return found.st_dev, found.st_ino
    finally:
        os.close(outer)


def _ioctl(descriptor: int, request: int) -> int:
    import fcntl

    return fcntl.ioctl(descriptor, request)
