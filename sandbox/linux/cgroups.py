"""Control groups as the kernel shows them: hierarchies, membership, and the limits that bind up the whole tree.

cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst. Parsers take text and are pure; readers take an
optional `root`, the directory in which /proc and /sys are looked for, so that recorded trees can be read alike.
Nothing here writes.
"""

from __future__ import annotations

import errno
import os

from stockade.sandbox.linux import procfs
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAMES = "cpu cpuacct cpuset memory pids devices freezer blkio hugetlb net_cls net_prio perf_event rdma misc dmem"
V1_CONTROLLERS = frozenset(_NAMES.split())
# memory.limit_in_bytes of an unlimited v1 group is LONG_MAX rounded down to a page; pages are 4 to 64 KiB.
V1_UNLIMITED = (1 << 63) - (1 << 16)


class Hierarchy(Record):
    """One mounted hierarchy.

    `controllers`: v1 names, with `name=systemd` for a named one; for v2 the text of cgroup.controllers at the mount
    point. `directory` is the mount point, `root` the cgroup that is seen there: "/" unless only a subtree is visible,
    as in a container. `read_only` tells of the mount, not of permissions.
    """

    version: int
    controllers: tuple[str, ...]
    directory: str
    root: str = "/"
    read_only: bool = False

    def path(self, cgroup: str) -> str | None:
        """Give the directory of a cgroup named as in /proc/PID/cgroup, or None where this mount doesn't show it."""
        if "/.." in self.root or "/.." in cgroup:
            return None  # outside the reader's cgroup namespace: cgroup_namespaces(7) names such groups "/../x"
        if self.root == "/":
            return self.directory + cgroup.rstrip("/")
        if cgroup == self.root or cgroup.startswith(self.root + "/"):
            return self.directory + cgroup[len(self.root) :]
        return None


class Layout(Record):
    """Every hierarchy that is mounted and visible."""

    hierarchies: tuple[Hierarchy, ...]

    @property
    def v1(self) -> dict[str, str]:
        """Mount points of v1 hierarchies by controller; controllers mounted together share one."""
        return {name: h.directory for h in self.hierarchies if h.version == 1 for name in h.controllers}

    @property
    def v2(self) -> str | None:
        """The mount point of cgroup2, or None."""
        unified = self.unified
        return unified.directory if unified else None

    @property
    def v2_controllers(self) -> tuple[str, ...]:
        """Controllers that cgroup2 offers at its mount point."""
        unified = self.unified
        return unified.controllers if unified else ()

    @property
    def unified(self) -> Hierarchy | None:
        """The cgroup2 hierarchy, or None."""
        return next((h for h in self.hierarchies if h.version == 2), None)

    @property
    def hybrid(self) -> bool:
        """Whether v1 controllers are mounted beside cgroup2."""
        return self.v2 is not None and any(name in V1_CONTROLLERS for name in self.v1)

    def controller(self, name: str) -> Hierarchy | None:
        """Give the hierarchy that a controller is bound to; a controller is in one hierarchy only."""
        for hierarchy in self.hierarchies:
            if name in hierarchy.controllers:
                return hierarchy
        return None


class Limit(Record):
    """An effective limit: the lowest of the own cgroup and all visible ancestors.

    `value` is None when nothing limits; `source` is the file that decided, or what was read when nothing does: the
    own group's file, or the top group's directory where no group has such a file.
    Units: bytes for memory, tasks for pids, CPUs (1.5) for cpu, a count of CPUs or nodes for cpusets.
    """

    value: float | None
    source: str
    text: str = ""


class Limits(Record):
    """What limits a process, by name; `unknown` has the reason for each that can't be told, `usage` current values.

    Limits: memory, memory_swap (memory and swap together on v1, swap alone as `swap` on v2), pids, cpu, cpuset_cpus,
    cpuset_mems. Usage: memory, pids, cpu_usec.
    """

    limits: dict[str, Limit]
    usage: dict[str, int]
    unknown: dict[str, str]

    def get(self, name: str) -> Limit | None:
        """Give one limit, None when it is unknown."""
        return self.limits.get(name)


def parse_mounts(text: str) -> tuple[Hierarchy, ...]:
    """Give the cgroup mounts of a mountinfo text, in its order, the same hierarchy possibly several times."""
    from stockade.sandbox.linux import mountinfo

    lines = "\n".join([line for line in text.split("\n") if " - cgroup" in line])
    found = []
    for mount in mountinfo.parse(lines):
        if mount.fstype == "cgroup2":
            found.append(Hierarchy(2, (), mount.mount_point, mount.root, mount.read_only))
        elif mount.fstype == "cgroup":
            names = tuple([o for o in mount.super_options if o in V1_CONTROLLERS or o.startswith("name=")])
            found.append(Hierarchy(1, names, mount.mount_point, mount.root, mount.read_only))
    return tuple(found)


def parse_membership(text: str) -> dict[str, str]:
    """Give the cgroup by controller from the text of /proc/PID/cgroup; cgroup2 has the key ""."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def parse_list(text: str) -> frozenset[int]:
    """Read a list of CPUs or nodes, "0-3,8"; ValueError if it is none. An empty text is an empty set."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if part:
            numbers.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(numbers)


def parse_flat(text: str) -> dict[str, int]:
    """Read a flat keyed file such as memory.events or cpu.stat; lines that aren't `name number` are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def read_text(path: str, *, dir_fd: int | None = None, size: int = 65536) -> str:
    """Read a kernel file of at most `size` bytes at once; OSError names the path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return os.read(fd, size).decode(errors="surrogateescape")
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(fd)


def _proc(path: str) -> str:
    return os.fsdecode(procfs.read_path(path))


def layout(root: str = "") -> Layout:
    """Find the hierarchies that this process sees; OSError when mountinfo can't be read.

    Where a hierarchy is mounted several times, the first mount that shows all of it wins, else the first. A mount
    point that something else covers shows no cgroup.procs and doesn't count.
    """
    best: dict[tuple[int, tuple[str, ...]], Hierarchy] = {}
    for mount in parse_mounts(_proc(f"{root}/proc/self/mountinfo")):
        seen = best.get((mount.version, mount.controllers))
        if seen is not None and (seen.root == "/" or mount.root != "/"):
            continue
        if os.access(f"{root}{mount.directory}/cgroup.procs", os.F_OK):
            best[mount.version, mount.controllers] = mount
    return Layout(tuple(_with_controllers(h, root) if h.version == 2 else h for h in best.values()))


def _with_controllers(unified: Hierarchy, root: str) -> Hierarchy:
    try:
        names = read_text(f"{root}{unified.directory}/cgroup.controllers").split()
    except OSError:
        names = []
    return unified.replace(controllers=tuple(names))


def membership(pid: int | str = "self", root: str = "") -> dict[str, str]:
    """Read which cgroup a process is in, by controller (cgroup2: ""); OSError if the process is gone."""
    return parse_membership(_proc(f"{root}/proc/{pid}/cgroup"))


def writable(directory: str) -> bool:
    """Whether the caller may make groups in a directory and move processes there, by its effective ids."""
    mode = os.W_OK | os.X_OK
    return os.access(directory, mode, effective_ids=True) and os.access(
        f"{directory}/cgroup.procs", os.W_OK, effective_ids=True
    )


def locate(controller: str, groups: dict[str, str], where: Layout) -> tuple[Hierarchy, str]:
    """Give the hierarchy of a controller and the directory there of a process's group; LookupError has the reason."""
    hierarchy = where.unified if controller == "" else where.controller(controller)
    if hierarchy is None:
        raise LookupError(f"no hierarchy with the {controller or 'cgroup2'} controller is mounted")
    cgroup = groups.get("" if hierarchy.version == 2 else controller)
    if cgroup is None:
        raise LookupError(f"/proc/PID/cgroup has no line for {controller or 'cgroup2'}")
    directory = hierarchy.path(cgroup)
    if directory is None:
        raise LookupError(f"cgroup {cgroup} is not visible at {hierarchy.directory}, which shows {hierarchy.root}")
    return hierarchy, directory


def ancestors(directory: str, top: str) -> Iterator[str]:
    """Yield a directory and its parents up to and with `top`."""
    while True:
        yield directory
        if len(directory) <= len(top):
            return
        directory = directory.rpartition("/")[0]


def _bytes(text: str) -> float | None:
    value = text.strip()
    if value == "max" or int(value) >= V1_UNLIMITED:
        return None
    return int(value)


def _cpu_max(text: str) -> float | None:
    quota, period = text.split()
    return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)


def _count(text: str) -> float | None:
    return len(parse_list(text)) or None  # a v2 group without cpuset.cpus takes its parent's


def _lowest(directories: Iterator[str], file: str, value_of: Callable[[str], float | None], root: str) -> Limit:
    """Walk up the tree. The real root has no pids.max or memory.max: a process there is limited by nothing."""
    best: Limit | None = None
    path = ""
    for directory in directories:
        path = f"{directory}/{file}"
        try:
            text = _read_limit(root + path)
        except FileNotFoundError:
            continue
        value = value_of(text)
        if best is None or (value is not None and (best.value is None or value < best.value)):
            best = Limit(value, path, text.strip())
    return best or Limit(None, path.rpartition("/")[0])


def _read_limit(path: str) -> str:
    """Read one value; the two files of the v1 quota come as the one text that cgroup2 has."""
    text = read_text(path)
    if path.endswith("cpu.cfs_quota_us"):
        return f"{text.strip()} {read_text(path.replace('quota', 'period')).strip()}"
    return text


# name, controller, file on v1 and on v2 ("" where there is none), how a value is read
_FILES = (
    ("memory", "memory", "memory.limit_in_bytes", "memory.max", _bytes),
    ("memory_swap", "memory", "memory.memsw.limit_in_bytes", "", _bytes),
    ("swap", "memory", "", "memory.swap.max", _bytes),
    ("pids", "pids", "pids.max", "pids.max", _bytes),
    ("cpu", "cpu", "cpu.cfs_quota_us", "cpu.max", _cpu_max),
    ("cpuset_cpus", "cpuset", "cpuset.cpus", "cpuset.cpus.effective", _count),
    ("cpuset_mems", "cpuset", "cpuset.mems", "cpuset.mems.effective", _count),
)
_USAGE = (
    ("memory", "memory", "memory.usage_in_bytes", "memory.current"),
    ("pids", "pids", "pids.current", "pids.current"),
    ("cpu_usec", "cpuacct", "cpuacct.usage", ""),
    ("cpu_usec", "", "", "cpu.stat"),
)


def limits_of(pid: int | str = "self", where: Layout | None = None, root: str = "") -> Limits:
    """Read what limits a process: for each limit the lowest of its cgroup and all visible ancestors.

    OSError if the process is gone; a limit that can't be read is in `unknown` with the reason, never a default.
    """
    where = where or layout(root)
    groups = membership(pid, root)
    found: dict[str, Limit] = {}
    unknown: dict[str, str] = {}
    for name, controller, v1_file, v2_file, value_of in _FILES:
        try:
            hierarchy, directory = locate(controller, groups, where)
            file = v1_file if hierarchy.version == 1 else v2_file
            if not file:
                continue
            limit = _lowest(ancestors(directory, hierarchy.directory), file, value_of, root)
            found[name] = _refined(name, limit, hierarchy, directory, root)
        except (OSError, LookupError, ValueError) as error:
            unknown[name] = str(error)
    return Limits(found, _usage_of(groups, where, root), unknown)


def _refined(name: str, limit: Limit, hierarchy: Hierarchy, directory: str, root: str) -> Limit:
    """Correct what a walk over the visible tree can't see.

    memory.stat has the lowest limit of all ancestors, also of those above a container's visible root (v1 only). A
    cpuset with every CPU of the topmost visible group is no limit.
    """
    if name in {"memory", "memory_swap"} and hierarchy.version == 1:
        key = "hierarchical_memory_limit" if name == "memory" else "hierarchical_memsw_limit"
        path = f"{directory}/memory.stat"
        try:
            value = parse_flat(read_text(root + path)).get(key)
        except FileNotFoundError:
            value = None
        if value is not None and value < V1_UNLIMITED and (limit.value is None or value < limit.value):
            return Limit(value, f"{path} {key}", str(value))
    if name.startswith("cpuset"):
        file = limit.source.rpartition("/")[2]
        try:
            top = _count(read_text(f"{root}{hierarchy.directory}/{file}"))
        except FileNotFoundError:
            top = None
        if top is not None and limit.value is not None and limit.value >= top:
            return limit.replace(value=None)
    return limit


def _usage_of(groups: dict[str, str], where: Layout, root: str) -> dict[str, int]:
    usage: dict[str, int] = {}
    for name, controller, v1_file, v2_file in _USAGE:
        try:
            hierarchy, directory = locate(controller, groups, where)
            file = v1_file if hierarchy.version == 1 else v2_file
            if not file or name in usage:
                continue
            text = read_text(f"{root}{directory}/{file}")
            if file == "cpu.stat":
                usage[name] = parse_flat(text)["usage_usec"]
            else:
                usage[name] = int(text) // (1000 if file == "cpuacct.usage" else 1)
        except (OSError, LookupError, ValueError):
            continue
    return usage


def gone(error: OSError) -> bool:
    """Whether an error says that a cgroup isn't there any more: ENOENT, or ENODEV on an open file of it."""
    return error.errno in {errno.ENOENT, errno.ENODEV}
