"""The groups of one container while it runs: join, freeze, kill, measure, remove."""

from __future__ import annotations

import errno
import os
import time

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_tree
from stockade.sandbox.linux import cgroups
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.linux.cgroups import Hierarchy

SIGKILL = 9  # on every architecture; the signal module brings enum, which costs the run path milliseconds
# Parents that hold our groups and nothing else; removed with the last of them.
OUR_PARENT = "stockade"


class Stats(Record):
    """What a container used. None says that nothing here counts it, never zero. Sums over nested groups.

    Bytes, microseconds and counts. `memory_peak` covers page cache, tmpfs and kernel memory charged to the group.
    """

    memory_peak: int | None = None
    memory_current: int | None = None
    cpu_usec: int | None = None
    cpu_throttled_usec: int | None = None
    cpu_throttled: int | None = None
    oom_kills: int | None = None
    pids_peak: int | None = None
    pids_current: int | None = None
    pids_refused: int | None = None


class Group:
    """One group in one hierarchy: `procs` is its cgroup.procs open for writing, or -1."""

    __slots__ = ("_fd", "hierarchy", "path", "procs")

    def __init__(self, hierarchy: Hierarchy, path: str, fd: int | None = None) -> None:
        self.hierarchy, self.path, self.procs = hierarchy, path, -1
        self._fd = fd

    @property
    def fd(self) -> int:
        """The group's directory, opened when it is first asked for (OSError), or -1 after `close`."""
        if self._fd is None:
            self._fd = cgroup_tree.open_directory(self.path)
        return self._fd

    def open_procs(self) -> None:
        """Open cgroup.procs for the launcher."""
        self.procs = cgroup_tree.open_procs(self.fd)

    def number(self, file: str) -> int | None:
        """Read a file with one number, None where there is no such file or it has no number."""
        try:
            text = cgroup_tree.read(self.fd, file).strip()
        except OSError:
            return None
        return int(text) if text.isdigit() else None

    def flat(self, file: str) -> dict[str, int]:
        """Read a flat keyed file, empty where there is none."""
        try:
            return cgroups.parse_flat(cgroup_tree.read(self.fd, file))
        except OSError:
            return {}

    def close(self) -> None:
        """Close both descriptors; once is enough and twice does no harm."""
        open_ones = [fd for fd in (self.procs, self._fd) if fd is not None and fd >= 0]
        self._fd = self.procs = -1
        for fd in open_ones:
            os.close(fd)


class Cgroup:
    """The groups of one container. Not for use from several threads at once.

    `enforced` says for each limit which file enforces it, `refused` (with best effort) why one isn't, and `notes`
    what else is worth saying: a default that this kernel can't hold.
    """

    __slots__ = ("enforced", "groups", "name", "notes", "refused")

    def __init__(
        self,
        name: str,
        groups: tuple[Group, ...],
        *,
        enforced: dict[str, str] | None = None,
        refused: dict[str, str] | None = None,
        notes: dict[str, str] | None = None,
    ) -> None:
        self.name, self.groups = name, groups
        self.enforced, self.refused, self.notes = enforced or {}, refused or {}, notes or {}

    @property
    def procs(self) -> tuple[int, ...]:
        """Descriptors of cgroup.procs, one a group, v2 last: the launcher writes the container's pid to each."""
        ordered = sorted(self.groups, key=lambda group: group.hierarchy.version)
        return tuple(group.procs for group in ordered if group.procs >= 0)

    @property
    def directory(self) -> int | None:
        """The v2 group's directory for a launcher that enters it with CLONE_INTO_CGROUP, or None."""
        return next((group.fd for group in self.groups if group.hierarchy.version == 2), None)

    @property
    def freezer(self) -> int | None:
        """The directory of the v1 group that can freeze, or None."""
        return next(
            (g.fd for g in self.groups if g.hierarchy.version == 1 and "freezer" in g.hierarchy.controllers), None
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Directories of the groups on this host, for the container's state."""
        return tuple(group.path for group in self.groups)

    def attach(self, pid: int) -> None:
        """Move a process into every group; OSError."""
        for fd in self.procs:
            os.write(fd, str(pid).encode())

    def pids(self) -> list[int]:
        """List the processes in the groups and below, each once."""
        found: set[int] = set()
        for group in self.groups:
            try:
                found.update(cgroup_tree.processes(group.fd))
            except OSError as error:
                if not cgroups.gone(error):
                    raise
        return sorted(found)

    def _freezer(self) -> Group | None:
        """The group that can freeze: v2 can without a controller."""
        groups = sorted(self.groups, key=lambda group: -group.hierarchy.version)
        return next((g for g in groups if g.hierarchy.version == 2 or "freezer" in g.hierarchy.controllers), None)

    def freeze(self, *, timeout: float = 5.0) -> None:
        """Stop every process until `thaw`; StockadeError if the kernel doesn't manage within the time."""
        self._set_frozen(frozen=True, timeout=timeout)

    def thaw(self, *, timeout: float = 5.0) -> None:
        """Let the processes go on."""
        self._set_frozen(frozen=False, timeout=timeout)

    def _set_frozen(self, *, frozen: bool, timeout: float) -> None:
        group = self._freezer()
        if group is None:
            raise StockadeError("pause needs a cgroup that can freeze, and this container has none")
        deadline = time.monotonic() + timeout
        unified = group.hierarchy.version == 2
        try:
            if unified:
                cgroup_tree.write(group.fd, "cgroup.freeze", "1" if frozen else "0")
            while _is_frozen(group) != frozen:
                if not unified:  # v1 stays FREEZING when a task forks meanwhile, until the state is written again
                    cgroup_tree.write(group.fd, "freezer.state", "FROZEN" if frozen else "THAWED")
                if time.monotonic() > deadline:
                    raise StockadeError(f"{group.path} is not {'frozen' if frozen else 'thawed'} after {timeout:g} s")
                time.sleep(cgroup_tree.PAUSE)
        except OSError as error:
            raise StockadeError(f"{'freeze' if frozen else 'thaw'} {group.path}: {error.strerror}") from error

    def is_frozen(self) -> bool:
        """Whether every process is stopped."""
        group = self._freezer()
        return group is not None and _is_frozen(group)

    def kill(self, *, timeout: float = 5.0) -> bool:
        """Send SIGKILL to every process in the groups and below and wait; whether none is left.

        v2 has cgroup.kill, which no fork escapes. On v1 the group is frozen while it is signalled, so that a fork bomb
        stands still; each round repeats it, for what was moved in or thawed meanwhile.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._kill_round()
            if not self.pids():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(cgroup_tree.PAUSE)

    def _kill_round(self) -> None:
        for group in self.groups:
            if group.hierarchy.version == 2:
                try:
                    cgroup_tree.write(group.fd, "cgroup.kill", "1")
                except OSError:  # before Linux 5.14, or gone
                    continue
        pids = self.pids()
        if not pids:
            return
        freezer = next((g for g in self.groups if "freezer" in g.hierarchy.controllers), None)
        if freezer:
            self._try_state(freezer, "FROZEN")
            pids = self.pids()
        for pid in pids:
            if pid > 0:
                try:
                    os.kill(pid, SIGKILL)
                except ProcessLookupError:
                    continue
        if freezer:
            self._try_state(freezer, "THAWED")

    def _try_state(self, group: Group, state: str) -> None:
        """Write freezer.state; for FROZEN wait 50 ms at most, a task in uninterruptible sleep may hold up no kill."""
        try:
            for _ in range(100):
                cgroup_tree.write(group.fd, "freezer.state", state)
                if state == "THAWED" or _is_frozen(group):
                    return
                time.sleep(cgroup_tree.PAUSE)
        except OSError:
            return

    def stats(self) -> Stats:
        """Read what the container used; call it before `remove`."""
        values: dict[str, int | None] = {}
        for group in self.groups:
            if group.fd < 0:
                continue
            found = _stats_v2(group) if group.hierarchy.version == 2 else _stats_v1(group)
            values |= {key: value for key, value in found.items() if value is not None}
        return Stats(**values)

    def remove(self, *, timeout: float = 2.0, parents: bool = True) -> bool:
        """Remove the groups and everything nested in them, and close the descriptors; whether all are gone.

        A group with live processes stays: `kill` first. `parents` also removes a parent `stockade` that became empty.
        """
        deadline = time.monotonic() + timeout
        gone = [remove_group(group, deadline, parents=parents) for group in self.groups]
        self.close()
        return all(gone)

    def close(self) -> None:
        """Close the descriptors and leave the groups as they are."""
        for group in self.groups:
            group.close()


def _is_frozen(group: Group) -> bool:
    if group.hierarchy.version == 2:
        return group.flat("cgroup.events").get("frozen") == 1
    return cgroup_tree.read(group.fd, "freezer.state").strip() == "FROZEN"


def remove_group(group: Group, deadline: float, *, parents: bool) -> bool:
    """Remove one group and what is nested in it until `deadline` (time.monotonic); whether it is gone."""
    try:
        if group.fd < 0:
            return not os.path.isdir(group.path)
        parent = cgroup_tree.open_directory("..", dir_fd=group.fd)
    except OSError as error:
        return cgroups.gone(error)
    parent_path, _, name = group.path.rpartition("/")
    try:
        cgroup_tree.prune(group.fd, deadline)
        cgroup_tree.remove(parent, name, deadline)
        if parents and parent_path.rpartition("/")[2] == OUR_PARENT:
            os.rmdir(f"../{OUR_PARENT}", dir_fd=parent)
    except OSError as error:
        # the parent is busy with another container, or gone with it
        return not cgroup_tree.has(parent, name) or cgroups.gone(error)
    finally:
        os.close(parent)
    return True


def _oom_kills(group: Group, file: str) -> int | None:
    """Add up over nested groups: v1 counts a kill only in the victim's own group."""
    total: int | None = None
    for fd in cgroup_tree.walk(group.fd):
        try:
            count = cgroups.parse_flat(cgroup_tree.read(fd, file)).get("oom_kill")
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENODEV}:
                raise
            continue
        if count is not None:
            total = (total or 0) + count
    return total


def _stats_v1(group: Group) -> dict[str, int | None]:
    names = group.hierarchy.controllers
    found: dict[str, int | None] = {}
    if "memory" in names:
        found["memory_peak"] = group.number("memory.max_usage_in_bytes")
        found["memory_current"] = group.number("memory.usage_in_bytes")
        found["oom_kills"] = _oom_kills(group, "memory.oom_control")
    if "cpuacct" in names:
        usage = group.number("cpuacct.usage")
        found["cpu_usec"] = None if usage is None else usage // 1000
    if "cpu" in names:
        stat = group.flat("cpu.stat")
        throttled = stat.get("throttled_time")
        found["cpu_throttled"] = stat.get("nr_throttled")
        found["cpu_throttled_usec"] = None if throttled is None else throttled // 1000
    if "pids" in names:
        found |= _stats_pids(group)
    return found


def _stats_v2(group: Group) -> dict[str, int | None]:
    cpu = group.flat("cpu.stat")  # usage is counted in every group, throttling with the controller
    return {
        "memory_peak": group.number("memory.peak"),  # Linux 5.19
        "memory_current": group.number("memory.current"),
        "oom_kills": group.flat("memory.events").get("oom_kill"),
        "cpu_usec": cpu.get("usage_usec"),
        "cpu_throttled": cpu.get("nr_throttled"),
        "cpu_throttled_usec": cpu.get("throttled_usec"),
        **_stats_pids(group),
    }


def _stats_pids(group: Group) -> dict[str, int | None]:
    return {
        "pids_peak": group.number("pids.peak"),  # Linux 6.1
        "pids_current": group.number("pids.current"),
        "pids_refused": group.flat("pids.events").get("max"),
    }
