"""Notice that a container runs out of memory: an eventfd on cgroup v1, poll(2) on memory.events on v2."""

from __future__ import annotations

import os
import select

from stockade.sandbox import cgroup_tree
from stockade.sandbox.linux import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.cgroup_group import Cgroup, Group


class Watch:
    """`fd` is ready by `events` of poll(2) when something may have happened; `count` then tells how often."""

    __slots__ = ("_extra", "_group", "_seen", "_v2", "events", "fd")

    def __init__(self, group: Group) -> None:
        self.fd = self._extra = -1
        self._seen, self._group = 0, group
        self._v2 = group.hierarchy.version == 2
        if self._v2:
            self.fd = os.open("memory.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=group.fd)
            self.events = select.POLLPRI
            self._seen = self._kills()
            return
        self.events = select.POLLIN
        self._extra = os.open("memory.oom_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=group.fd)
        try:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            cgroup_tree.write(group.fd, "cgroup.event_control", f"{self.fd} {self._extra}")
        except BaseException:
            self.close()
            raise

    def _kills(self) -> int:
        """Count the kills since the group was made; kernfs wants the file read before poll(2) waits for the next."""
        try:
            return cgroups.parse_flat(os.pread(self.fd, 65536, 0).decode()).get("oom_kill", 0)
        except OSError as error:
            if not cgroups.gone(error):
                raise
            return self._seen

    def count(self) -> int:
        """Tell how often it happened since the last call. The removal of a v1 group wakes, too, and doesn't count."""
        if self._v2:
            before, self._seen = self._seen, self._kills()
            return self._seen - before
        try:
            number = os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0
        return number if cgroup_tree.has(self._group.fd, "cgroup.event_control") else 0

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.fd, self._extra):
            if fd >= 0:
                os.close(fd)
        self.fd = self._extra = -1


def watch(cgroup: Cgroup) -> Watch | None:
    """Watch the group with the memory controller; None where there is none, or it can't be watched."""
    for group in cgroup.groups:
        try:
            if group.hierarchy.version == 1 and "memory" in group.hierarchy.controllers:
                return Watch(group)
            if group.hierarchy.version == 2 and cgroup_tree.has(group.fd, "memory.events"):
                return Watch(group)
        except OSError:
            continue
    return None
