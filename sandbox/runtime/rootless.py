"""What a caller without root's capabilities needs: a user namespace, and a map that it may write or have written."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox.linux import procfs
from stockade.sandbox.oci import spec as oci

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.oci.spec import Spec
    from stockade.sandbox.runtime.caller import Caller


def settle(spec: Spec, who: Caller) -> Spec:
    """Give the Spec with what the kernel demands of the caller. Raises StockadeError for what only root can have."""
    if spec.linux.namespace("user") is None and not who.privileged:
        raise StockadeError(
            "a container without a user namespace needs root",
            hint="add one with id maps to the configuration, as `spec --rootless` does, or call the runtime as root",
        )
    # user_namespaces(7): gid_map can't be written by such a caller before setgroups is denied.
    alone = _maps_alone(spec, who) and not external(spec, who)
    return _without_groups(spec) if alone or (who.nested and _denied("self")) else spec


def joined(spec: Spec, pid: int) -> Spec:
    """Give the Spec of a process that joins process `pid`, in whose user namespace setgroups(2) may be denied."""
    return _without_groups(spec) if _denied(str(pid)) else spec


def _denied(process: str) -> bool:
    """Tell whether setgroups(2) is denied in the user namespace of a process; those below it inherit that."""
    try:
        return procfs.read(process, "setgroups").startswith(b"deny")
    except OSError:  # a kernel without user namespaces has no such file
        return False


def _without_groups(spec: Spec) -> Spec:
    if spec.process is not None and spec.process.user.additional_gids:
        raise StockadeError(
            "additional groups can't be set: setgroups(2) is denied where no newgidmap(1) has written the map",
            hint="leave $.process.user.additionalGids out, or map subordinate ids",
        )
    return spec.replace(annotations={**spec.annotations, oci.SETGROUPS: "deny"})


def external(spec: Spec, who: Caller) -> bool:
    """Tell whether newuidmap(1) and newgidmap(1) have to write the maps: they hold other ids than the caller's own."""
    if not _maps_alone(spec, who):
        return False
    maps = ((spec.linux.uid_mappings, who.uid), (spec.linux.gid_mappings, who.gid))
    return any(len(extents) > 1 or (each.size, each.host_id) != (1, own) for extents, own in maps for each in extents)


def _maps_alone(spec: Spec, who: Caller) -> bool:
    """Tell whether the container has a new user namespace whose maps the caller may not choose."""
    namespace = spec.linux.namespace("user")
    new = namespace is not None and not namespace.path
    return new and not who.privileged and not who.holds("CAP_SETUID", "CAP_SETGID")
