"""Make the groups of an engine's container from its config.json, and change their limits later.

As runc 1.2 does, with three differences: each limit is read back; where cgroups are mounted read-only, a container that
asks for nothing they enforce starts without; and hybrid hosts have a group in the empty cgroup2 too.

A value that is the kernel's default never fails for want of its file, and anything else that can't be had is refused.
In a user namespace, or for a user other than root, no one can set device rules: they are skipped, as runc skips them,
because mknod(2) makes no device there either.
"""

from __future__ import annotations

import errno
import os

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_limits, cgroup_place, cgroup_tree
from stockade.sandbox.cgroup_group import Group
from stockade.sandbox.cgroup_handle import EngineCgroup, busy, reopen
from stockade.sandbox.cgroup_place import Refused, apply_write
from stockade.sandbox.linux import cgroups, procfs
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from stockade.sandbox.cgroup_handle import Unit
    from stockade.sandbox.cgroup_limits import Write
    from stockade.sandbox.linux.cgroups import Hierarchy, Layout
    from stockade.sandbox.oci.spec import LinuxResources

__all__ = ["EngineCgroup", "Place", "create", "place", "privileged", "reopen", "rootless", "update"]

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_UNIFIED = "/sys/fs/cgroup"
#: what cgroup2 does without a controller
_CORE = frozenset({"", "devices", "freezer", "cpuacct"})


class _Invisible(Refused):
    """The caller's own group is outside of what is mounted here."""


class Place(Record):
    """Where a container's groups go: `parts` below the top of each hierarchy, or below the caller's own group.

    `explicit`: the configuration names it. `owned`: somebody (systemd) has made it already, with a process of ours in.
    """

    parts: tuple[str, ...]
    absolute: bool
    explicit: bool
    owned: bool = False


def place(path: str, identity: str) -> Place:
    """Read cgroupsPath: an empty one is the container's name below the caller's own group; ".." leads nowhere."""
    clean = os.path.normpath("/" + path).strip("/")
    parts = tuple(clean.split("/")) if clean else (identity,)
    if any("\n" in part or "\0" in part for part in parts):
        raise StockadeError(f"linux.cgroupsPath: {path!r} is not the name of a control group")
    return Place(parts, path.startswith("/"), bool(clean))


def privileged() -> bool:
    """Whether we are root of the first user namespace: only then device rules and systemd's own bus are for us."""
    return os.geteuid() == 0 and procfs.read_path("/proc/self/uid_map").split() == [b"0", b"0", b"4294967295"]


def rootless(word: str) -> bool:
    """Give what `--rootless` means: "true", "false", or "auto" by who we are."""
    return not privileged() if word == "auto" else word == "true"


def create(
    where_to: Place,
    resources: LinuxResources | None,
    *,
    rootless: bool = False,
    layout: Layout | None = None,
    unit: Unit | None = None,
    intend: Callable[[list[str]], None] | None = None,
) -> EngineCgroup:
    """Make a group in every hierarchy, write the limits, and open cgroup.procs of each for the launcher.

    StockadeError if a group that was asked for, or a limit, can't be had; nothing is left behind then, save the `unit`,
    which is the caller's. `rootless` tolerates hierarchies that the caller may not write, if nothing needs them.
    `intend` is told the record of what will be made before the first group is.
    """
    maker = _Maker(where_to, layout or _layout(where_to), rootless=rootless)
    try:
        writes = cgroup_limits.writes(resources, maker.version_of, literal=True)
        if intend is not None:
            intend(maker.planned(unit))
        maker.make({write.controller for write in writes})
        notes = _apply(maker, writes)
        _devices(maker, resources, notes)
        for group in maker.groups.values():
            _check_thawed(group)
            group.open_procs()
    except BaseException:
        maker.undo()
        raise
    return EngineCgroup("/".join(where_to.parts), tuple(maker.groups.values()), notes=notes, unit=unit)


def _layout(where_to: Place) -> Layout:
    """Find the hierarchies. cgroup2 at its usual place is the only one, whatever a program mounted beside it.

    It takes mountinfo, long on a host with many containers, only to tell where the caller's own group is seen.
    """
    try:
        names = tuple(cgroups.read_text(f"{_UNIFIED}/cgroup.controllers").split())
    except OSError:
        return cgroups.layout()
    if where_to.absolute:
        return cgroups.Layout((cgroups.Hierarchy(2, names, _UNIFIED),))
    return cgroups.Layout(tuple(h for h in cgroups.layout().hierarchies if h.directory == _UNIFIED))


class _Groups:
    """Groups by hierarchy, and why a controller has none."""

    def __init__(self, where: Layout) -> None:
        self.where = where
        self.groups: dict[Hierarchy, Group] = {}
        self.failed: dict[Hierarchy, Refused] = {}
        self.controllers = {name: h for h in where.hierarchies for name in h.controllers}
        self.version = 1 if any(name in cgroups.V1_CONTROLLERS for name in where.v1) else 2

    def version_of(self, controller: str) -> int:
        """Tell which version of cgroups has a controller here, and for one that is absent which would."""
        hierarchy = self.controllers.get(controller)
        return hierarchy.version if hierarchy else self.version

    def group_of(self, controller: str) -> Group:
        """Give the group that has a controller's files, or raise Refused."""
        home = self.controllers.get(controller)
        if home is None and controller in _CORE:
            home = self.where.unified
        if home is None:
            raise Refused(f"this machine has no {controller or 'cgroup2'} controller", "leave the limit out")
        if home not in self.groups:
            raise self.failed.get(home) or Refused(f"the container has no group with the {controller} controller", "")
        return self.groups[home]


class _Maker(_Groups):
    """The work of `create`."""

    def __init__(self, where_to: Place, where: Layout, *, rootless: bool) -> None:
        super().__init__(where)
        self.place, self.rootless = where_to, rootless
        self.own = {} if where_to.absolute else cgroups.membership()
        self.made: list[str] = []  # directories, in their order

    def planned(self, unit: Unit | None) -> list[str]:
        """Give the record, see `EngineCgroup.record`, of the groups as they will be."""
        groups = []
        for hierarchy in self.where.hierarchies:
            try:
                groups.append(Group(hierarchy, "/".join((self._base(hierarchy), *self.place.parts))))
            except Refused:
                continue
        return EngineCgroup("", tuple(groups), unit=unit).record

    def make(self, wanted: set[str]) -> None:
        """Make the group in each hierarchy. StockadeError for one that can't be had and isn't optional."""
        for hierarchy in self.where.hierarchies:
            optional = hierarchy.version == 2 and self.where.hybrid
            try:
                path = self._make_v1(hierarchy) if hierarchy.version == 1 else self._make_v2(hierarchy, wanted)
                self.groups[hierarchy] = Group(hierarchy, path, cgroup_tree.open_directory(path))
            except OSError as error:
                reason = cgroup_place.explain(error, str(error.filename or hierarchy.directory), hierarchy.version)
                if not (optional or self._tolerable(error)):
                    raise _no_group(reason) from error
                self.failed[hierarchy] = reason
            except Refused as error:
                unseen = isinstance(error, _Invisible) and self.rootless and not self.place.explicit
                if not (optional or unseen):
                    raise _no_group(error) from error
                self.failed[hierarchy] = error

    def _tolerable(self, error: OSError) -> bool:
        """Whether to do without: limits that need the group are refused afterwards, device rules by `_devices`."""
        return error.errno == errno.EROFS or (self.rootless and not self.place.explicit and error.errno in _FORBIDDEN)

    def _base(self, hierarchy: Hierarchy) -> str:
        """Give the directory below which the place counts."""
        if self.place.absolute:
            return hierarchy.directory
        own = self.own.get(hierarchy.controllers[0] if hierarchy.version == 1 else "")
        path = hierarchy.path(own) if own is not None else None
        if path is None:
            raise _Invisible(
                f"the caller's own group is not visible at {hierarchy.directory}",
                "mount cgroups in the caller's own cgroup namespace, or give an absolute linux.cgroupsPath",
            )
        # our own group holds us, so on cgroup2 its children get no controllers: beside it, as runc has it
        beside = hierarchy.version == 2 and len(path) > len(hierarchy.directory)
        return path.rpartition("/")[0] if beside else path

    def _make_v1(self, hierarchy: Hierarchy) -> str:
        base = self._base(hierarchy)
        path = "/".join((base, *self.place.parts))
        cpuset = "cpuset" in hierarchy.controllers
        if cpuset or not self._made_last(path):
            above = base
            for part in self.place.parts:
                step = f"{above}/{part}"
                self._make_directory(step, last=step == path)
                if cpuset:
                    _inherit_cpuset(above, step)
                above = step
        return path

    def _make_v2(self, hierarchy: Hierarchy, wanted: set[str]) -> str:
        """Pass controllers on from the top as far as we may, and make the group.

        On a hybrid host only those that a limit needs, and in a unit, to which systemd delegates those that it knows.
        """
        path, base = hierarchy.directory, self._base(hierarchy)
        offered = frozenset(hierarchy.controllers)
        controllers = offered & wanted if self.where.hybrid or self.place.owned else offered
        below = base[len(path) :].strip("/")
        parts = (*below.split("/"), *self.place.parts) if below else self.place.parts
        for depth, part in enumerate(parts):
            if controllers:
                _enable(path, controllers)
            path = f"{path}/{part}"
            if len(parts) - depth <= len(self.place.parts):
                self._make_directory(path, last=depth == len(parts) - 1)
                _leave_invalid(path, domain=bool(wanted & _DOMAIN))
        return path

    def _made_last(self, path: str) -> bool:
        """Make the group itself; False where its parents aren't there yet."""
        try:
            self._make_directory(path, last=True)
        except FileNotFoundError:
            return False
        return True

    def _make_directory(self, path: str, *, last: bool) -> None:
        try:
            os.mkdir(path, 0o755)
            self.made.append(path)
        except FileExistsError:
            if last and not self.place.owned:
                _check_empty(path)

    def undo(self) -> None:
        """Remove what was made."""
        for group in self.groups.values():
            group.close()
        for path in reversed(self.made):
            try:
                os.rmdir(path)
            except OSError:  # somebody else uses the parent by now
                continue


def _no_group(reason: Refused) -> StockadeError:
    return StockadeError(f"the container's cgroup can't be made: {reason.reason}", hint=reason.hint)


def _check_empty(path: str) -> None:
    fd = cgroup_tree.open_directory(path)
    try:
        count = busy(fd)
    finally:
        os.close(fd)
    if count:
        raise Refused(f"container's cgroup is not empty: {count} process(es) found in {path}", "stop them first")


def _inherit_cpuset(above: str, path: str) -> None:
    """Copy the parent's CPUs and nodes, without which a v1 cpuset admits no process."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not cgroups.read_text(f"{path}/{file}").strip():
            _put(f"{path}/{file}", cgroups.read_text(f"{above}/{file}").strip())


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def _enable(directory: str, controllers: frozenset[str]) -> None:
    """Pass controllers on to the children; one that can't be is missed by the limit that needs it, if there is one."""
    file = f"{directory}/cgroup.subtree_control"
    missing = controllers - frozenset(cgroups.read_text(file).split())
    try:
        if missing:
            _put(file, cgroup_place.enabling(missing))
    except OSError:
        for name in sorted(missing):
            try:
                _put(file, f"+{name}")
            except OSError:
                continue


#: controllers that no threaded group can have
_DOMAIN = frozenset({"memory", "io", "hugetlb", "rdma", "misc"})


def _leave_invalid(path: str, *, domain: bool) -> None:
    """Make a group that is in the way of processes above it a threaded one, the only kind it can be; Refused."""
    try:
        kind = cgroups.read_text(f"{path}/cgroup.type").strip()
    except FileNotFoundError:  # Linux 4.13 and older
        return
    if kind == "domain":
        return
    if domain:
        raise Refused(
            f"cannot enter cgroupv2 {path!r} with domain controllers -- it is in {kind} mode",
            "choose a linux.cgroupsPath whose parents hold no processes",
        )
    if kind == "domain invalid":
        _put(f"{path}/cgroup.type", "threaded")


def _apply(made: _Groups, writes: tuple[Write, ...]) -> dict[str, str]:
    """Write each limit and read it back, and give notes about defaults that this kernel can't hold.

    What fails gets a second turn: memsw may never be below memory, nor a quota below its burst, so that the order
    depends on what was there.
    """
    notes: dict[str, str] = {}
    again = [write for write in writes if _refusal(made, write)]
    for write in again:
        error = _refusal(made, write)
        if error is None:
            continue
        if not write.implied:
            raise StockadeError(f"{write.limit} can't be enforced: {error.reason}", hint=error.hint)
        notes[write.limit] = error.reason
    return notes


def _refusal(made: _Groups, write: Write) -> Refused | None:
    try:
        apply_write(made.group_of(write.controller), write)
    except Refused as error:
        return error
    return None


def _devices(made: _Groups, resources: LinuxResources | None, notes: dict[str, str]) -> None:
    """Set the device rules, those that every container has included; StockadeError if it fails and matters."""
    from stockade.sandbox import cgroup_devices
    from stockade.sandbox.linux.cgroup_devices import ENGINE

    rules = resources.devices if resources else ()
    if not privileged():
        notes["devices"] = "in a user namespace nobody can set device rules, nor make devices"
        return
    try:
        cgroup_devices.apply(made.group_of("devices"), rules, ENGINE)
    except Refused as error:
        everything = all(rule.allow and set(rule.access) >= set("rwm") for rule in rules)
        if made.groups or not everything:
            raise StockadeError(f"device rules can't be enforced: {error.reason}", hint=error.hint) from error
        notes["devices"] = error.reason


def _check_thawed(group: Group) -> None:
    """A container in a frozen group would never get as far as `start`."""
    try:
        if group.hierarchy.version == 2:
            frozen = "frozen 1" in cgroup_tree.read(group.fd, "cgroup.events")
        elif "freezer" in group.hierarchy.controllers:
            frozen = cgroup_tree.read(group.fd, "freezer.state").strip() != "THAWED"
        else:
            return
    except FileNotFoundError:
        return
    if frozen:
        raise StockadeError(f"container's cgroup unexpectedly frozen: {group.path}", hint="thaw the group above it")


def update(cgroup: EngineCgroup, resources: LinuxResources) -> dict[str, str]:
    """Change the limits that are named; StockadeError for the first that doesn't hold. Device rules stay as they are.

    Gives notes about defaults that this kernel can't hold. What was written before a failure stays.
    """
    made = _Groups(_layout_of(cgroup))
    made.groups = {group.hierarchy: group for group in cgroup.groups}
    resources, current = _completed(made, resources)
    writes = cgroup_limits.writes(resources, made.version_of, literal=True)
    if cgroup.unit:
        cgroup.unit.update(resources, made.version_of("memory"), current=current)
    return _apply(made, writes)


def _layout_of(cgroup: EngineCgroup) -> Layout:
    """Give the hierarchies of reopened groups; what cgroup2 offers a group is read now."""
    for group in cgroup.groups:
        if group.hierarchy.version == 2 and not group.hierarchy.controllers:
            names = cgroup_tree.read(group.fd, "cgroup.controllers").split()
            group.hierarchy = group.hierarchy.replace(controllers=tuple(names))
    return cgroups.Layout(tuple(group.hierarchy for group in cgroup.groups))


def _completed(made: _Groups, resources: LinuxResources) -> tuple[LinuxResources, tuple[int, int]]:
    """Fill in from the kernel what a value of cgroup2 says together with another: quota and period, swap and memory.

    Gives the memory limit and the CPU period that hold before, too; 0 where there is none.
    """
    cpu, memory = resources.cpu, resources.memory
    limit = period = 0
    if cpu and bool(cpu.quota) != bool(cpu.period) and made.version_of("cpu") == 2:
        quota_text, period_text = cgroup_tree.read(made.group_of("cpu").fd, "cpu.max").split()
        quota, period = -1 if quota_text == "max" else int(quota_text), int(period_text)
        cpu = cpu.replace(quota=cpu.quota or quota, period=cpu.period or period)
    if memory and made.version_of("memory") == 2:
        fd = made.group_of("memory").fd
        text = cgroup_tree.read(fd, "memory.max").strip()
        limit = int(text) if text.isdigit() else 0
        if memory.swap and memory.swap > 0 and not memory.limit:
            memory = memory.replace(limit=limit)
        if memory.check_before_update and memory.limit and memory.limit > 0:
            _check_usage(fd, memory.limit)
    return resources.replace(cpu=cpu, memory=memory), (limit, period)


def _check_usage(fd: int, limit: int) -> None:
    usage = int(cgroup_tree.read(fd, "memory.current"))
    if usage > limit:
        raise StockadeError(f"rejecting memory limit {limit}: usage is {usage}", hint="ask for more than that")
