"""A container's control groups: made with its limits before it starts, killed, measured and removed with it.

Every limit is read back after it was written. One that can't be had, or that the kernel changed, refuses the launch and
names limit, reason and remedy, unless best effort was asked for: then it's in `Cgroup.refused`. With nothing to limit,
`create` makes no group at all and costs microseconds.
"""

from __future__ import annotations

import os
import time

from stockade.errors import StockadeError
from stockade.sandbox import cgroup_limits, cgroup_place, cgroup_tree
from stockade.sandbox.cgroup_group import Cgroup, Group
from stockade.sandbox.cgroup_place import Refused, apply_write
from stockade.sandbox.linux import cgroups
from stockade.sandbox.linux.cgroups import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from stockade.sandbox.cgroup_limits import Write
    from stockade.sandbox.linux.cgroup_devices import Rule
    from stockade.sandbox.linux.cgroups import Hierarchy
    from stockade.sandbox.oci.spec import LinuxResources

__all__ = ["Cgroup", "create", "exists", "remove_path", "reopen", "update"]


def create(
    name: str,
    resources: LinuxResources | None = None,
    *,
    layout: Layout | None = None,
    best_effort: bool = False,
    every: bool = False,
    need: Iterable[str] = (),
    devices: bool = True,
) -> Cgroup:
    """Make the groups that the resources need, write the limits, and read them back.

    `name` is OCI's cgroupsPath: "stockade/ID" counts from the caller's own group, "/stockade/ID" from the top of each
    hierarchy. `every` makes a group in each hierarchy, for an engine that looks for the container's there later; `need`
    names controllers wanted without a limit ("memory" for its peak, "freezer" for pause). Wherever a group is made at
    all, one that can freeze and kill is among them. `devices` False leaves device rules out: a container with its own
    user namespace can't make device nodes, mknod(2).

    Raises StockadeError; nothing is left behind then.
    """
    wanted_devices = resources.devices if resources and devices else ()
    if resources is None and not every and not need:
        return Cgroup(name, ())
    where = layout or cgroups.layout()
    builder = _Builder(name, where, best_effort=best_effort)
    writes = cgroup_limits.writes(resources, builder.version_of)
    needed = {write.controller for write in writes} | set(need)
    if wanted_devices:
        needed.add("devices")
    if not needed and not every:
        return Cgroup(name, ())
    try:
        builder.make(needed, every=every)
        builder.apply(writes)
        if wanted_devices:
            builder.apply_devices(wanted_devices)
        return builder.finish()
    except BaseException:
        builder.undo()
        raise


class _Builder:
    """The work of `create`: groups made so far, limits enforced and refused so far."""

    def __init__(self, name: str, where: Layout, *, best_effort: bool) -> None:
        try:
            self.parts = cgroup_tree.split(name)
        except ValueError as error:
            raise StockadeError(f"cgroups path: {error}") from None
        self.name, self.where, self.best_effort = name, where, best_effort
        self.own: dict[str, str] = {} if name.startswith("/") else cgroups.membership()
        self.groups: dict[Hierarchy, Group] = {}
        self.failed: dict[str, Refused] = {}  # by controller
        self.enforced: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.notes: dict[str, str] = {}

    def version_of(self, controller: str) -> int:
        """Tell which version of cgroups has a controller here, and for one that is absent which would."""
        hierarchy = self.where.controller(controller)
        if hierarchy is not None:
            return hierarchy.version
        return 1 if any(name in cgroups.V1_CONTROLLERS for name in self.where.v1) else 2

    def make(self, needed: set[str], *, every: bool) -> None:
        """Make a group in each hierarchy that has one of the controllers, and one that can kill."""
        unified = self.where.unified
        by_hierarchy: dict[Hierarchy, set[str]] = {}
        for controller in needed:
            hierarchy = self._home(controller)
            if hierarchy is None:
                self.failed[controller] = Refused(
                    f"this machine has no {controller or 'cgroup2'} controller mounted",
                    "boot it with this controller enabled" if controller else "",
                )
            elif hierarchy.version == 2 and controller in {"", "devices", "freezer", "cpuacct"}:
                by_hierarchy.setdefault(hierarchy, set())  # cgroup2 does these without a controller
            else:
                by_hierarchy.setdefault(hierarchy, set()).add(controller)
        for hierarchy in self.where.hierarchies if every else ():
            by_hierarchy.setdefault(hierarchy, set())
            if hierarchy.version == 2 and not self.where.hybrid:
                self._make(hierarchy, frozenset(hierarchy.controllers) | by_hierarchy.pop(hierarchy), optional=True)
        for hierarchy, controllers in by_hierarchy.items():
            self._make(hierarchy, frozenset(controllers))
        if unified and unified not in self.groups:
            self._make(unified, frozenset(), optional=True)
        freezer = self.where.v1.get("freezer")
        if unified not in self.groups and freezer:
            home = self.where.controller("freezer")
            if home and home not in self.groups:
                self._make(home, frozenset({"freezer"}), optional=True)

    def _home(self, controller: str) -> Hierarchy | None:
        found = self.where.controller(controller) if controller else self.where.unified
        if found is None and controller in {"devices", "freezer", "cpuacct"}:
            return self.where.unified
        return found

    def _make(self, hierarchy: Hierarchy, controllers: frozenset[str], *, optional: bool = False) -> None:
        """Make one group. What fails is kept in `failed` for each controller; an optional group may be absent."""
        try:
            self.groups[hierarchy] = self._make_group(hierarchy, controllers)
        except Refused as error:
            if hierarchy.version == 2 and len(controllers) > 1 and (self.best_effort or optional):
                self._make_with_some(hierarchy, controllers)
                return
            if not optional:
                self.failed.update(dict.fromkeys(controllers or {"devices", ""}, error))

    def _make_with_some(self, hierarchy: Hierarchy, controllers: frozenset[str]) -> None:
        """Make the group with those controllers that can be enabled one by one."""
        usable = set()
        for name in controllers:
            try:
                fd, _ = cgroup_place.base(hierarchy, self.name, self.own, frozenset({name}))
                os.close(fd)
                usable.add(name)
            except (OSError, Refused) as error:
                self.failed[name] = error if isinstance(error, Refused) else cgroup_place.explain(error, name, 2)
        self._make(hierarchy, frozenset(usable), optional=not usable)

    def _make_group(self, hierarchy: Hierarchy, controllers: frozenset[str]) -> Group:
        directory = hierarchy.directory
        try:
            base, directory = cgroup_place.base(hierarchy, self.name, self.own, controllers)
            enable = cgroup_place.enabling(controllers) if hierarchy.version == 2 else ""
            cpuset = hierarchy.version == 1 and "cpuset" in hierarchy.controllers
            try:
                fd = cgroup_tree.make(base, self.parts, cpuset=cpuset, enable=enable)
            finally:
                os.close(base)
        except OSError as error:
            what = "/".join((directory, *self.parts))
            raise cgroup_place.explain(error, what, hierarchy.version) from error
        return Group(hierarchy, "/".join((directory, *self.parts)), fd)

    def group_of(self, controller: str) -> Group:
        """Give the group that has a controller's files, or raise Refused."""
        home = self._home(controller)
        if controller in self.failed or home is None or home not in self.groups:
            reason = f"the container has no group with the {controller} controller"
            raise self.failed.get(controller) or Refused(reason, "start it with this limit")
        return self.groups[home]

    def refuse(self, limit: str, error: Refused) -> None:
        """Raise for a limit that can't be enforced, or with best effort keep the reason."""
        if not self.best_effort:
            hint = f"{error.hint}, or " if error.hint else ""
            raise StockadeError(
                f"{limit} can't be enforced: {error.reason}", hint=f"{hint}pass --best-effort to start without it"
            )
        self.refused[limit] = error.reason

    def apply(self, writes: tuple[Write, ...]) -> None:
        """Write each limit and read it back; what the kernel takes only after the others gets a second turn.

        memsw may never be below memory, nor a quota's share above the parent's: which comes first depends on what was.
        """
        failed = [write for write in writes if self._try(write) is not None]
        for write in failed:
            error = self._try(write)
            if error is None:
                continue
            if write.implied:
                self.notes[write.limit] = error.reason
            else:
                self.enforced.pop(write.limit, None)
                self.refuse(write.limit, error)

    def _try(self, write: Write) -> Refused | None:
        try:
            group = self.group_of(write.controller)
            file = apply_write(group, write)
        except Refused as error:
            return error
        self.enforced[write.limit] = f"{group.path}/{file}"
        return None

    def apply_devices(self, rules: Iterable[Rule]) -> None:
        """Restrict devices by the v1 controller or by a BPF program on the v2 group."""
        from stockade.sandbox import cgroup_devices

        try:
            group = self.group_of("devices")
            self.enforced["devices"] = cgroup_devices.apply(group, rules)
        except Refused as error:
            self.refuse("devices", error)

    def finish(self) -> Cgroup:
        """Open cgroup.procs of each group for the launcher and hand over."""
        for group in self.groups.values():
            group.open_procs()
        return Cgroup(
            self.name, tuple(self.groups.values()), enforced=self.enforced, refused=self.refused, notes=self.notes
        )

    def undo(self) -> None:
        """Remove what was made."""
        Cgroup(self.name, tuple(self.groups.values())).remove()


def update(cgroup: Cgroup, resources: LinuxResources, *, best_effort: bool = False) -> None:
    """Change the limits of a container that runs; StockadeError for the first that doesn't hold.

    Only what is named changes: Docker's default for swap isn't applied again.
    """
    builder = _Builder("/update", Layout(tuple(g.hierarchy for g in cgroup.groups)), best_effort=best_effort)
    builder.groups = {group.hierarchy: group for group in cgroup.groups}
    writes = cgroup_limits.writes(resources, builder.version_of)
    builder.apply(tuple(write for write in writes if not write.implied))
    if resources.devices:
        builder.apply_devices(resources.devices)
    cgroup.enforced |= builder.enforced
    cgroup.refused |= builder.refused


def reopen(paths: Iterable[str], layout: Layout | None = None) -> Cgroup:
    """Open a container's groups again by the paths that its state has; groups that are gone are left out.

    StockadeError for a path that is no group below a mounted hierarchy: state on disk is not believed blindly.
    """
    where = layout or cgroups.layout()
    groups = []
    for path in paths:
        hierarchy = next((h for h in where.hierarchies if path.startswith(h.directory + "/")), None)
        try:
            if hierarchy is None:
                raise ValueError(f"{path!r} is not in a mounted control group hierarchy")
            parts = cgroup_tree.split(path[len(hierarchy.directory) :])
        except ValueError as error:
            raise StockadeError(f"cgroup path in the container's state: {error}") from None
        try:
            fd = cgroup_tree.open_directory(f"{hierarchy.directory}/{'/'.join(parts)}")
        except FileNotFoundError:
            continue
        groups.append(Group(hierarchy, path, fd))
    return Cgroup("", tuple(groups))


def exists(paths: Iterable[str]) -> bool:
    """Whether any of a container's groups is still there."""
    return any(os.path.isdir(path) for path in paths)


def remove_path(paths: Iterable[str], layout: Layout | None = None, *, timeout: float = 5.0) -> bool:
    """Kill what runs in groups and remove them; whether all are gone. For cleaning up after a killed supervisor."""
    deadline = time.monotonic() + timeout
    cgroup = reopen(paths, layout)
    cgroup.kill(timeout=timeout)
    return cgroup.remove(timeout=max(0.0, deadline - time.monotonic()))
