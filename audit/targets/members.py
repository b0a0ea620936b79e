"""The other processes of a target's container: what they hold open, what they run, what they may do.

Fifty processes of one container that are audited one by one would each look at the same forty-nine others. What one
of them is does not depend on who asks, given where the container stands, so an audit looks once at each: a `Member`
is kept by pid, start time and `Place`, never longer than for one audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stockade.audit.targets import descriptors, threads
from stockade.sandbox.linux import mountinfo, process, procfs

if TYPE_CHECKING:
    from stockade.audit.facts import Fact
    from stockade.audit.targets.host import HostView
    from stockade.audit.targets.snapshot import Entry


class Member(NamedTuple):
    """What was read of one process. `sockets` are (descriptor, inode).

    `gap` says why its descriptors are not known, `hidden` why not all of its threads are.
    """

    facts: tuple[Fact, ...] = ()
    sockets: tuple[tuple[int, int], ...] = ()
    gap: str = ""
    hidden: str = ""


def read(entry: Entry, place: descriptors.Place, host: HostView) -> Member:
    """Look at a process of the container that stands in `place`; an empty Member when it ended meanwhile."""
    pid = entry.pid
    found: list[Fact] = []
    sockets: tuple[tuple[int, int], ...] = ()
    gap = hidden = ""
    try:
        status = process.status(pid)
        found.append(threads.of_status(pid, (), status, host))
        if status.threads > 1:
            others = threads.differing(pid, host)
            found += others.facts
            hidden = others.gap
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
    return Member(tuple(found), sockets, gap, hidden)
