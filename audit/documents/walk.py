"""Finds the files that an audit is asked for: files, directories (with .gitignore respected), standard input."""

import codecs
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stockade.audit.documents import ignore
from stockade.audit.documents.ignore import Ignore
from stockade.audit.documents.load import LARGEST, Broken
from stockade.audit.facts import Where

#: of an archive only so much is read here
HEAD = 4096
#: levels of directories; a deeper one is built to hurt
DEEPEST = 100
#: what standard input is called in a report
STDIN = "stdin"
#: never looked into: data of version control systems, which hold no file that anyone deploys
_SKIPPED = frozenset({".git", ".hg", ".svn", ".jj", ".terraform", "node_modules", "__pycache__", ".venv"})


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be audited. `data` is all of it, or of an archive only the beginning (then `whole` is False).

    `path` is the name in reports. What isn't `whole` is read from `file`, a path that can be opened; it is a directory
    for an image layout that was unpacked.
    """

    path: str
    data: bytes
    file: str = ""
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was found and not yet read. `named`: it was asked for by name, so that failing to read it matters."""

    path: str
    named: bool


def sources(paths: Sequence[str]) -> Iterator[Source]:
    """Find and read all files below `paths`; "-" is standard input. Raises Broken for one that can't be read."""
    for entry in entries(paths):
        found = entry if isinstance(entry, Broken) else read(entry)
        if isinstance(found, Broken):
            raise found
        if found is not None:
            yield found


def entries(paths: Sequence[str]) -> Iterator[Entry | Broken]:
    """Find all files below `paths`, each once, in the order of their names; what isn't there is Broken."""
    seen: set[str] = set()
    for path in paths:
        for entry in _entries(path):
            name = entry.path if isinstance(entry, Entry) else ""
            if not name or name not in seen:
                seen.add(name)
                yield entry


def _entries(path: str) -> Iterator[Entry | Broken]:
    if path == "-":
        yield Entry("-", named=True)
        return
    try:
        status = os.stat(path)
    except OSError as error:
        yield _refused(path, error)
        return
    except ValueError:
        yield Broken(Where(path), "no path: it holds a NUL")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Entry(path, named=True)
        return
    root = path.rstrip("/") or "/"
    yield from _walk(root, _above(root), 0)


def _walk(directory: str, files: tuple[Ignore, ...], depth: int) -> Iterator[Entry | Broken]:
    """Walk a directory. Links are never followed: what they lead to is either found itself or not part of it."""
    if depth > DEEPEST:
        yield Broken(Where(directory), f"more than {DEEPEST} directories deep")
        return
    try:
        with os.scandir(directory) as scan:
            found = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        yield _refused(directory, error)
        return
    names = {entry.name for entry in found}
    if {"oci-layout", "index.json"} <= names:
        yield Entry(directory, named=False)
        return
    if ".gitignore" in names:
        more = ignore.read(os.path.join(directory, ".gitignore"), os.path.abspath(directory))
        files = (*files, more) if more else files
    bundle = {"config.json", "rootfs"} <= names
    for entry in found:
        is_directory = entry.is_dir(follow_symlinks=False)
        if is_directory and (entry.name in _SKIPPED or (bundle and entry.name == "rootfs")):
            continue
        if not is_directory and not (entry.is_file(follow_symlinks=False) and _may_matter(entry.name)):
            continue
        if files and ignore.ignored(os.path.abspath(entry.path), is_directory, files):
            continue
        if is_directory:
            yield from _walk(entry.path, files, depth + 1)
        else:
            yield Entry(entry.path, named=False)


def _may_matter(name: str) -> bool:
    from stockade.audit.documents.kinds import may_matter

    return may_matter(name)


def _above(directory: str) -> tuple[Ignore, ...]:
    """Read the .gitignore files above a directory, up to the root of its repository; none outside of one."""
    found: list[Ignore] = []
    here = os.path.abspath(directory)
    while True:
        if os.path.lexists(os.path.join(here, ".git")):
            exclude = ignore.read(os.path.join(here, ".git", "info", "exclude"), here)
            found += [exclude] if exclude else []
            return tuple(reversed(found))
        above = os.path.dirname(here)
        if above == here:
            return ()
        file = ignore.read(os.path.join(above, ".gitignore"), above)
        found += [file] if file else []
        here = above


def read(entry: Entry) -> Source | Broken | None:
    """Read a file; of an archive the beginning. None for what was found in a directory and is no regular file."""
    try:
        return _standard_input() if entry.path == "-" else _read(entry)
    except OSError as error:
        return _refused(entry.path, error)
    except Broken as broken:
        return broken


def _read(entry: Entry) -> Source | None:
    # Non-blocking: opening a FIFO would wait for a writer, opening some devices does things.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if entry.named else os.O_NOFOLLOW)
    descriptor = os.open(entry.path, flags)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return Source(entry.path, b"", entry.path, whole=False)
        if not stat.S_ISREG(status.st_mode):
            if not entry.named:
                return None
            if not (stat.S_ISFIFO(status.st_mode) and os.path.dirname(entry.path) in {"/dev/fd", "/proc/self/fd"}):
                raise Broken(Where(entry.path), f"it is {_what(status.st_mode)}, no file")
            os.set_blocking(descriptor, True)  # `<(command)` of a shell
        return _content(entry.path, descriptor, status.st_size)
    finally:
        os.close(descriptor)


def _content(path: str, descriptor: int, size: int) -> Source:
    head = _some(descriptor, HEAD)
    if _archive(head):
        return Source(path, head, path, whole=False)
    if size > LARGEST:
        raise Broken(Where(path), f"{size >> 20} MiB are more than the {LARGEST >> 20} MiB that a file may have")
    return Source(path, _plain(_rest(path, descriptor, head)))


def _plain(data: bytes) -> bytes:
    """Give UTF-16, which YAML allows and Windows writes, as UTF-8."""
    if data[:2] not in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
        return data
    try:
        return data.decode("utf-16").encode()
    except UnicodeError:
        return data  # refused by whoever reads it, with the place


def _rest(path: str, descriptor: int, head: bytes) -> bytes:
    """Read on to the end, which may be further than fstat(2) said: a file grows, a pipe says 0."""
    parts = [head]
    total = len(head)
    while True:
        part = os.read(descriptor, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
        total += len(part)
        if total > LARGEST:
            raise Broken(Where(path), f"more than the {LARGEST >> 20} MiB that a file may have")


def _some(descriptor: int, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: a pipe gives what is there."""
    parts = b""
    while len(parts) < size:
        part = os.read(descriptor, size - len(parts))
        if not part:
            break
        parts += part
    return parts


def _archive(head: bytes) -> bool:
    from stockade.audit.documents.kinds import archive

    return archive(head)


#: the copies of standard input that live as long as the process: closing one would take the archive's name away
_KEPT: list[object] = []


def _standard_input() -> Source:
    """Read standard input. An archive is copied to a file without a name, since it is read more than once."""
    if sys.stdin is None:
        raise Broken(Where(STDIN), "standard input is closed")
    head = _some(0, HEAD)
    if not _archive(head):
        return Source(STDIN, _plain(_rest(STDIN, 0, head)))
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - kept for the collector, gone with the process
    copy.write(head)
    while part := os.read(0, 1 << 20):
        copy.write(part)
    copy.flush()
    _KEPT.append(copy)
    return Source(STDIN, head, f"/proc/self/fd/{copy.fileno()}", whole=False)


_KINDS = (
    (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)  # fmt: skip


def _what(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "something else")


def _refused(path: str, error: OSError) -> Broken:
    if error.errno == errno.ENXIO:  # a socket, or a FIFO of which nobody reads
        return Broken(Where(path), "it is a socket, no file")
    return Broken(Where(path), (error.strerror or str(error)).lower())
