"""One look at all processes of the host: what is needed to tell containers from the rest, and no more."""

import os
from dataclasses import dataclass

from stockade.sandbox.linux import namespaces, process, procfs

KINDS = tuple(kind for kind in namespaces.KINDS if kind != "time")


@dataclass(frozen=True, slots=True)
class Entry:
    """A process. `inodes` are its namespaces by kind, empty without ptrace access; `cgroup` is the text of its file.

    Of a process whose first thread has ended `pid` and `start` are those of another thread, which stands for it.
    """

    pid: int
    ppid: int
    start: int
    inodes: dict[str, int]
    cgroup: str

    @property
    def order(self) -> tuple[int, int]:
        """Oldest first."""
        return self.start, self.pid


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All processes by pid, without kernel threads and zombies; of `closed` ones the namespaces can't be read."""

    entries: dict[int, Entry]
    closed: tuple[int, ...]


def take() -> Snapshot:
    """Look at every process that /proc shows. One that vanishes meanwhile is left out."""
    entries: dict[int, Entry] = {}
    closed: list[int] = []
    for pid in process.list_pids():
        try:
            entry = look(pid)
        except (ProcessLookupError, FileNotFoundError):
            continue
        except PermissionError:
            closed.append(pid)
            continue
        if entry:
            entries[pid] = entry
            if not entry.inodes:
                closed.append(pid)
    return Snapshot(entries, tuple(closed))


def look(pid: int, *, thread: bool = False) -> Entry | None:
    """Look at one process, or at a `thread` alone; None for a kernel thread and a zombie. Raises ProcessLookupError."""
    fields = procfs.read(pid, "stat").rpartition(b")")[2].split()
    # proc(5): after the name come state and ppid; the seventh is flags, PF_KTHREAD is 0x00200000; the 20th start
    if int(fields[6]) & 0x00200000:
        return None
    if fields[0] in b"ZX":
        return _survivor(pid) if int(fields[17]) > 1 and not thread else None
    try:
        inodes = inodes_of(pid)
    except PermissionError:
        inodes = {}
    cgroup = procfs.read(pid, "cgroup").decode("utf-8", "surrogateescape")
    return Entry(pid, int(fields[1]), int(fields[19]), inodes, cgroup)


def _survivor(pid: int) -> Entry | None:
    """Look at a living thread of a process whose first one called exit(2): a zombie to ps, and runs all the same.

    /proc has a directory for each thread, which is not listed.
    """
    for tid in process.threads(pid):
        if tid != pid:
            try:
                entry = look(tid, thread=True)
            except (ProcessLookupError, FileNotFoundError):
                continue
            if entry:
                return entry
    return None


def inodes_of(pid: int, kinds: tuple[str, ...] = KINDS) -> dict[str, int]:
    """Read the numbers of a process's namespaces. Raises PermissionError, and ProcessLookupError for zombies too."""
    found: dict[str, int] = {}
    for kind in kinds:
        try:
            # "mnt:[4026531841]": a link's text costs half of a stat
            found[kind] = int(os.readlink(f"/proc/{pid}/ns/{kind}").partition("[")[2][:-1])
        except FileNotFoundError:
            if namespaces.supported(kind):  # it has gone, or is a zombie, which has no namespaces any more
                raise ProcessLookupError(pid) from None
    return found
