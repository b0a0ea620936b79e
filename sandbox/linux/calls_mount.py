"""System calls about mounts, by path and (since Linux 5.2) by descriptor; the manual has each in section 2."""

from __future__ import annotations

import ctypes
import os

from stockade.sandbox.linux.calls_base import fspath, syscall
from stockade.sandbox.linux.calls_constants import (
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FD,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    FSMOUNT_CLOEXEC,
    FSOPEN_CLOEXEC,
    FSPICK_CLOEXEC,
    OPEN_TREE_CLOEXEC,
)

__all__ = [
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "new_mount",
    "open_tree",
    "pivot_root",
    "umount2",
]


def mount(
    source: str | None, target: str, filesystemtype: str | None, mountflags: int, data: str | None = None
) -> None:
    """Mount by path, the way before Linux 5.2. Raises OSError with the target."""
    encoded = [None if text is None else fspath(text) for text in (source, target, filesystemtype, data)]
    syscall("mount", *encoded[:3], mountflags, encoded[3], path=target)


def umount2(target: str, flags: int = 0) -> None:
    """Unmount by path; MNT_DETACH, UMOUNT_NOFOLLOW. Raises OSError with the target."""
    syscall("umount2", fspath(target), flags, path=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make a mount the root directory. With "." twice the old root lies over the new one and is detached next."""
    syscall("pivot_root", fspath(new_root), fspath(put_old), path=new_root)


def open_tree(dirfd: int, path: str | bytes, flags: int) -> int:
    """Give a descriptor of a mount; with OPEN_TREE_CLONE (and AT_RECURSIVE) of a detached copy of it."""
    return syscall("open_tree", dirfd, fspath(path), flags | OPEN_TREE_CLOEXEC, path=path)


def move_mount(from_dirfd: int, from_path: str | bytes, to_dirfd: int, to_path: str | bytes, flags: int) -> None:
    """Attach a mount; MOVE_MOUNT_F_EMPTY_PATH and _T_EMPTY_PATH take the descriptors themselves."""
    source, target = fspath(from_path), fspath(to_path)
    syscall("move_mount", from_dirfd, source, to_dirfd, target, flags, path=to_path)


def fsopen(fsname: str, flags: int = 0) -> int:
    """Give a descriptor of a file system to be configured. ENODEV: the kernel has no such type."""
    return syscall("fsopen", fspath(fsname), flags | FSOPEN_CLOEXEC, path=fsname)


def fspick(dirfd: int, path: str | bytes, flags: int) -> int:
    """Give a descriptor of the file system of a mount, to be reconfigured. Close-on-exec is always set."""
    return syscall("fspick", dirfd, fspath(path), flags | FSPICK_CLOEXEC, path=path)


def fsconfig(fd: int, cmd: int, key: str | None = None, value: str | bytes | None = None, aux: int = 0) -> None:
    """Set an option (FSCONFIG_SET_*) or create the file system. Raises OSError with the key."""
    encoded = None if key is None else fspath(key)
    raw = None if value is None else fspath(value)
    syscall("fsconfig", fd, cmd, encoded, raw, aux, path=key)


def fsmount(fd: int, flags: int = 0, attr_flags: int = 0) -> int:
    """Give the detached mount of a created file system, with MOUNT_ATTR_* flags."""
    return syscall("fsmount", fd, flags | FSMOUNT_CLOEXEC, attr_flags)


class _MountAttr(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def mount_setattr(  # noqa: PLR0917 - the kernel's arguments
    dirfd: int,
    path: str | bytes,
    flags: int,
    attr_set: int,
    attr_clr: int,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change the flags of a mount, with AT_RECURSIVE of the whole tree under it, or of none of it."""
    attributes = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    size = ctypes.sizeof(attributes)
    syscall("mount_setattr", dirfd, fspath(path), flags, attributes, size, path=path)


def new_mount(fsname: str, options: dict[str, str | int | None], attr_flags: int = 0) -> int:
    """Give a detached mount of a new file system: fsopen, fsconfig for each option, fsmount.

    An option's value is a string, a descriptor, or None for a flag. Raises OSError that names the option or the type.
    """
    fd = fsopen(fsname)
    try:
        for key, value in options.items():
            if value is None:
                fsconfig(fd, FSCONFIG_SET_FLAG, key)
            elif isinstance(value, int):
                fsconfig(fd, FSCONFIG_SET_FD, key, None, value)
            else:
                fsconfig(fd, FSCONFIG_SET_STRING, key, value)
        fsconfig(fd, FSCONFIG_CMD_CREATE)
        return fsmount(fd, 0, attr_flags)
    finally:
        os.close(fd)
