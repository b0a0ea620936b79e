"""The groups of an engine's container: recorded on disk, reopened by each later command, removed at the end."""

from __future__ import annotations

import errno
import os
import time

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_tree
from stockade.sandbox.cgroup_group import SIGKILL, Cgroup, Group, remove_group
from stockade.sandbox.linux import cgroups
from stockade.sandbox.linux.cgroups import Hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from stockade.sandbox.oci.spec import LinuxResources

    class Unit(Protocol):
        """What else holds the groups: systemd's unit."""

        @property
        def record(self) -> str: ...  # noqa: D102 - the line that stands for it in the state

        def started(self) -> None: ...  # noqa: D102 - the container's first process is in the groups

        def stop(self) -> None: ...  # noqa: D102 - StockadeError

        def update(self, resources: LinuxResources, version: int, *, current: tuple[int, int]) -> None: ...  # noqa: D102 - StockadeError


class EngineCgroup(Cgroup):
    """The groups of one container of an engine; without any where none could be had and nothing asked for one.

    Directories are opened when they are needed, so that reopening costs nothing. `unit` is systemd's, or None.
    """

    __slots__ = ("unit",)

    def __init__(
        self,
        name: str,
        groups: tuple[Group, ...],
        *,
        enforced: dict[str, str] | None = None,
        notes: dict[str, str] | None = None,
        unit: Unit | None = None,
    ) -> None:
        super().__init__(name, groups, enforced=enforced, notes=notes)
        self.unit = unit

    @property
    def record(self) -> list[str]:
        """Give the lines by which `reopen` finds the groups: CONTROLLERS:DIRECTORY, and @UNIT where there is one."""
        lines = []
        for group in self.groups:
            names = ",".join(group.hierarchy.controllers) if group.hierarchy.version == 1 else ""
            lines.append(f"{names}:{group.path}")
        if self.unit:
            lines.append(f"@{self.unit.record}")
        return lines

    def open_procs(self) -> None:
        """Open cgroup.procs of each group, for a launcher that puts one more process there; StockadeError."""
        for group in self.groups:
            if group.procs < 0:
                try:
                    group.open_procs()
                except OSError as error:
                    raise StockadeError(
                        f"the container's cgroup {group.path} can't be joined: {error.strerror}"
                    ) from error

    def v1_paths(self) -> dict[str, str]:
        """Give the directories by v1 controller."""
        return {name: g.path for g in self.groups if g.hierarchy.version == 1 for name in g.hierarchy.controllers}

    def signal(self, number: int) -> None:
        """Send a signal to every process in the groups and below, at rest meanwhile so that no child escapes it."""
        if number == SIGKILL:
            self._kill_round()
            return
        freezer = self._freezer()
        thawed = freezer is not None and not self.is_frozen()
        if thawed:
            try:
                self.freeze(timeout=0.1)
            except StockadeError:  # a process in uninterruptible sleep holds up no signal
                pass
        try:
            for pid in self.pids():
                if pid > 0:
                    _signal(pid, number)
        finally:
            if thawed:
                self.thaw()

    def exists(self) -> bool:
        """Whether any of the groups is still there."""
        return any(os.path.isdir(group.path) for group in self.groups)

    def remove(self, *, timeout: float = 2.0, parents: bool = False) -> bool:
        """Remove the groups, and what the container nested in them; whether all are gone.

        A group with live processes stays: `kill` first. A group's directory is empty as a rule, and then one rmdir(2)
        each is all. systemd's unit is stopped first; if it can't be, StockadeError only while a group stays: systemd
        itself forgets a scope that has become empty.
        """
        refused = self._stop_unit()
        deadline = time.monotonic() + timeout
        gone = [remove_group(group, deadline, parents=parents) for group in _occupied(self.groups)]
        self.close()
        if refused and not all(gone):
            raise refused
        return all(gone)

    def _stop_unit(self) -> StockadeError | None:
        try:
            if self.unit:
                self.unit.stop()
        except StockadeError as error:
            return error
        return None

    def destroy(self, *, timeout: float = 5.0) -> bool:
        """Remove the groups, killing what still runs there; whether all are gone. StockadeError of systemd."""
        if self.unit is None and not _occupied(self.groups):
            self.close()
            return True
        if self.unit:
            self.unit.started()
        deadline = time.monotonic() + timeout
        self.kill(timeout=timeout)
        return self.remove(timeout=max(0.1, deadline - time.monotonic()))

    def below(self, words: Iterable[str]) -> EngineCgroup:
        """Give the groups that the words of `exec --cgroup` name, below these: PATH, or CONTROLLERS:PATH on v1.

        StockadeError for a path that leaves the container's group or isn't there.
        """
        wanted = _sub_paths(list(words))
        groups = []
        for group in self.groups:
            names = group.hierarchy.controllers if group.hierarchy.version == 1 else ()
            relative = next((wanted.pop(name) for name in names if name in wanted), wanted.get("", ""))
            groups.append(_nested(group, relative))
        wanted.pop("", None)
        if wanted:
            raise StockadeError(f"--cgroup: the container has no group with the {', '.join(wanted)} controller")
        return EngineCgroup(self.name, tuple(groups))

    def beside(self, pid: int) -> EngineCgroup:
        """Give the groups for one more process beside the container's init, whose pid is given.

        An init that manages groups itself, as systemd does, moves into a child group on cgroup2, after which the
        container's own group may hold no process ("no internal processes"): then the init's own group is taken.
        """
        groups = tuple([_habitable(group, pid) for group in self.groups])
        return self if groups == self.groups else EngineCgroup(self.name, groups)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _occupied(groups: Iterable[Group]) -> list[Group]:
    """Remove the groups that are empty and give those that stay."""
    return [group for group in groups if not _removed(group.path)]


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _sub_paths(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        controllers, colon, path = word.partition(":")
        if not colon:
            if len(words) > 1:
                raise StockadeError(f"invalid --cgroup argument: {word} (missing <controller>: prefix)")
            return {"": word}
        for name in controllers.split(","):
            if not name:
                raise StockadeError(f"invalid --cgroup argument: {word} (empty <controller> prefix)")
            if name in found:
                raise StockadeError(f"invalid --cgroup argument(s): controller {name} specified multiple times")
            found[name] = path
    return found


def _nested(group: Group, relative: str) -> Group:
    if not relative.strip("/"):
        return Group(group.hierarchy, group.path)
    try:
        parts = cgroup_tree.split(relative)
    except ValueError:
        raise StockadeError(f"bad sub cgroup path: {relative}") from None
    nested = Group(group.hierarchy, "/".join((group.path, *parts)))
    try:
        nested.open_procs()
    except OSError as error:
        raise StockadeError(f"--cgroup {relative}: {nested.path} can't be joined: {error.strerror}") from error
    return nested


def _habitable(group: Group, pid: int) -> Group:
    if group.hierarchy.version == 1:
        return group
    try:
        if not cgroup_tree.read(group.fd, "cgroup.subtree_control").strip():
            return group
        own = cgroups.membership(pid)[""]
        where = cgroups.layout().unified
    except (OSError, KeyError):
        return group
    path = where.path(own) if where else None
    inside = path is not None and path.startswith(group.path + "/")
    return Group(group.hierarchy, path) if path and inside else group


def reopen(record: Iterable[str]) -> EngineCgroup:
    """Give the groups that `EngineCgroup.record` tells of; nothing is opened yet, and `unit` is left to the caller.

    StockadeError for a line that is no such record.
    """
    groups = []
    for line in record:
        if line.startswith("@"):
            continue
        names, colon, path = line.partition(":")
        if not colon or not path.startswith("/") or "/../" in path + "/":
            raise StockadeError(f"the container's state: {line!r} names no control group")
        controllers = tuple(names.split(",")) if names else ()
        groups.append(Group(Hierarchy(1 if names else 2, controllers, ""), path))
    return EngineCgroup("", tuple(groups))


def busy(fd: int) -> int:
    """Count the processes in a group and below."""
    try:
        return len(cgroup_tree.processes(fd))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV}:
            return 0
        raise
