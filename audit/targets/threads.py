"""Threads whose rights differ from those of their process's first thread.

Ids, capability sets, no_new_privs and filters belong to a thread, and setresuid(2), capset(2), prctl(2) and seccomp(2)
as system calls change the calling one alone: libc carries ids over to the others, nobody carries capabilities, and
filters only with SECCOMP_FILTER_FLAG_TSYNC. All share one memory, so what one thread may do the process may do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stockade.audit import facts
from stockade.audit.facts import Where
from stockade.audit.targets import identity
from stockade.sandbox.linux import process, procfs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stockade.audit.facts import SeccompMode
    from stockade.audit.targets.host import HostView
    from stockade.sandbox.linux.process import Status

#: threads that are looked at, of one process
MOST = 4096
#: by the number in /proc/PID/status
SECCOMP_MODES: tuple[SeccompMode, ...] = ("disabled", "strict", "filter")


class Threads(NamedTuple):
    """A fact for each set of rights that is not the first thread's. `gap` says why not all were looked at."""

    facts: tuple[facts.Process, ...] = ()
    gap: str = ""


def differing(pid: int, host: HostView) -> Threads:
    """Look at the threads of a process. Raises ProcessLookupError, FileNotFoundError when it has gone."""
    every = process.threads(pid)
    tids = [tid for tid in every if tid != pid][:MOST]
    # libc takes milliseconds to carry an id over to all threads: what differs twice is not on its way.
    differ = _unlike(pid, _unlike(pid, tids))
    alike: dict[str, list[int]] = {}
    for tid in differ:
        alike.setdefault(differ[tid][0], []).append(tid)
    found = tuple([of_status(pid, tuple(tids), differ[tids[0]][1], host) for tids in alike.values()])
    missed = len(every) - 1 - len(tids)
    return Threads(found, f"{missed} threads of process {pid} were not looked at" if missed else "")


def _unlike(pid: int, tids: Iterable[int]) -> dict[int, tuple[str, Status]]:
    """Give rights and status of the threads whose rights are not those of the first at this moment."""
    first = _rights(procfs.read_text(f"{pid}/task/{pid}", "status"))
    found = {}
    for tid in tids:
        try:
            text = procfs.read_text(f"{pid}/task/{tid}", "status")
        except (ProcessLookupError, FileNotFoundError):
            continue  # ended since the listing
        rights = _rights(text)
        if rights != first and "\nState:\tZ" not in text and "\nState:\tX" not in text:
            found[tid] = rights, process.parse_status(text)
    return found


def _rights(text: str) -> str:
    """Cut the lines of status that tell rights: Uid, Gid, and CapInh to Seccomp_filters."""
    ids = text.partition("\nUid:")[2].partition("\nFDSize:")[0]
    return ids + text.partition("\nCapInh:")[2].partition("\nSpeculation")[0]


def of_status(pid: int, tids: tuple[int, ...], status: Status, host: HostView) -> facts.Process:
    """Give the fact of a process, or of some of its threads, whose status was read."""
    task = f"{pid}/task/{tids[0]}" if tids else str(pid)
    known = status.seccomp is not None and status.seccomp < len(SECCOMP_MODES)
    return facts.Process(
        where=Where(f"/proc/{task}/status"),
        pid=pid,
        name=status.name,
        host_uid=status.uids[1],
        capabilities=status.caps.effective | status.caps.permitted,
        no_new_privs=status.no_new_privs,
        seccomp=SECCOMP_MODES[status.seccomp] if known and status.seccomp is not None else None,
        filters=status.seccomp_filters,
        lsm=identity.label(task, host) if status.seccomp is not None else None,
        threads=tids,
    )
