"""File status that never waits for a remote or a user-space file system, statx(2).

An auditor looks at files that a hostile container chose. stat(2) on a file of its FUSE mount asks its server, which
need not answer; with AT_STATX_DONT_SYNC the kernel tells what it has. statx also tells the mount of a file.
"""

from __future__ import annotations

import ctypes
import struct

from stockade.sandbox.linux.calls_base import MACHINE, fspath, syscall
from stockade.sandbox.linux.record import Record

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000

STATX_BASIC_STATS = 0x7FF
STATX_MNT_ID = 0x1000

_NUMBER = 332 if MACHINE == "x86_64" else 291
# include/uapi/linux/stat.h: mask; uid, gid, mode, ino from 20 on; rdev, dev, mnt_id from 128 on
_FIELDS = struct.Struct("=I16xIIH2xQ88xIIIIQ")
_SIZE = 256


class Statx(Record):
    """What the kernel told. `mount` is mountinfo's id, None before Linux 5.8; `mode` has the type's bits."""

    mode: int
    uid: int
    gid: int
    inode: int
    rdev: tuple[int, int]
    dev: tuple[int, int]
    mount: int | None


def statx(dirfd: int, path: str | bytes, flags: int = 0, mask: int = STATX_BASIC_STATS | STATX_MNT_ID) -> Statx:
    """Give the status of a file; AT_STATX_DONT_SYNC and AT_NO_AUTOMOUNT are always set. Raises OSError."""
    buffer = ctypes.create_string_buffer(_SIZE)
    wanted = flags | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT
    syscall(_NUMBER, dirfd, fspath(path), wanted, mask, buffer, path=path)
    told, uid, gid, mode, inode, rmajor, rminor, major, minor, mount = _FIELDS.unpack_from(buffer)
    return Statx(mode, uid, gid, inode, (rmajor, rminor), (major, minor), mount if told & STATX_MNT_ID else None)


def of(path: str | bytes, *, follow: bool = True) -> Statx:
    """Give the status of the file at a path, of a last symbolic link itself unless `follow`."""
    return statx(AT_FDCWD, path, 0 if follow else AT_SYMLINK_NOFOLLOW)
