"""Files inside a root directory that somebody else filled, and files of our own that are never half written.

A rootfs is hostile: any name in it may be a link to the host, a FIFO, a device or a gigabyte, and may change between
two looks (threats.md; CVE-2019-16884, CVE-2021-30465, CVE-2025-31133, CVE-2025-52881). So a name is resolved by the
kernel inside the root, openat2(2) with RESOLVE_IN_ROOT and without magic links, and everything after goes through the
descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: what a runtime mounts over; as links they would send its mounts elsewhere
RESERVED = ("proc", "sys", "dev")

_RESOLVE = 0x10 | 0x02  # RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
#: a rename anywhere can make openat2 say EAGAIN for a path with ".."; it gives way soon
_TRIES = 128


def open_in_root(rootfd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as a process whose root directory is `rootfd` would, and give the descriptor, close-on-exec.

    Links are followed inside the root, absolute ones and ".." too. Raises OSError: ELOOP for a magic link of procfs.
    """
    from stockade.sandbox.linux.calls import openat2

    for _ in range(_TRIES):
        try:
            return openat2(rootfd, path or ".", flags, mode, _RESOLVE)
        except BlockingIOError:
            # EAGAIN: with O_NONBLOCK it may also mean the file itself, which does not pass either
            continue
    raise OSError(errno.EAGAIN, "the directories are being renamed all the time", path)


def open_root(path: str) -> int:
    """Open a directory that will be a root; O_PATH. Raises OSError, ELOOP and ENOTDIR as check_root() does."""
    rootfd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check_root(rootfd, path)
    except OSError:
        os.close(rootfd)
        raise
    return rootfd


def check_root(rootfd: int, name: str = "") -> None:
    """Refuse a rootfs in which /proc, /sys or /dev is there and no directory: ELOOP for a link, else ENOTDIR."""
    for reserved in RESERVED:
        try:
            mode = os.stat(reserved, dir_fd=rootfd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(mode):
            reason = errno.ELOOP if stat.S_ISLNK(mode) else errno.ENOTDIR
            raise OSError(reason, os.strerror(reason), f"{name}/{reserved}")


def components(path: str) -> tuple[str, ...]:
    """Split a path below a root into its names. Raises OSError(EINVAL) for ".." and for NUL.

    What ".." means depends on links that may change, so a caller has to say what it wants without it.
    """
    names = tuple([name for name in path.split("/") if name not in ("", ".")])
    if ".." in names or "\0" in path:
        raise OSError(errno.EINVAL, "a path below the root may not hold .. or NUL", path)
    return names


def create_in_root(rootfd: int, path: str, kind: str, mode: int) -> int:
    """Make sure that `path` exists below the root as `kind` "dir" or "file", and give an O_PATH descriptor of it.

    Missing parents are made with mode 0755, the last one with `mode`, less the umask; an existing one stays as it is.
    A file may be anything but a directory: it is a place to mount on. Raises OSError: EEXIST where a dangling link is
    in the way, ENOTDIR, EISDIR, EINVAL for "..".
    """
    names = components(path)
    parent = open_in_root(rootfd, ".", os.O_PATH | os.O_DIRECTORY)
    try:
        for depth in range(1, len(names) + 1):
            last = depth == len(names)
            wanted = (kind, mode) if last else ("dir", 0o755)
            entry = _open_or_make(rootfd, parent, "/".join(names[:depth]), *wanted)
            os.close(parent)
            parent = entry
    except OSError:
        os.close(parent)
        raise
    return parent


def _open_or_make(rootfd: int, parent: int, path: str, kind: str, mode: int) -> int:
    """Give `path` below the root, made in the directory `parent` when it is missing."""
    name = path.rpartition("/")[2]
    for _ in range(2):
        try:
            entry = open_in_root(rootfd, path, os.O_PATH)
            break
        except FileNotFoundError:
            _make(parent, name, kind, mode, path)
    else:
        raise FileNotFoundError(errno.ENOENT, "removed as soon as it is made", path)
    is_directory = stat.S_ISDIR(os.fstat(entry).st_mode)
    if is_directory != (kind == "dir"):
        os.close(entry)
        reason = errno.EISDIR if is_directory else errno.ENOTDIR
        raise OSError(reason, os.strerror(reason), path)
    return entry


def _make(parent: int, name: str, kind: str, mode: int, path: str) -> None:
    # Neither mkdirat nor O_EXCL follows a link: where the name is one that leads nowhere they say EEXIST.
    try:
        if kind == "dir":
            os.mkdir(name, mode, dir_fd=parent)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, mode, dir_fd=parent))
    except FileExistsError:
        if _is_link(parent, name):
            raise FileExistsError(errno.EEXIST, "a link that leads nowhere is in the way", path) from None
    except OSError as error:
        error.filename = path
        raise


def _is_link(parent: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def open_regular(rootfd: int, path: str, *, limit: int) -> int:
    """Open a regular file inside the root for reading, without ever opening anything else.

    Opening a FIFO would wait, opening a device may act. Raises OSError: EINVAL for what is not a regular file, EFBIG
    for one of more than `limit` bytes.
    """
    place = open_in_root(rootfd, path, os.O_PATH)
    try:
        found = os.fstat(place)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if found.st_size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        # The link of our own /proc leads to the very file that was looked at.
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(place)


def read_small(rootfd: int, path: str, *, limit: int = 1 << 20) -> bytes:
    """Read a file inside the root, such as /etc/passwd, as open_regular() opens it. It may grow while it is read."""
    descriptor = open_regular(rootfd, path, limit=limit)
    try:
        return read_limited(descriptor, path, limit=limit)
    finally:
        os.close(descriptor)


def read_limited(descriptor: int, name: str, *, limit: int) -> bytes:
    """Read a descriptor to its end. Raises OSError(EFBIG) naming `name` beyond `limit` bytes."""
    data = b""
    while piece := os.read(descriptor, min(1 << 16, limit + 1 - len(data))):
        data += piece
        if len(data) > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return data


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, as often as write(2) takes only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomically(
    path: str, data: bytes | Iterable[bytes], mode: int = 0o600, *, dir_fd: int | None = None, sync: bool = True
) -> None:
    """Replace the file `path` so that a reader, and a machine that lost power, sees the old or the new one, whole.

    The data go to a new file beside it, which is synced, gets exactly `mode` and is renamed; then the directory is
    synced. `sync=False` is for directories that do not outlive the machine's run. On an error nothing is left behind.
    """
    directory, _, base = path.rpartition("/")
    temporary = f"{directory}/" if "/" in path else ""
    temporary += f".{base[:200]}.{os.getpid()}.{os.urandom(6).hex()}"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    try:
        try:
            for part in (data,) if isinstance(data, bytes) else data:
                write_all(descriptor, part)
            os.fchmod(descriptor, mode)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=dir_fd)
        raise
    if sync:
        sync_directory(directory or ("/" if path.startswith("/") else "."), dir_fd=dir_fd)


def sync_directory(path: str, *, dir_fd: int | None = None) -> None:
    """Make the names in a directory durable: fsync(2) of a file does not include its name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
