"""Where the parts of an image lie: a directory (an OCI layout) or an archive, by the names that they have in it."""

import os
import posixpath
import stat
from collections.abc import Collection, Iterator

from stockade.audit.static.image import streams, tar
from stockade.audit.static.image.streams import File, Refused, Stream
from stockade.sandbox.linux import calls

#: bytes of one part that describes others, and of all of them together
SMALL = 4 << 20
_ALL = 48 << 20
#: parts of an archive; an image has at most some hundred layers
_PARTS = 20_000
#: parts by which an image's archive is known
_NAMES = frozenset({"manifest.json", "index.json", "oci-layout"})
#: links after one another; old versions of docker save link layers that are the same
_LINKS = 4


class Directory:
    """An image in a directory. Nothing outside of it is opened, and no link is followed."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.broken = ""
        self.of_image = True

    def close(self) -> None:
        """Close the directory."""
        os.close(self.descriptor)

    def small(self, name: str) -> bytes | None:
        """Give the content of a part that describes others; None where it isn't there. Raises Refused."""
        descriptor = self._open(name)
        if descriptor is None:
            return None
        try:
            data = File(descriptor).read(SMALL + 1)
        finally:
            os.close(descriptor)
        if len(data) > SMALL:
            raise Refused(f"{name} is larger than {SMALL >> 20} MiB")
        return data

    def parts(self, names: Collection[str]) -> Iterator[tuple[tuple[str, ...], Stream]]:
        """Give the content of parts, in any order, to be read before the next one is asked for."""
        for name in names:
            descriptor = self._open(name)
            if descriptor is None:
                continue
            try:
                yield (name,), File(descriptor)
            finally:
                os.close(descriptor)

    def _open(self, name: str) -> int | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        limits = calls.RESOLVE_BENEATH | calls.RESOLVE_NO_SYMLINKS
        try:
            descriptor = calls.openat2(self.descriptor, name, flags, resolve=limits)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return descriptor


class Archive:
    """An image in a tar archive, which may be compressed. It is read twice: for what describes it, then for layers."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        self.described: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.names: set[str] = set()
        #: why its end can't be read; empty for a whole archive
        self.broken = ""
        try:
            self._describe()
        except Refused as error:
            self.broken = str(error)
        except BaseException:
            self.close()
            raise

    @property
    def of_image(self) -> bool:
        """Whether what could be read has names as the archive of an image has them."""
        return any(name in _NAMES or name.endswith("/layer.tar") or name.startswith("blobs/") for name in self.names)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def _describe(self) -> None:
        """Keep the small parts that may be JSON, and the names of the others."""
        total = 0
        for entry in tar.entries(self._stream()):
            name = inside(entry.name)
            if name is None or entry.kind not in {"file", "symlink", "hardlink"}:
                continue
            if len(self.names) + len(self.links) > _PARTS:
                raise Refused(f"it has more than {_PARTS} parts, so it is no image")
            if entry.kind != "file":
                start = posixpath.dirname(name) if entry.kind == "symlink" else ""
                target = inside(posixpath.join(start, entry.link))
                if target is not None:
                    self.links[name] = target
                continue
            self.names.add(name)
            if 2 <= entry.size <= SMALL:
                head = entry.body.read(1)
                if head in {b"{", b"["} and total + entry.size <= _ALL:
                    total += entry.size
                    self.described[name] = head + entry.body.read(entry.size)

    def _stream(self) -> Stream:
        return streams.opened(File(self.descriptor))

    def _real(self, name: str) -> str:
        for _ in range(_LINKS):
            if name in self.names or name not in self.links:
                break
            name = self.links[name]
        return name

    def small(self, name: str) -> bytes | None:
        """Give the content of a part that describes others; None where it isn't there."""
        return self.described.get(self._real(name))

    def parts(self, names: Collection[str]) -> Iterator[tuple[tuple[str, ...], Stream]]:
        """Give the content of parts, in the archive's order; each under all the names that stand for it."""
        wanted: dict[str, list[str]] = {}
        for name in names:
            wanted.setdefault(self._real(name), []).append(name)
        for entry in tar.entries(self._stream()):
            found = wanted.pop(inside(entry.name) or "", None) if entry.kind == "file" else None
            if found:
                yield tuple(found), entry.body


def inside(name: str) -> str | None:
    """Give a name in an archive in its usual spelling; None for one that leads out of it."""
    if name.startswith("/"):
        return None
    plain = posixpath.normpath(name)
    return None if plain == ".." or plain.startswith("../") else plain
