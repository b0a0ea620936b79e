"""What a process sees mounted, compared with the host's own mounts.

From mountinfo alone: no path of the container is walked, for a hostile one may hang whoever looks.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stockade.audit import facts
from stockade.audit.facts import Where
from stockade.audit.targets.host import SOCKETS, HostView
from stockade.sandbox.linux.mountinfo import Mount, covering

#: what OCI runtimes mask or make read-only by default (runtime-tools, moby/oci/defaults.go), and what ought to be
PROTECTED = (
    "/proc/acpi", "/proc/asound", "/proc/bus", "/proc/config.gz", "/proc/fs", "/proc/interrupts", "/proc/irq",
    "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/sys", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/security", "/sys/kernel/vmcoreinfo",
)  # fmt: skip
_KERNELS_OWN = frozenset({"proc", "sysfs"})
_ENGINES_FILES = (
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/run/.containerenv",
    "/dev/termination-log",
    "/dev/console",
)
_ENGINES_PLACES = ("/var/lib/", "/run/", "/var/run/", "/home/", "/root/.local/share/", "/tmp/stockade", "/dev/pts/")
_NODES = frozenset("/dev/" + name for name in ("null", "zero", "full", "random", "urandom", "tty", "console"))


@dataclass(frozen=True, slots=True)
class View:
    """The mounts of a process: `all` in mountinfo's order, `visible` without those that others cover.

    `path` is the file that was read, `lines` has the line of each mount by its id.
    """

    path: str
    all: tuple[Mount, ...]
    visible: tuple[Mount, ...]
    lines: dict[int, int]

    def where(self, mount: Mount | None) -> Where:
        """Give the line of a mount."""
        return Where(self.path, self.lines.get(mount.id, 0) if mount else 0)


def view(mounts: tuple[Mount, ...], path: str) -> View:
    """Sort out what is visible of the mounts that were read from `path`."""
    return View(path, mounts, visible(mounts), {mount.id: line for line, mount in enumerate(mounts, 1)})


def visible(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Leave out what others cover: mounts with one on their root, those below a later one, and all under them."""
    by_id = {mount.id: mount for mount in mounts}
    points = {(mount.parent, mount.mount_point) for mount in mounts}
    covered = {mount.parent for mount in mounts if _stacked(mount, by_id)}
    known: dict[int, bool] = {}

    def buried(mount: Mount) -> bool:
        if mount.id not in known:
            parent = by_id.get(mount.parent)
            known[mount.id] = False  # ends a circle, which the kernel never makes
            known[mount.id] = any((mount.parent, above) in points for above in _above(mount.mount_point)) or (
                parent is not None and (buried(parent) or (parent.id in covered and not _stacked(mount, by_id)))
            )
        return known[mount.id]

    return tuple([mount for mount in mounts if mount.id not in covered and not buried(mount)])


def _stacked(mount: Mount, by_id: dict[int, Mount]) -> bool:
    parent = by_id.get(mount.parent)
    return parent is not None and parent.mount_point == mount.mount_point


def _above(path: str) -> Iterator[str]:
    while (path := path.rpartition("/")[0]) != "":
        yield path


def facts_of(view: View, host: HostView) -> Iterator[facts.Mount]:
    """Give a fact for each visible mount."""
    for mount in view.visible:
        host_path = host.path_of((mount.major, mount.minor), mount.root) if host.trusted else None
        yield facts.Mount(
            where=view.where(mount),
            destination=mount.mount_point,
            fstype=mount.fstype,
            host_path=host_path,
            writable=not mount.read_only,
            options=mount.options,
            super_options=mount.super_options,
            source=mount.source,
            propagation=_propagation(mount, host),
            engine_made=host_path is not None and _engine_made(mount, host_path),
            directory=None if host_path is None else host.is_directory(host_path),
        )


def _propagation(mount: Mount, host: HostView) -> Literal["private", "shared", "slave", "unbindable"]:
    # A peer group of the container alone reaches nobody else.
    if mount.shared is not None and mount.shared in host.groups:
        return "shared"
    if mount.master is not None:
        return "slave"
    return "unbindable" if "unbindable" in mount.optional else "private"


def _engine_made(mount: Mount, host_path: str) -> bool:
    """Say whether it is a file that engines bind themselves: its own copy of /etc/hosts, a standard node, a mask."""
    point = mount.mount_point
    if point in _ENGINES_FILES and host_path != point and host_path.startswith(_ENGINES_PLACES):
        return True
    return host_path in _NODES and (point in _NODES or point.startswith(("/proc/", "/sys/")))


def masks(view: View, host: HostView) -> Iterator[facts.Mask]:
    """Tell of each path that runtimes protect how it is protected here."""
    relevant = tuple([m for m in view.visible if m.mount_point == "/" or m.mount_point.startswith(("/proc", "/sys"))])
    for protected in PROTECTED:
        mount = covering(relevant, protected)
        yield facts.Mask(where=view.where(mount), path=protected, state=_state(mount, protected, host))


def _state(mount: Mount | None, path: str, host: HostView) -> Literal["masked", "read-only", "open", "absent"]:
    if mount is None or mount.mount_point == "/" or not host.has(path):
        return "absent"  # no procfs there, or this kernel has no such file
    if mount.fstype not in _KERNELS_OWN:
        return "masked"
    if "subset=pid" in mount.super_options:
        return "absent"  # such a procfs has nothing but processes
    return "read-only" if mount.read_only else "open"


def engine_sockets(view: View, host: HostView) -> Iterator[facts.EngineSocket]:
    """Find the host's engine sockets in view, under whatever name, and through a mount above them as well."""
    for mount in view.visible:
        source = host.path_of((mount.major, mount.minor), mount.root)
        if source is None:
            continue
        for socket, engine in host.sockets:
            place = mount.mount_point
            if source != socket:
                if source != "/" and not socket.startswith(source + "/"):
                    continue
                place = posixpath.join(place, posixpath.relpath(socket, source))
                if covering(view.visible, place) != mount or not _same_file_system(mount, socket, host):
                    continue
            yield facts.EngineSocket(where=view.where(mount), path=place, engine=engine, host_path=socket)
        engine = SOCKETS.get(mount.root.rpartition("/")[2], "")
        if engine and all(socket != source for socket, _ in host.sockets) and host.is_directory(source) is not True:
            # Nobody listens there, or its name on the host could not be found; the mount says what it was meant to be.
            yield facts.EngineSocket(where=view.where(mount), path=mount.mount_point, engine=engine, host_path=source)


def _same_file_system(mount: Mount, socket: str, host: HostView) -> bool:
    # A bind of / without its submounts does not bring the tmpfs at /run with it.
    cover = covering(host.mounts, socket)
    return cover is not None and (cover.major, cover.minor) == (mount.major, mount.minor)
