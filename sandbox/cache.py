"""Derived data kept between runs, by the hash of what it is derived from.

A lookup must cost less than a millisecond and must not trust what somebody else may have put there: the directory and
the file are opened without following links and must belong to the caller, nobody else may be able to write to them, and
the content carries its own hash, so that a torn or a changed file is a miss. A cache that can't be used is none:
reading gives None, writing does nothing, and the caller derives the data again.
"""

from __future__ import annotations

import os
from stat import S_ISREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class _Hash(Protocol):
        def digest(self) -> bytes: ...


_MAGIC = b"stockade cache 1\n"
_HASH = 32
_LIMIT = 1 << 24
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sha256(data: bytes) -> bytes:
    """Give the SHA-256 digest. The C module itself is imported: hashlib costs 3 ms because it loads OpenSSL."""
    return _function()(data).digest()


def directory() -> str:
    """Give the cache's directory: /var/cache/stockade for root, else $XDG_CACHE_HOME/stockade or ~/.cache/stockade.

    Root of a user namespace, as which rootless Podman calls its runtime, is one of the others: /var isn't its own.
    """
    if os.geteuid() == 0 and _initial_namespace():
        return "/var/cache/stockade"
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # XDG base directory specification: relative paths are ignored
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "stockade")


def _initial_namespace() -> bool:
    try:
        fd = os.open("/proc/self/uid_map", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return os.read(fd, 64).split() == [b"0", b"0", b"4294967295"]
    finally:
        os.close(fd)


def get(kind: str, key: bytes) -> bytes | None:
    """Give the data stored under `kind` (a word) for `key` (a digest), or None."""
    try:
        folder = _open_folder(kind, create=False)
    except OSError:
        return None
    try:
        stored = _read(folder, key.hex())
    except OSError:
        return None
    finally:
        os.close(folder)
    start = len(_MAGIC) + _HASH
    if stored[: len(_MAGIC)] != _MAGIC or sha256(key + stored[start:]) != stored[len(_MAGIC) : start]:
        return None
    return stored[start:]


def put(kind: str, key: bytes, data: bytes) -> bool:
    """Store `data` for `key`, whole or not at all. Say whether that was possible."""
    try:
        folder = _open_folder(kind, create=True)
    except OSError:
        return False
    temporary = f".{key.hex()}.{os.getpid()}"
    try:
        _write(folder, temporary, _MAGIC + sha256(key + data) + data)
        os.rename(temporary, key.hex(), src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        try:
            os.unlink(temporary, dir_fd=folder)
        except OSError:
            pass
        return False
    finally:
        os.close(folder)
    return True


def _open_folder(kind: str, *, create: bool) -> int:
    """Open the folder of a kind. Raises OSError when it isn't there or isn't the caller's own."""
    path = directory()
    if create:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _make(path)
    top = os.open(path, _DIRECTORY)
    try:
        _own(top, path)
        if create:
            _make(kind, top)
        folder = os.open(kind, _DIRECTORY, dir_fd=top)
    finally:
        os.close(top)
    try:
        _own(folder, path)
    except OSError:
        os.close(folder)
        raise
    return folder


def _make(name: str, parent: int | None = None) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        pass


def _own(fd: int, path: str) -> os.stat_result:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(1, "somebody else may write to it", path)
    return status


def _read(folder: int, name: str) -> bytes:
    # O_NONBLOCK: a FIFO must not hold us up before fstat says what it is.
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = _own(fd, name)
        if not S_ISREG(status.st_mode) or status.st_size > _LIMIT:
            raise PermissionError(1, "no regular file of a reasonable size", name)
        return os.read(fd, status.st_size)
    finally:
        os.close(fd)


def _write(folder: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _function() -> Callable[[bytes], _Hash]:
    if not _found:
        for module in ("_sha256", "_sha2", "hashlib"):  # until 3.11; from 3.12 on; anywhere
            try:
                _found.append(__import__(module).sha256)
                break
            except ImportError:
                continue
    return _found[0]


_found: list[Callable[[bytes], _Hash]] = []
