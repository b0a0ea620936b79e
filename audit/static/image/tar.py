"""Reads tar archives entry by entry: ustar, GNU's and PAX's long names, extended attributes.

Python's own reader keeps every entry and reads headers of any size into memory; this one keeps nothing. Format: tar(5),
pax in POSIX.1-2017.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from stockade.audit.static.image.streams import Part, Refused, Stream

BLOCK = 512
#: entries of one archive; the largest images have half a million
MOST = 4_000_000
#: bytes of one extended header, which holds names and attributes
_HEADER = 1 << 20
#: PATH_MAX: the kernel takes no longer name
_LONGEST = 4096
_KINDS = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "hardlink", b"2": "symlink", b"3": "char", b"4": "block",
    b"5": "directory", b"6": "fifo", b"S": "file",
}  # fmt: skip
_XATTR = "SCHILY.xattr."


@dataclass(slots=True)
class Entry:
    """One entry. `name` and `link` are as they were written, of any kind; `body` is its content, to be read now."""

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    link: str
    body: Part
    attributes: dict[str, bytes] = field(default_factory=dict)


def entries(stream: Stream) -> Iterator[Entry]:
    """Give the entries. What the caller leaves of a body is passed over. Raises Refused for what is no tar."""
    count = 0
    more: dict[str, bytes] = {}
    everywhere: dict[str, bytes] = {}
    while True:
        header = stream.read(BLOCK)
        if not header.strip(b"\0"):
            return  # two blocks of zeros end it, or nothing more comes
        count += 1
        if count > MOST:
            raise Refused(f"it has more than {MOST} entries")
        size = _size(header)
        kind = header[156:157]
        if kind in b"xgLK":
            data = _extended(stream, size)
            if kind == b"x":
                more |= _pax(data)
            elif kind == b"g":
                everywhere |= _pax(data)
                if len(everywhere) > BLOCK:
                    raise Refused("it has too many global attributes")
            else:
                more["path" if kind == b"L" else "linkpath"] = data.rstrip(b"\0")
            continue
        if kind == b"S":
            _sparse(header, stream)
        entry, padding = _entry(header, size, {**everywhere, **more} if everywhere else more, stream)
        more = {}
        yield entry
        entry.body.skip(entry.body.left)
        stream.skip(padding)


def _entry(header: bytes, size: int, more: dict[str, bytes], stream: Stream) -> tuple[Entry, int]:
    kind = _KINDS.get(header[156:157], "other")
    name, link = header[:100].split(b"\0", 1)[0], header[157:257].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    if prefix:
        name = prefix + b"/" + name
    name, link = more.get("path", name), more.get("linkpath", link)
    if len(name) > _LONGEST or len(link) > _LONGEST:
        raise Refused(f"a name in it has {max(len(name), len(link))} bytes")
    if "size" in more:
        size = _decimal(more["size"])
    entry = Entry(
        name=name.decode("utf-8", "backslashreplace"),
        kind="directory" if kind == "file" and name.endswith(b"/") else kind,
        mode=_number(header[100:108]) & 0o7777,
        uid=_decimal(more["uid"]) if "uid" in more else _number(header[108:116]),
        gid=_decimal(more["gid"]) if "gid" in more else _number(header[116:124]),
        size=size if kind in {"file", "other"} else 0,
        link=link.decode("utf-8", "backslashreplace"),
        body=Part(stream, size if kind in {"file", "other"} else 0),
        attributes={key[len(_XATTR) :]: value for key, value in more.items() if key.startswith(_XATTR)},
    )
    return entry, -entry.size % BLOCK


def _sparse(header: bytes, stream: Stream) -> None:
    """Go over the maps of GNU's sparse files that don't fit into the header."""
    more, count = header[482], 0
    while more and count < _HEADER // BLOCK:
        more, count = (stream.read(BLOCK) + bytes(BLOCK))[504], count + 1


def _size(header: bytes) -> int:
    """Check a header's sum and give the size that it tells."""
    if len(header) < BLOCK:
        raise Refused("it is cut off")
    total = sum(header) - sum(header[148:156]) + 8 * 32
    if _number(header[148:156]) != total:
        raise Refused("it is no tar archive, or a broken one: a header's sum is wrong")
    return _number(header[124:136])


def _number(data: bytes) -> int:
    """Give a number: octal digits, or GNU's binary form with the highest bit set."""
    if data[:1] == b"\x80":
        return int.from_bytes(data[1:], "big") & (1 << 63) - 1
    if data[:1] == b"\xff":
        raise Refused("a number in it is negative")
    digits = data.split(b"\0", 1)[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise Refused("it is no tar archive, or a broken one: a number isn't octal") from None


def _decimal(data: bytes) -> int:
    digits = data.split(b".", 1)[0]
    if not digits.isdigit() or len(digits) > 18:
        raise Refused("a number in an extended header is none")
    return int(digits)


def _extended(stream: Stream, size: int) -> bytes:
    if size > _HEADER:
        raise Refused(f"an extended header in it has {size} bytes")
    data = Part(stream, size).read(size)
    stream.skip(-size % BLOCK)
    return data


def _pax(data: bytes) -> dict[str, bytes]:
    """Take the records of an extended header apart: length, space, key, "=", value, newline."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        space = data.find(b" ", at, at + 20)
        length = data[at:space] if space > 0 else b""
        if not length.isdigit() or int(length) <= space - at + 1:
            raise Refused("an extended header in it is broken")
        end = at + int(length)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or not equals:
            raise Refused("an extended header in it is broken")
        found[key.decode("utf-8", "backslashreplace")] = value
        at = end
    return found
