"""What a mount of type cgroup shows in a container of an engine: which hierarchies, and which directory of each."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stockade.sandbox.cgroup_group import Cgroup
    from stockade.sandbox.linux.cgroups import Hierarchy
    from stockade.sandbox.oci.spec import Spec


def view(spec: Spec, cgroup: Cgroup | None) -> dict[str, Any]:
    """Give a plan's options `v1`, `v1_paths` and `cgroup2`; none where nothing is mounted.

    A container without groups of its own sees the caller's. On a machine with v1 controllers cgroup2 is not shown, as
    with runc.
    """
    if not any(mount.type == "cgroup" for mount in spec.mounts):
        return {}
    found = [(group.hierarchy, group.path) for group in cgroup.groups] if cgroup else []
    if not found:
        found = _callers()
    first = [(hierarchy, path) for hierarchy, path in found if hierarchy.version == 1]
    if not first:
        return {"cgroup2": found[0][0].directory} if found else {}
    names = [(hierarchy.directory.rpartition("/")[2], ",".join(hierarchy.controllers)) for hierarchy, _ in first]
    return {"v1": tuple(names), "v1_paths": tuple([path for _, path in first])}


def give(spec: Spec, cgroup: Cgroup) -> None:
    """Give a group of cgroup2 to the container's first user, where the container has a writable view of it alone.

    config-linux.md, "Cgroup ownership": it may then make groups below its own, and its limits stay ours. Without the
    privilege for that it is left as it is: runtimes "should".
    """
    if not any(space.type == "cgroup" and not space.path for space in spec.linux.namespaces):
        return
    if not any(mount.type == "cgroup" and "ro" not in mount.options for mount in spec.mounts):
        return
    owner = _outside(spec)
    if not owner:
        return
    for group in cgroup.groups:
        if group.hierarchy.version == 2:
            for file in (".", *_delegated()):
                try:
                    os.chown(file, owner, -1, dir_fd=group.fd)
                except OSError:
                    continue


def _outside(spec: Spec) -> int:
    """Give the id that the program's user has outside, 0 for root and for one that has none."""
    user = spec.process.user.uid if spec.process else 0
    if not any(space.type == "user" for space in spec.linux.namespaces):
        return user
    for entry in spec.linux.uid_mappings:
        if entry.container_id <= user < entry.container_id + entry.size:
            return entry.host_id + user - entry.container_id
    return 0


def _delegated() -> tuple[str, ...]:
    from stockade.sandbox.linux import cgroups

    try:
        return tuple(cgroups.read_text("/sys/kernel/cgroup/delegate").split())
    except OSError:  # Linux 4.14 and older
        return ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")


def _callers() -> list[tuple[Hierarchy, str]]:
    from stockade.sandbox.linux import cgroups

    own = cgroups.membership()
    found = []
    for hierarchy in cgroups.layout().hierarchies:
        key = "" if hierarchy.version == 2 else hierarchy.controllers[0]
        path = hierarchy.path(own[key]) if key in own else None
        if path is not None:
            found.append((hierarchy, path))
    return found
