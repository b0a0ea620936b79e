"""inotify(7): which directories have changed. What Python's library lacks is three calls, made through libc."""

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Self

from stockade.sandbox.linux.calls_base import checked, fspath, libc

_IN_CREATE, _IN_DELETE, _IN_MOVED_TO, _IN_MOVED_FROM = 0x100, 0x200, 0x80, 0x40
_IN_DELETE_SELF, _IN_Q_OVERFLOW, _IN_IGNORED, _IN_ISDIR = 0x400, 0x4000, 0x8000, 0x40000000
_IN_ONLYDIR, _IN_DONT_FOLLOW, _IN_EXCL_UNLINK = 0x01000000, 0x02000000, 0x04000000
_WATCHED = _IN_CREATE | _IN_DELETE | _IN_MOVED_TO | _IN_MOVED_FROM | _IN_ONLYDIR | _IN_DONT_FOLLOW | _IN_EXCL_UNLINK
_HEADER = struct.Struct("iIII")
#: directories below which nothing is watched any more; the kernel gives a user 8192 and more
MOST = 4096


class Directories:
    """Watches directories and those below them. Use it in a `with` block; `fileno` becomes readable by a change."""

    def __init__(self, deepest: int = 6) -> None:
        self._fd = checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._paths: dict[int, tuple[str, int]] = {}
        self._deepest = deepest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """Give the descriptor to poll."""
        return self._fd

    def add(self, paths: Iterable[str], below: int | None = None) -> None:
        """Watch directories with what is `below` them, so many levels deep; what isn't there is passed over."""
        levels = self._deepest if below is None else below
        for path in paths:
            self._add(path, levels)

    def _add(self, path: str, below: int) -> None:
        if len(self._paths) >= MOST:
            return
        number = libc.inotify_add_watch(self._fd, ctypes.c_char_p(fspath(path)), ctypes.c_uint32(_WATCHED))
        if number < 0:
            return  # it has gone, isn't a directory, or the user has no watches left: then the clock is what is left
        self._paths[number] = path, below
        if below > 0:
            try:
                entries = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
            except OSError:
                return
            for entry in entries:
                self._add(entry, below - 1)

    def changed(self) -> bool:
        """Take what has happened and watch the new directories; say whether a directory came or went."""
        found = False
        while data := self._read():
            for number, mask, name in _events(data):
                found = found or bool(mask & (_IN_ISDIR | _IN_Q_OVERFLOW))
                if mask & (_IN_IGNORED | _IN_DELETE_SELF):
                    self._paths.pop(number, None)
                elif mask & _IN_ISDIR and mask & (_IN_CREATE | _IN_MOVED_TO) and number in self._paths:
                    path, below = self._paths[number]
                    if below > 0:
                        self._add(f"{path}/{name}", below - 1)
        return found

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return b""


def _events(data: bytes) -> Iterator[tuple[int, int, str]]:
    offset = 0
    while offset < len(data):
        number, mask, _, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        yield number, mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
        offset += length
