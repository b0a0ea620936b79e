"""The other processes of a target's container: what they hold open, what they run, what they may do.

Fifty processes of one container that are audited one by one would each look at the same forty-nine others. What one
of them is does not depend on who asks, given where the container stands, so an audit looks once at each: a `Member`
is kept by pid, start time and `Place`, never longer than for one audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from stockade.audit import facts
from stockade.audit.facts import Where
from stockade.audit.targets import descriptors, identity
from stockade.sandbox.linux import mountinfo, process, procfs

if TYPE_CHECKING:
    from stockade.audit.facts import Fact
    from stockade.audit.targets.host import HostView
    from stockade.audit.targets.snapshot import Entry

#: by the number in /proc/PID/status
SECCOMP_MODES: tuple[Literal["disabled", "strict", "filter"], ...] = ("disabled", "strict", "filter")


class Member(NamedTuple):
    """What was read of one process. `sockets` are (descriptor, inode); `gap` says why its descriptors are not known."""

    facts: tuple[Fact, ...] = ()
    sockets: tuple[tuple[int, int], ...] = ()
    gap: str = ""


def read(entry: Entry, place: descriptors.Place, host: HostView) -> Member:
    """Look at a process of the container that stands in `place`; an empty Member when it ended meanwhile."""
    pid = entry.pid
    found: list[Fact] = []
    sockets: tuple[tuple[int, int], ...] = ()
    gap = ""
    try:
        found.append(_process(pid, host))
        try:
            if entry.inodes.get("mnt") != place.inodes.get("mnt"):
                # its own mounts count too
                place = place.including(mountinfo.of(pid), entry.inodes)
            held = descriptors.look(pid, place, host)
            sockets, gap = held.sockets, held.gap
            found += [*held.facts, descriptors.executable(pid, place, host)]
        except (ProcessLookupError, FileNotFoundError):
            pass  # it ended meanwhile; a zombie holds nothing open and runs nothing
        except (OSError, ValueError) as error:
            gap = f"process {pid}: {getattr(error, 'strerror', None) or error}"
        # The pid may be another's by now, one of another container or of the host.
        state = procfs.read(pid, "stat").rpartition(b")")[2].split()
    except (ProcessLookupError, FileNotFoundError):
        return Member()
    if state[0] in b"ZX" or int(state[19]) != entry.start:
        return Member()
    return Member(tuple(found), sockets, gap)


def _process(pid: int, host: HostView) -> facts.Process:
    status = process.status(pid)
    known = status.seccomp is not None and status.seccomp < len(SECCOMP_MODES)
    return facts.Process(
        where=Where(f"/proc/{pid}/status"),
        pid=pid,
        name=status.name,
        host_uid=status.uids[1],
        capabilities=status.caps.effective | status.caps.permitted,
        no_new_privs=status.no_new_privs,
        seccomp=SECCOMP_MODES[status.seccomp] if known and status.seccomp is not None else None,
        lsm=identity.label(pid, host) if status.seccomp is not None else None,
    )
