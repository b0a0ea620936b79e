"""What a mount of type cgroup shows in a container of an engine: which hierarchies, and which directory of each."""

from __future__ import annotations

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
