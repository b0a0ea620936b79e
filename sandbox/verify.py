"""Reads back from /proc what a new process is, and compares it with what its Spec asked for.

Before the program: everything, exactly. After execve: the program may already have given privilege up, so only "not
more than asked" can be held against it. A difference is an error, which ends the container.
"""

from __future__ import annotations

import os

from stockade.errors import StockadeError
from stockade.sandbox.linux import capabilities, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.plan_identity import Expected

#: OCI's type → the name in /proc/PID/ns
PROC_NAMES = {
    "user": "user",
    "mount": "mnt",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "time": "time",
}
_own: dict[str, str] = {}


def differs(what: str, wanted: object, found: object) -> StockadeError:
    """Give the error for a difference."""
    return StockadeError(
        f"the kernel's state differs from the Spec: {what} should be {wanted} and is {found}",
        hint="nothing was started; this is a fault of Stockade or of the kernel: please report it with `run --plan`",
    )


def before(pid: int, expected: Expected) -> None:
    """Compare ids, sets, no_new_privs, maps, namespaces and read-only mounts. Raises StockadeError."""
    status = process.status(pid)
    uid, gid = _outside(expected.uid_map, expected.uid), _outside(expected.gid_map, expected.gid)
    if status.uids != (uid,) * 4:
        raise differs("the uid outside", uid, status.uids)
    if status.gids != (gid,) * 4:
        raise differs("the gid outside", gid, status.gids)
    if status.caps != expected.before:
        raise _sets_differ(expected.before, status.caps)
    if bool(status.no_new_privs) != expected.no_new_privs:
        raise differs("no_new_privs", expected.no_new_privs, status.no_new_privs)
    _maps(pid, expected)
    _namespaces(pid, expected)
    if expected.read_only:
        _read_only(pid, expected)


def after(pid: int, expected: Expected) -> None:
    """Compare the filter, and that no set holds more than asked. Raises StockadeError."""
    status = process.status(pid)
    if expected.filtered and status.seccomp != 2:
        raise differs("Seccomp", 2, status.seccomp)
    found, wanted = status.caps, expected.after
    if found.permitted & ~wanted.permitted or found.bounding & ~wanted.bounding or found.ambient & ~wanted.ambient:
        raise _sets_differ(wanted, found)
    if expected.no_new_privs and not status.no_new_privs:
        raise differs("no_new_privs", True, False)


def _outside(mappings: tuple[tuple[int, int, int], ...], inside: int) -> int:
    if not mappings:
        return inside
    for start, outside, size in mappings:
        if start <= inside < start + size:
            return outside + inside - start
    raise differs("the id map", f"one that holds {inside}", mappings)


def _sets_differ(wanted: capabilities.Sets, found: capabilities.Sets) -> StockadeError:
    for name in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        want, have = getattr(wanted, name), getattr(found, name)
        if want != have:
            more, less = capabilities.names(have & ~want), capabilities.names(want & ~have)
            return differs(
                f"the {name} set", " ".join(capabilities.names(want)) or "empty", f"more by {more}, less by {less}"
            )
    return differs("the capability sets", wanted, found)


def _maps(pid: int, expected: Expected) -> None:
    for name, wanted in (("uid_map", expected.uid_map), ("gid_map", expected.gid_map)):
        if wanted:
            found = _extents(pid, name)
            if found != wanted:
                raise differs(name, wanted, found)


def _extents(pid: int, name: str) -> tuple[tuple[int, ...], ...]:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        text = file.read(65536)
    return tuple([tuple([int(word) for word in line.split()]) for line in text.splitlines()])


def _namespaces(pid: int, expected: Expected) -> None:
    for kind, name in PROC_NAMES.items():
        if kind not in _own:
            try:
                _own[kind] = os.readlink(f"/proc/self/ns/{name}")
            except FileNotFoundError:
                _own[kind] = ""  # a kernel without this kind
        wanted_new = kind in expected.new
        if wanted_new and os.readlink(f"/proc/{pid}/ns/{name}") == _own[kind]:
            raise differs(f"the {kind} namespace", "new", "ours")


def _read_only(pid: int, expected: Expected) -> None:
    with open(f"/proc/{pid}/mountinfo", "rb", buffering=0) as file:
        text = b""
        while chunk := file.read(65536):
            text += chunk
    flags = {}
    for line in text.splitlines():
        fields = line.split(b" ", 6)
        flags[fields[4]] = fields[5]  # of several mounts on one point the last covers the others
    for point in expected.read_only:
        key = (
            os.fsencode(point)
            .replace(b"\\", b"\\134")
            .replace(b" ", b"\\040")
            .replace(b"\n", b"\\012")
            .replace(b"\t", b"\\011")
        )
        if key in flags and not flags[key].startswith(b"ro"):
            raise differs(f"the mount {point}", "read-only", flags[key].decode())
