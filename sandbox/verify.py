"""Reads back from /proc what a new process is, and compares it with what its Spec asked for.

Before the program: everything, exactly. After execve: the program may already have given privilege up, so only "not
more than asked" can be held against it. A difference is an error, which ends the container.
"""

from __future__ import annotations

import os

from stockade.errors import StockadeError
from stockade.sandbox.linux import capabilities, process, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from stockade.sandbox.plan_identity import Expected

    Extents: TypeAlias = tuple[tuple[int, int, int], ...]

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


class Check:
    """What must be read back of the processes of one plan.

    /proc is compared as bytes with what the kernel prints when all is well. Only where that differs is it read field by
    field, to say what differs: launches are judged ten times as quickly, and exactly as strictly.
    """

    def __init__(self, expected: Expected) -> None:
        """Print what is expected as the kernel would. Raises StockadeError where the program's ids are not mapped."""
        self.expected = expected
        self._ids(expected.uid_map, expected.gid_map)
        no_new_privs = b"\nNoNewPrivs:\t%d\n" % expected.no_new_privs
        self._before = (_printed(expected.before), no_new_privs)
        self._after = (_printed(expected.after), no_new_privs, b"\nSeccomp:\t2\n" if expected.filtered else b"")
        maps = (("uid_map", expected.uid_map), ("gid_map", expected.gid_map))
        self._maps = [(name, b"".join([b"%10d %10d %10d\n" % extent for extent in wanted])) for name, wanted in maps]
        self._read_only = [(point, _mangled(point)) for point in expected.read_only]

    def _ids(self, uid_map: Extents, gid_map: Extents) -> None:
        self.uid, self.gid = _outside(uid_map, self.expected.uid), _outside(gid_map, self.expected.gid)
        self._id_lines = (
            (b"\nUid:" + b"\t%d" * 4 + b"\n") % ((self.uid,) * 4),
            (b"\nGid:" + b"\t%d" * 4 + b"\n") % ((self.gid,) * 4),
        )

    def before(self, pid: int, namespaces: Sequence[int] = ()) -> None:
        """Compare ids, sets, no_new_privs, maps, namespaces and read-only mounts. Raises StockadeError.

        `namespaces` are the descriptors of those that it was to join, in the order of `Expected.joined`. In a user
        namespace that was joined, the kernel's own map says which ids are meant: it prints them as we see them.
        """
        expected = self.expected
        if "user" in dict(expected.joined):
            self._ids(_extents(procfs.read(pid, "uid_map")), _extents(procfs.read(pid, "gid_map")))
        text = procfs.read(pid, "status")
        for line in (*self._id_lines, *self._before):
            if line not in text:
                self._status_before(text)
        for name, wanted in self._maps:
            if wanted:
                found = procfs.read(pid, name)
                if found != wanted:
                    raise differs(name, wanted.decode(), found.decode())
        _namespaces(pid, expected.new)
        if expected.joined:
            _joined(pid, expected.joined, namespaces)
        if self._read_only:
            _read_only(pid, self._read_only)

    def after(self, pid: int) -> None:
        """Compare the filter, and that no set holds more than asked. Raises StockadeError."""
        text = procfs.read(pid, "status")
        for line in self._after:
            if line not in text:
                self._status_after(pid, text)
                return

    def _status_before(self, text: bytes) -> None:
        expected, status = self.expected, _parsed(text)
        if status.uids != (self.uid,) * 4:
            raise differs("the uid outside", self.uid, status.uids)
        if status.gids != (self.gid,) * 4:
            raise differs("the gid outside", self.gid, status.gids)
        if status.caps != expected.before:
            raise _sets_differ(expected.before, status.caps)
        if expected.no_new_privs and not status.no_new_privs:  # where we have it all below us do, asked for or not
            raise differs("no_new_privs", True, False)

    def _status_after(self, pid: int, text: bytes) -> None:
        expected, status = self.expected, _parsed(text)
        if expected.filtered and status.seccomp not in {2, 3}:  # 3: it has killed the program, SECCOMP_MODE_DEAD
            raise differs("Seccomp", 2, status.seccomp)
        found, wanted = status.caps, expected.after
        # Without no_new_privs a program that is setuid or has file capabilities may have all of the bounding set.
        gained = wanted.permitted if expected.no_new_privs else wanted.bounding | wanted.inheritable
        more = found.permitted & ~gained or found.bounding & ~wanted.bounding or found.ambient & ~wanted.ambient
        own = "user" in expected.new or "user" in dict(expected.joined)
        if more and not _nested(pid, own=own):
            raise _sets_differ(wanted, found)
        if expected.no_new_privs and not status.no_new_privs:
            raise differs("no_new_privs", True, False)


def _nested(pid: int, *, own: bool) -> bool:
    """Tell whether the program has already made a user namespace below its own: it has every capability over that."""
    from stockade.sandbox.linux import namespaces

    try:
        above = namespaces.owner_of(pid, "user") if own else namespaces.inode(pid, "user")
        return above not in {None, namespaces.inode("self", "user")}
    except OSError:
        return False  # it has ended


def _printed(sets: capabilities.Sets) -> bytes:
    """Print five sets as /proc/PID/status does, proc(5)."""
    masks = (sets.inheritable, sets.permitted, sets.effective, sets.bounding, sets.ambient)
    return b"\nCapInh:\t%016x\nCapPrm:\t%016x\nCapEff:\t%016x\nCapBnd:\t%016x\nCapAmb:\t%016x\n" % masks


def _parsed(text: bytes) -> process.Status:
    return process.parse_status(text.decode("utf-8", "surrogateescape"))


def _mangled(path: str) -> bytes:
    """Print a path as /proc/PID/mountinfo does."""
    data = os.fsencode(path).replace(b"\\", b"\\134").replace(b" ", b"\\040")
    return data.replace(b"\n", b"\\012").replace(b"\t", b"\\011")


def _outside(mappings: Extents, inside: int) -> int:
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


def _extents(text: bytes) -> Extents:
    """Read /proc/PID/uid_map, user_namespaces(7)."""
    numbers = [int(word) for word in text.split()]
    return tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def _joined(pid: int, joined: tuple[tuple[str, str], ...], descriptors: Sequence[int]) -> None:
    """Compare namespaces with those that were named; by what was opened then, as a path may lead elsewhere by now."""
    for number, (kind, path) in enumerate(joined):
        wanted = os.fstat(descriptors[number]) if descriptors else os.stat(path)
        found = os.stat(f"/proc/{pid}/ns/{PROC_NAMES[kind]}")
        if (wanted.st_dev, wanted.st_ino) != (found.st_dev, found.st_ino):
            raise differs(f"the {kind} namespace", f"{path}, number {wanted.st_ino}", found.st_ino)


def _namespaces(pid: int, new: tuple[str, ...]) -> None:
    for kind in new:
        name = PROC_NAMES[kind]
        own = _own.get(kind)
        if own is None:
            try:
                own = os.readlink(f"/proc/self/ns/{name}")
            except FileNotFoundError:
                own = ""  # a kernel without this kind
            _own[kind] = own
        if os.readlink(f"/proc/{pid}/ns/{name}") == own:
            raise differs(f"the {kind} namespace", "new", "ours")


def _read_only(pid: int, points: list[tuple[str, bytes]]) -> None:
    flags = {}
    for line in procfs.read(pid, "mountinfo").splitlines():
        _, _, _, _, point, options, _ = line.split(b" ", 6)
        flags[point] = options  # of several mounts on one point the last covers the others
    for name, key in points:
        if key in flags and not flags[key].startswith(b"ro"):
            raise differs(f"the mount {name}", "read-only", flags[key].decode())
