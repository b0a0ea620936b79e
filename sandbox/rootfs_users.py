"""Reads /etc/passwd and /etc/group of a root file system that may be hostile.

A FIFO there makes four runtimes hang, a gigabyte eats the memory of others: so they are opened without blocking and
without following links out of the root, must be regular files, and have a size limit.
"""

from __future__ import annotations

import errno
import os
import stat

from stockade.errors import UsageError
from stockade.sandbox.users import MAX_BYTES

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def read_users(rootfs: str) -> tuple[bytes | None, bytes | None]:
    """Give the contents of a rootfs's /etc/passwd and /etc/group, None for what is not there or can't be read.

    Raises UsageError for a rootfs that can't be opened and for a file that is no regular file or too big.
    """
    try:
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        hint = "--rootfs takes a directory with an unpacked root file system in it"
        if isinstance(error, PermissionError):
            hint = f"whoever starts it must be able to search every directory on the way: see namei -l {rootfs}"
        raise UsageError(f"rootfs {rootfs}: {why}", hint=hint) from None
    try:
        return _read(root, "passwd", rootfs), _read(root, "group", rootfs)
    finally:
        os.close(root)


def _read(root: int, name: str, rootfs: str) -> bytes | None:
    try:
        place = _find(root, name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return None
        raise UsageError(f"rootfs {rootfs}: /etc/{name}: {error.strerror}") from None
    try:
        status = os.fstat(place)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(
                f"rootfs {rootfs}: /etc/{name} is not a regular file",
                hint="take it away, or use another root file system",
            )
        if status.st_size > MAX_BYTES:
            raise UsageError(f"rootfs {rootfs}: /etc/{name} has {status.st_size} bytes, the limit is {MAX_BYTES}")
        return _content(place)
    finally:
        os.close(place)


def _content(place: int) -> bytes | None:
    """Read the file behind an O_PATH descriptor: the link of our own /proc leads to the file that was looked at."""
    try:
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return None
    try:
        data = piece = os.read(descriptor, MAX_BYTES)
        while piece and len(data) < MAX_BYTES:
            piece = os.read(descriptor, MAX_BYTES - len(data))
            data += piece
        return data
    finally:
        os.close(descriptor)


def _find(root: int, name: str) -> int:
    """Give an O_PATH descriptor of etc/`name` below `root`; two opens that follow no link suffice for most."""
    try:
        etc = os.open("etc", _PLACE | os.O_DIRECTORY, dir_fd=root)
    except NotADirectoryError:
        etc = -1
    if etc >= 0:
        try:
            place = os.open(name, _PLACE, dir_fd=etc)
        finally:
            os.close(etc)
        if not stat.S_ISLNK(os.fstat(place).st_mode):
            return place
        os.close(place)
    from stockade.sandbox.linux.paths import open_in_root

    # One of the two is a link, as in images that keep /etc in a store: followed, but only inside the root.
    return open_in_root(root, f"etc/{name}", os.O_PATH)
