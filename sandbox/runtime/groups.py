"""A container's control groups by whichever driver the command line asks for: cgroupfs, systemd, or none."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stockade.sandbox.cgroup_handle import EngineCgroup
    from stockade.sandbox.oci.spec import LinuxResources, Spec
    from stockade.sandbox.runtime.arguments import Invocation


def create(invocation: Invocation, spec: Spec, identity: str, intend: Callable[[list[str]], None]) -> EngineCgroup:
    """Make the groups of a container with their limits, cgroup.procs of each open for the launcher.

    `intend` is told how `reopen` finds them, before the first is made. Call `started` of its unit, if any, once a
    process of the container is in the groups. StockadeError; nothing is left then.
    """
    from stockade.sandbox import cgroup_engine

    path, resources = spec.linux.cgroups_path, spec.linux.resources
    if invocation.cgroup_manager == "disabled":
        _refuse_limits(resources)
        intend([])
        return cgroup_engine.EngineCgroup("", ())
    rootless = cgroup_engine.rootless(invocation.rootless)
    if not invocation.systemd_cgroup:
        place = cgroup_engine.place(path, identity)
        return _given(spec, cgroup_engine.create(place, resources, rootless=rootless, intend=intend))
    from stockade.sandbox.runtime import systemd

    user = not cgroup_engine.privileged()
    scope, place = systemd.start(
        systemd.Name(path, identity, user=user),
        resources,
        spec.annotations,
        description=f"stockade container {identity}",
        user=user,
    )
    try:
        return _given(spec, cgroup_engine.create(place, resources, rootless=rootless, unit=scope, intend=intend))
    except BaseException:
        scope.stop()
        raise


def _given(spec: Spec, cgroup: EngineCgroup) -> EngineCgroup:
    from stockade.sandbox import cgroup_view

    cgroup_view.give(spec, cgroup)
    return cgroup


def _refuse_limits(resources: LinuxResources | None) -> None:
    from stockade.errors import StockadeError
    from stockade.sandbox.cgroup_limits import writes

    asked = [write.limit for write in writes(resources, lambda _: 2, literal=True) if not write.implied]
    if asked:
        raise StockadeError(
            f"{asked[0]} can't be enforced: cgroups are disabled", hint="leave --cgroup-manager disabled out"
        )


def reopen(record: Iterable[str]) -> EngineCgroup:
    """Give the groups that `EngineCgroup.record` tells of, with their unit; nothing is opened yet. StockadeError."""
    from stockade.sandbox import cgroup_handle

    lines = list(record)
    cgroup = cgroup_handle.reopen(lines)
    for line in lines:
        if line.startswith("@"):
            from stockade.sandbox.runtime import systemd

            whose, _, name = line[1:].partition(":")
            cgroup.unit = systemd.Scope(name, user=whose == "user")
    return cgroup


def destroy(record: Sequence[str], *, timeout: float, kill: bool = True) -> bool:
    """Remove the groups that `EngineCgroup.record` tells of, killing what still runs there; whether all are gone.

    Without `kill` a group with processes stays: one that a killed `create` meant to make may be another container's.

    As a rule they are empty and a directory each: then that is all that `delete` does and imports. StockadeError.
    """
    lines = [line for line in record if line.startswith("@") or not _removed(line.partition(":")[2])]
    if not lines:
        return True
    found = reopen(lines)
    return found.destroy(timeout=timeout) if kill else found.remove(timeout=timeout)


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
