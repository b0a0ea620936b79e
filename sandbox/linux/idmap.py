"""User and group id mappings, user_namespaces(7), and the ranges of subordinate ids, subuid(5)."""

from __future__ import annotations

import os

from stockade.sandbox.linux import procfs
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: (uid_t)-1 means "no id" to the kernel, so ids run from 0 to 2**32 - 2
ID_LIMIT = (1 << 32) - 1
#: lines in a map since Linux 4.15
MAX_EXTENTS = 340


class Mapping(Record):
    """One extent: `size` ids from `container` on inside the namespace are those from `host` on outside."""

    container: int
    host: int
    size: int

    def __str__(self) -> str:
        return f"{self.container}:{self.host}:{self.size}"


class Range(Record):
    """`count` subordinate ids from `start` on, one line of /etc/subuid or /etc/subgid."""

    start: int
    count: int


def parse(text: str) -> tuple[Mapping, ...]:
    """Read the text of /proc/PID/uid_map or gid_map: a line holds the id inside, the id outside, the length.

    The outside ids are those of the namespace of the process that opened the file; for a map of the reader's own
    namespace they are those of the parent. An empty file is a namespace whose map was not written yet.
    """
    return tuple([_line(line) for line in text.split("\n") if line])


def _line(line: str) -> Mapping:
    fields = line.split()
    if len(fields) != 3:
        raise ValueError(f"an id map line has three numbers: {line!r}")
    return Mapping(*[_number(field) for field in fields])


def render(mappings: Sequence[Mapping]) -> str:
    """Give the text to write to uid_map or gid_map, in one write(2)."""
    return "".join([f"{mapping.container} {mapping.host} {mapping.size}\n" for mapping in mappings])


def parse_argument(argument: str) -> Mapping:
    """Read CONTAINER:HOST:SIZE. Raises ValueError for anything else, an empty extent and ids that are not 32 bits."""
    fields = argument.split(":")
    if len(fields) != 3:
        raise ValueError(f"{argument!r} is not CONTAINER:HOST:SIZE")
    mapping = Mapping(*[_number(field) for field in fields])
    check((mapping,))
    return mapping


def _number(text: str) -> int:
    # int() would also take "+1", "1_0", " 1" and other scripts' digits
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise ValueError(f"{text!r} is not an id")
    return int(text)


def check(mappings: Sequence[Mapping]) -> None:
    """Raise ValueError for what the kernel refuses with EINVAL: empty, overflowing, overlapping or too many extents."""
    if not mappings:
        raise ValueError("an id map needs at least one extent")
    if len(mappings) > MAX_EXTENTS:
        raise ValueError(f"{len(mappings)} extents in an id map, the kernel takes {MAX_EXTENTS}")
    if len(render(mappings)) >= os.sysconf("SC_PAGE_SIZE"):
        # user_namespaces(7): the map is written at once, in less than a page
        raise ValueError(f"an id map of {len(mappings)} extents does not fit in a page")
    for mapping in mappings:
        if mapping.size < 1:
            raise ValueError(f"id map {mapping} is empty")
        if mapping.container < 0 or mapping.host < 0:
            raise ValueError(f"id map {mapping} has a negative id")
        if mapping.container + mapping.size > ID_LIMIT or mapping.host + mapping.size > ID_LIMIT:
            raise ValueError(f"id map {mapping} goes beyond the last id {ID_LIMIT - 1}")
    pair = overlaps(mappings)
    if pair:
        raise ValueError(f"id maps {pair[0]} and {pair[1]} overlap")


def overlaps(mappings: Sequence[Mapping]) -> tuple[Mapping, Mapping] | None:
    """Give the first two extents that share an id inside or outside, or None."""
    for side in ("container", "host"):
        ordered = sorted(mappings, key=lambda mapping: int(getattr(mapping, side)))
        for place in range(1, len(ordered)):
            before, after = ordered[place - 1], ordered[place]
            if getattr(before, side) + before.size > getattr(after, side):
                return before, after
    return None


def to_host(mappings: Iterable[Mapping], container: int) -> int | None:
    """Give the id outside of an id inside, or None where it is not mapped."""
    for mapping in mappings:
        if mapping.container <= container < mapping.container + mapping.size:
            return mapping.host + container - mapping.container
    return None


def to_container(mappings: Iterable[Mapping], host: int) -> int | None:
    """Give the id inside of an id outside, or None where it is not mapped."""
    for mapping in mappings:
        if mapping.host <= host < mapping.host + mapping.size:
            return mapping.container + host - mapping.host
    return None


def of(pid: int | str, kind: str) -> tuple[Mapping, ...]:
    """Read /proc/`pid`/`kind`_map; `kind` is "uid" or "gid". Raises ProcessLookupError."""
    return parse(procfs.read_text(pid, f"{kind}_map"))


def subordinate_ranges(user: str | None, uid: int, path: str) -> tuple[Range, ...]:
    """Read the ranges that /etc/subuid or /etc/subgid gives to a user, by name or by number, in the file's order.

    A missing file gives none. Raises OSError when it can't be read. For subgid(5), too, the owner is a user.
    """
    try:
        text = procfs.read_path(path).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ()
    return parse_subordinate(text, user, uid)


def parse_subordinate(text: str, user: str | None, uid: int) -> tuple[Range, ...]:
    """Pick a user's ranges from the text of /etc/subuid; malformed lines are passed over, as newuidmap(1) does."""
    owners = {str(uid), user}
    ranges = []
    for line in text.split("\n"):
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in owners:
            continue
        try:
            start, count = _number(fields[1]), _number(fields[2])
        except ValueError:
            continue
        if count and start + count <= ID_LIMIT:
            ranges.append(Range(start, count))
    return tuple(ranges)
