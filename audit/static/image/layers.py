"""Looks through a layer's entries for what matters, and finds out what a later layer took away again.

Names in a layer are never used as paths. What is kept of a layer is what was found, and a number for each of its names.
"""

import posixpath
import struct
from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from stockade.audit.facts import ImageFile, Where
from stockade.audit.static.image import secrets, streams, tar
from stockade.audit.static.image.streams import Refused, Stream
from stockade.sandbox.linux import capabilities as caps

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
#: findings of one layer; an image that has more is told of these
_MOST = 2000
#: bytes of a file that is looked into
_CONTENT = 64 << 10
#: where a runtime mounts: a link there sends the mount elsewhere. Others below /dev are hidden by the mount of /dev.
_MOUNTED = frozenset(
    {
        "dev", "dev/null", "dev/zero", "dev/full", "dev/random", "dev/urandom", "dev/tty", "dev/console", "dev/pts",
        "dev/mqueue", "proc", "sys", "sys/fs/cgroup",
    }
)  # fmt: skip
#: links of /proc that any image may have; others reach what isn't the image's
_HARMLESS = ("/proc/mounts", "/proc/self/mounts", "/proc/net/", "/proc/self/fd", "/proc/cpuinfo", "/proc/filesystems")
_ACCOUNTS = frozenset({"etc/shadow", "etc/passwd"})


@dataclass(slots=True)
class Layer:
    """What was found in one layer. `names` and `directories` are sorted hashes; `removed` and `opaque` are paths."""

    found: list[ImageFile] = field(default_factory=list)
    names: "array[int]" = field(default_factory=lambda: array("q"))
    directories: "array[int]" = field(default_factory=lambda: array("q"))
    removed: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    entries: int = 0


def scan(stream: Stream, where: Where, name: str, search_path: Collection[str]) -> Layer:
    """Read a layer, which may be compressed. Raises Refused and Unsupported; `search_path` is that of the image."""
    layer = Layer()
    places = frozenset([each.strip("/") for each in search_path if each.startswith("/")])
    for entry in tar.entries(streams.opened(stream)):
        layer.entries += 1
        plain = _plain(entry.name)
        if plain is None:
            if len(layer.found) < _MOST:
                layer.found.append(_file(where, entry.name, "hostile-link", "a name that leads out of the image", name))
            continue
        directory, _, last = plain.rpartition("/")
        if last.startswith(_WHITEOUT):
            _removal(layer, directory, last)
            continue
        (layer.directories if entry.kind == "directory" else layer.names).append(hash(plain))
        if len(layer.found) < _MOST:
            layer.found += _entry(entry, plain, where, name, places)
    layer.names = array("q", sorted(layer.names))
    layer.directories = array("q", sorted(layer.directories))
    return layer


def _removal(layer: Layer, directory: str, last: str) -> None:
    if len(layer.removed) + len(layer.opaque) > tar.MOST // 8:
        raise Refused("it removes too many files")
    if last == _OPAQUE:
        layer.opaque.add(directory)
    else:
        layer.removed.add(posixpath.join(directory, last.removeprefix(_WHITEOUT)))


def _plain(name: str) -> str | None:
    """Give a name without "./" and slashes around it; None for one that leads out of the image."""
    if name.startswith("/") or ".." in name:
        parts = name.split("/")
        if ".." in parts or name.startswith("//"):
            return None
    plain = posixpath.normpath(name.strip("/") or ".")
    return "" if plain == "." else plain


def _file(where: Where, path: str, kind: str, detail: str, layer: str) -> ImageFile:
    shown = path if path.startswith("/") else f"/{path}"
    return ImageFile(where=where, path=shown, kind=kind, detail=detail, layer=layer)  # type: ignore[arg-type] # a Literal


def _entry(entry: tar.Entry, plain: str, where: Where, layer: str, places: Collection[str]) -> list[ImageFile]:
    found: list[tuple[str, str]] = []
    if entry.kind == "file":
        found += _program(entry)
        found += _content(entry, plain)
    elif entry.kind in {"symlink", "hardlink"}:
        found += _link(entry, plain)
    if entry.mode & 0o002 and entry.kind in {"file", "directory"}:
        inside = plain if entry.kind == "directory" else plain.rpartition("/")[0]
        if inside in places:
            found.append(("world-writable", f"{entry.mode:04o}"))
    return [_file(where, plain, kind, detail, layer) for kind, detail in found]


def _program(entry: tar.Entry) -> list[tuple[str, str]]:
    found = []
    for bit, kind, owner in ((0o4000, "setuid", entry.uid), (0o2000, "setgid", entry.gid)):
        # setgid without the group's execute bit asks for mandatory locks, and raises nothing
        if entry.mode & bit and entry.mode & (0o111 if bit == 0o4000 else 0o010):
            found.append((kind, f"{entry.mode:05o} {'root' if owner == 0 else owner}"))
    capability = entry.attributes.get("security.capability")
    if capability is not None:
        found.append(("capability", _capabilities(capability)))
    return found


def _capabilities(data: bytes) -> str:
    """Name the capabilities of a file: vfs_cap_data of linux/capability.h, in all its revisions."""
    if len(data) < 12:
        return "an attribute that can't be read"
    magic, low_permitted, low_inheritable = struct.unpack_from("<III", data)
    permitted, inheritable = low_permitted, low_inheritable
    if magic >> 24 in {2, 3} and len(data) >= 20:
        high_permitted, high_inheritable = struct.unpack_from("<II", data, 12)
        permitted |= high_permitted << 32
        inheritable |= high_inheritable << 32
    names = " ".join(caps.names((permitted | inheritable) & caps.ALL)) or "none"
    flags = ("e" if magic & 1 else "") + ("p" if permitted else "") + ("i" if inheritable else "")
    return f"{names}+{flags}"


def _content(entry: tar.Entry, plain: str) -> list[tuple[str, str]]:
    if plain in _ACCOUNTS and entry.size <= _CONTENT:
        lines = entry.body.read(entry.size).decode("utf-8", "replace").splitlines()
        open_ = [line.split(":")[0] for line in lines if line.count(":") >= 2 and not line.split(":")[1]]
        return [("account", name[:64]) for name in open_[:20]]
    wanted = secrets.interesting(plain)
    if wanted is None or not 0 < entry.size <= _CONTENT:
        return []
    what = secrets.what(wanted, entry.body.read(entry.size))
    return [("secret", what)] if what else []


def _link(entry: tar.Entry, plain: str) -> list[tuple[str, str]]:
    if entry.kind == "hardlink":
        out = _plain(entry.link) is None or entry.link.startswith("/")
        if plain in _MOUNTED:
            return [("device-link", entry.link)]
        return [("hostile-link", f"{entry.link} (a hard link)")] if out else []
    if plain in _MOUNTED:
        return [("device-link", entry.link)]
    target = entry.link
    if not target.startswith("/"):
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(plain), target))
        if joined == ".." or joined.startswith("../"):
            return [("hostile-link", entry.link)]
        target = f"/{joined}"
    target = posixpath.normpath(target)
    risky = target.startswith(("/proc/", "/sys/kernel/", "/sys/fs/cgroup/")) and not target.startswith(_HARMLESS)
    return [("hostile-link", entry.link)] if risky else []


def together(layers: Sequence[Layer | None]) -> list[ImageFile]:
    """Give what was found in all layers, lowest first, and mark what a later one removed or replaced."""
    found: list[ImageFile] = []
    for number, layer in enumerate(layers):
        later = [each for each in layers[number + 1 :] if each is not None]
        for file in layer.found if layer is not None else ():
            gone = any(_takes_away(each, file) for each in later)
            found.append(replace(file, removed=True) if gone else file)
    return found


def _takes_away(layer: Layer, file: ImageFile) -> bool:
    """Say whether a layer has another file in this place, or says that there is none."""
    plain = file.path.strip("/")
    above = plain
    if _has(layer.names, plain) or _has(layer.directories, plain):
        return True
    while above:
        if above in layer.removed:
            return True
        above = above.rpartition("/")[0]
        if above in layer.opaque or (above and _has(layer.names, above)):
            return True
    return False


def _has(hashes: "array[int]", name: str) -> bool:
    number = hash(name)
    at = bisect_left(hashes, number)
    return at < len(hashes) and hashes[at] == number
