"""Reads of /proc/PID that tell a vanished process from a missing file, proc(5).

Every reader below sandbox/linux goes through here. A process can go at any moment: open then says ENOENT and
read says ESRCH, and both arrive as ProcessLookupError. A file that this kernel does not have stays FileNotFoundError.
"""

from __future__ import annotations

import errno
import os

PROC = "/proc"

_CHUNK = 1 << 16


def read(pid: int | str, name: str, *, limit: int = 1 << 26) -> bytes:
    """Give the whole of /proc/`pid`/`name`; `pid` may be "self", "thread-self" or "12/task/13".

    Raises ProcessLookupError when the process has gone, PermissionError, FileNotFoundError when the kernel has no such
    file, and OSError(EFBIG) beyond `limit` bytes.
    """
    path = f"{PROC}/{pid}/{name}"
    try:
        return read_path(path, limit=limit)
    except FileNotFoundError:
        raise gone_or_missing(pid, path) from None


def read_text(pid: int | str, name: str) -> str:
    """Give /proc/`pid`/`name` as text in which bytes that are not UTF-8 survive as surrogates, like os.fsdecode."""
    return read(pid, name).decode("utf-8", "surrogateescape")


def read_path(path: str, *, limit: int = 1 << 26) -> bytes:
    """Give the whole of a file of procfs or sysfs, whose st_size is 0 and whose reads come in pieces."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        pieces, size = [], 0
        while piece := os.read(descriptor, _CHUNK):
            size += len(piece)
            if size > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            pieces.append(piece)
        return b"".join(pieces)
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise
    finally:
        os.close(descriptor)


def link(pid: int | str, name: str) -> str:
    """Give the target of the link /proc/`pid`/`name`, as the kernel prints it: "/x (deleted)", "net:[4026531840]".

    Raises ProcessLookupError when the process has gone, FileNotFoundError when it has no such link (a kernel thread
    has no exe).
    """
    path = f"{PROC}/{pid}/{name}"
    try:
        return os.readlink(path)
    except FileNotFoundError:
        raise gone_or_missing(pid, path) from None


def names(pid: int | str, name: str) -> tuple[str, ...]:
    """Give the entries of the directory /proc/`pid`/`name`, unsorted."""
    path = f"{PROC}/{pid}/{name}"
    try:
        return tuple(os.listdir(path))
    except FileNotFoundError:
        raise gone_or_missing(pid, path) from None


def gone_or_missing(pid: int | str, path: str) -> OSError:
    """Turn ENOENT on `path` into the error it means: the process has gone, or only that file is missing."""
    # A zombie keeps its directory but has no links: readlink of its exe or ns/* says ENOENT.
    if os.path.lexists(f"{PROC}/{pid}"):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path)
