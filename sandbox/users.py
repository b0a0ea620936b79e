"""Users of a container, looked up in the text of its own /etc/passwd and /etc/group, as docker-run(1) does."""

from __future__ import annotations

from stockade.errors import UsageError
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: an /etc/passwd or /etc/group beyond this is refused, not read: it comes from a root file system that may be hostile
MAX_BYTES = 1 << 20
#: NGROUPS_MAX, the most that setgroups(2) takes
MAX_GROUPS = 65536
#: (uid_t)-1 means "no change" to setresuid(2)
_MAX_ID = (1 << 32) - 2


class Resolved(Record):
    """A user of the container. `name` and `home` are empty where /etc/passwd has no entry."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    name: str = ""
    home: str = ""


def resolve_user(text: str, passwd: bytes | None, group: bytes | None) -> Resolved:
    """Resolve USER[:GROUP], each a name or a number; `passwd` and `group` are the files' contents, None where absent.

    A number needs no entry. Without GROUP the gid is that of the entry, else 0, and the user's further groups come from
    /etc/group; with GROUP there are none. Raises UsageError for a name that is not there and a number out of range.
    """
    wanted, colon, wanted_group = text.partition(":")
    if not wanted or (colon and not wanted_group):
        raise UsageError(f"user {text!r}: expected USER or USER:GROUP")
    entry = _find(wanted, passwd, 7)
    number = _number(wanted)
    if entry is None and number is None:
        raise _unknown("user", wanted, "/etc/passwd", passwd)
    uid = _field(entry, 2) if entry else number
    gid = _field(entry, 3) if entry else 0
    name = entry[0].decode("utf-8", "replace") if entry else ""
    home = entry[5].decode("utf-8", "replace") if entry else ""
    if uid is None or gid is None:
        raise UsageError(f"user {wanted!r}: its line in the container's /etc/passwd has no valid ids")
    if colon:
        return Resolved(uid, _group(wanted_group, group), (), name, home)
    return Resolved(uid, gid, _memberships(name, gid, group), name, home)


def _group(text: str, group: bytes | None) -> int:
    entry = _find(text, group, 4)
    gid = _field(entry, 2) if entry else _number(text)
    if gid is None:
        raise _unknown("group", text, "/etc/group", group)
    return gid


def _memberships(name: str, gid: int, group: bytes | None) -> tuple[int, ...]:
    found: list[int] = []
    member = name.encode("utf-8", "surrogateescape")
    for fields in _lines(group, 4) if member else ():
        number = _field(fields, 2)
        if number is not None and number != gid and number not in found and member in fields[3].split(b","):
            found.append(number)
            if len(found) == MAX_GROUPS:
                break
    return tuple(found)


def _find(text: str, file: bytes | None, count: int) -> list[bytes] | None:
    """Give the first line whose name is `text`, else the first whose number is; Docker's order."""
    name, number = text.encode("utf-8", "surrogateescape"), _number(text)
    by_number = None
    for fields in _lines(file, count):
        if fields[0] == name:
            return fields
        if by_number is None and number is not None and _field(fields, 2) == number:
            by_number = fields
    return by_number


def _lines(file: bytes | None, count: int) -> Iterator[list[bytes]]:
    for line in (file or b"").split(b"\n"):
        fields = line.split(b":")
        if len(fields) == count and fields[0] and b"\0" not in line:
            yield fields


def _field(fields: list[bytes], index: int) -> int | None:
    return _number(fields[index].decode("ascii", "replace"))


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_ID:
        return int(text)
    return None


def _unknown(kind: str, text: str, path: str, file: bytes | None) -> UsageError:
    if text.isascii() and text.isdigit():
        return UsageError(f"{kind} {text}: ids run from 0 to {_MAX_ID}")
    if file is None:
        return UsageError(f"{kind} {text!r}: the container has no {path}", hint="give the id as a number")
    return UsageError(f"{kind} {text!r} is not in the container's {path}", hint="give a name from it, or a number")
