"""Where `--output` writes: a file is replaced as a whole, what stands for something else is written to.

A link is followed as other tools follow it, also where its target doesn't exist yet, and the target is what is
replaced. Root writes into directories of others, so a link is followed as the kernel does with
fs.protected_symlinks=1, whatever that is set to.
"""

from __future__ import annotations

import os
import stat

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: as many links as the kernel follows (MAXSYMLINKS)
_MOST_LINKS = 40


def check(output: str) -> None:
    """Refuse what can't be written before the work is done and not after it. Raises StockadeError."""
    if output == "":
        raise UsageError("--output: the name of the file is empty", hint="leave it out for standard output")
    place = destination(output)
    if _is_written_to(place):
        if not os.access(place, os.W_OK):
            raise StockadeError(f"--output {output}: it can't be written to", hint="name a file of yours")
        return
    directory = os.path.dirname(place) or "."
    if not (os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)):
        raise StockadeError(f"--output {output}: no file can be made in {directory}", hint="name a directory of yours")


def write(text: str | Iterable[str], output: str) -> None:
    """Write a text, or its pieces, to the file, whole or not at all. Raises StockadeError and OSError."""
    pieces = (text,) if isinstance(text, str) else text
    data = (piece.encode("utf-8", "surrogateescape") for piece in pieces)
    place = destination(output)
    if not _is_written_to(place):
        # Reports name what a host is weak at: for the eyes of whoever asked.
        paths.write_atomically(place, data, 0o600)
        return
    descriptor = os.open(place, os.O_WRONLY | os.O_TRUNC | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        for piece in data:
            paths.write_all(descriptor, piece)
    finally:
        os.close(descriptor)


def destination(output: str) -> str:
    """Follow the links that a name ends in. Raises StockadeError for a circle and for a link of a stranger's in /tmp.

    Those of procfs (/dev/stdout leads to /proc/self/fd/1) are no names: they stay, and are opened as they are.
    """
    path = output
    for _ in range(_MOST_LINKS):
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return path
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISLNK(status.st_mode) or status.st_dev == os.stat("/proc").st_dev:
                return path
            _refuse_strangers(output, path, status)
            # of the very link that was checked: the name may lead elsewhere by now
            target = os.readlink("", dir_fd=descriptor)
        finally:
            os.close(descriptor)
        path = os.path.join(os.path.dirname(path), target)
    raise StockadeError(f"--output {output}: too many links", hint="name the file itself")


def _refuse_strangers(output: str, path: str, link: os.stat_result) -> None:
    directory = os.stat(os.path.dirname(path) or ".")
    public = directory.st_mode & stat.S_ISVTX and directory.st_mode & stat.S_IWOTH
    if public and link.st_uid not in {os.geteuid(), directory.st_uid}:
        raise StockadeError(
            f"--output {output}: {path} is a link of user {link.st_uid} in a directory that anyone can write to",
            hint="name a file in a directory of yours",
        )


def _is_written_to(path: str) -> bool:
    """Tell whether a name is a device, a pipe or a link of procfs. Replaced, /dev/null would be a file."""
    try:
        return not stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
