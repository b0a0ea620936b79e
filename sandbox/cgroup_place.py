"""Where a container's group goes in each hierarchy, and what the kernel and the owner of the tree allow there.

OCI's cgroupsPath: an absolute one counts from the top of what is mounted, a relative one from the caller's own group,
so that the limits of whoever started us hold for the container too.

cgroup2 has two rules that v1 hasn't. A group that holds processes can't hand controllers to its children ("no internal
processes"), except the real root; and a process may be moved only by someone who may write cgroup.procs of the
common ancestor ("delegation containment"). So from a user's session the container goes beside our own group where that
has company, into it where we are alone and can step aside, and nowhere where nothing was delegated to us.
"""

from __future__ import annotations

import errno
import os

from stockade.sandbox import cgroup_tree
from stockade.sandbox.linux import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.cgroup_group import Group
    from stockade.sandbox.cgroup_limits import Write
    from stockade.sandbox.linux.cgroups import Hierarchy

SUPERVISOR = "stockade-supervisor"
DELEGATE = "run it as `systemd-run --user --scope -p Delegate=yes stockade ...`"


class Refused(Exception):
    """Why no group, or no limit, can be had: one clause and the remedy."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def explain(error: OSError, what: str, version: int) -> Refused:
    """Turn an errno of a cgroup file system into a reason and a remedy; `what` is the directory or file."""
    code = error.errno
    if code == errno.EROFS:
        return Refused(f"{what} is on a read-only mount", "mount the cgroup file system writable")
    if code in {errno.EACCES, errno.EPERM}:
        if version == 1:
            return Refused(
                f"uid {os.geteuid()} may not write {what}, and cgroup v1 can't be delegated safely",
                "start it as root, or on a machine with cgroup2",
            )
        return Refused(f"{what} is not delegated to uid {os.geteuid()}", DELEGATE)
    if code == errno.EBUSY:
        return Refused(f"{what} is in use", "stop what runs in it, or run `stockade gc`")
    if code == errno.ENOSPC:
        return Refused(f"{what}: the kernel's limit on the number of groups is reached", "run `stockade gc`")
    return Refused(f"{what}: {os.strerror(code or 0)}", "")


def base(hierarchy: Hierarchy, name: str, groups: dict[str, str], wanted: frozenset[str]) -> tuple[int, str]:
    """Open the directory below which `name` counts and in which children can have the `wanted` controllers.

    Gives the descriptor, which is the caller's, and the directory. `groups` is the caller's own membership. Raises
    Refused or OSError.
    """
    key = "" if hierarchy.version == 2 else hierarchy.controllers[0]
    if name.startswith("/"):
        top = cgroup_tree.open_directory(hierarchy.directory)
        if hierarchy.version == 2:
            try:
                _enable(top, wanted, hierarchy.directory)
            except BaseException:
                os.close(top)
                raise
        return top, hierarchy.directory
    own = hierarchy.path(groups[key]) if key in groups else None
    if own is None:
        raise Refused(
            f"the caller's own group is not visible at {hierarchy.directory}",
            "mount cgroups in the caller's own cgroup namespace, or give an absolute cgroups path",
        )
    if hierarchy.version == 1:
        return cgroup_tree.open_directory(own), own
    own = own.removesuffix(f"/{SUPERVISOR}")  # we stepped aside before; our own group is still the one above
    return _delegated(hierarchy, own, wanted)


def _delegated(hierarchy: Hierarchy, own: str, wanted: frozenset[str]) -> tuple[int, str]:
    """Find the nearest group, the own one first, whose children can have the controllers."""
    reason: Refused | None = None
    for directory in cgroups.ancestors(own, hierarchy.directory):
        if not cgroups.writable(directory):
            error = errno.EROFS if hierarchy.read_only else errno.EACCES
            reason = reason or explain(OSError(error, ""), directory, 2)
            break
        fd = cgroup_tree.open_directory(directory)
        try:
            if directory == own:
                _step_aside(fd, wanted)
            _enable(fd, wanted, directory)
            return fd, directory
        except (OSError, Refused) as error:
            os.close(fd)
            reason = reason or (error if isinstance(error, Refused) else explain(error, directory, 2))
        if lost := _own_limits(directory):
            raise Refused(
                f"{directory} holds other processes and can't pass on {', '.join(sorted(wanted))}, and a group beside "
                f"it would escape its {lost}",
                DELEGATE,
            )
    if reason is None:
        raise Refused(f"no group above {own} offers {', '.join(sorted(wanted))}", DELEGATE)
    raise reason


def _own_limits(directory: str) -> str:
    """Name a limit that a process would leave behind by leaving a group, or give ""."""
    for file in ("memory.max", "memory.high", "memory.swap.max", "cpu.max"):
        try:
            if not cgroups.read_text(f"{directory}/{file}").startswith("max"):
                return file
        except OSError:
            continue
    try:
        return "cpuset.cpus" if cgroups.read_text(f"{directory}/cpuset.cpus").strip() else ""
    except OSError:
        return ""


def _step_aside(fd: int, wanted: frozenset[str]) -> None:
    """Move ourselves and our children into a leaf, where only they keep our own group from passing on controllers."""
    missing = wanted - frozenset(cgroup_tree.read(fd, "cgroup.subtree_control").split())
    if not missing or not cgroup_tree.has(fd, "cgroup.type"):  # the real root has no cgroup.type and is exempt
        return
    members = cgroup_tree.members(fd)
    if not wanted <= frozenset(cgroup_tree.read(fd, "cgroup.controllers").split()) or not all(map(_ours, members)):
        return
    try:
        os.mkdir(SUPERVISOR, 0o755, dir_fd=fd)
    except FileExistsError:
        pass
    for pid in members:
        try:
            cgroup_tree.write(fd, f"{SUPERVISOR}/cgroup.procs", str(pid))
        except ProcessLookupError:
            continue


def _ours(pid: int) -> bool:
    """Whether a process is this one or a child of it; one that has gone meanwhile is in nobody's way."""
    if pid == os.getpid():
        return True
    from stockade.sandbox.linux import process

    try:
        return process.status(pid).ppid == os.getpid()
    except ProcessLookupError:
        return True
    except OSError:
        return False


def _enable(fd: int, wanted: frozenset[str], directory: str) -> None:
    """Enable controllers for the children of a group; Refused says why one can't be."""
    if not wanted:
        return
    offered = frozenset(cgroup_tree.read(fd, "cgroup.controllers").split())
    if absent := wanted - offered:
        raise Refused(f"{directory} doesn't offer {', '.join(sorted(absent))}", DELEGATE)
    missing = wanted - frozenset(cgroup_tree.read(fd, "cgroup.subtree_control").split())
    if not missing:
        return
    try:
        cgroup_tree.write(fd, "cgroup.subtree_control", enabling(missing))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Refused(
                f"{directory} holds processes itself, and cgroup2 lets such a group pass no controllers on",
                f"move them into a child group of it first, or {DELEGATE}",
            ) from error
        raise explain(error, f"{directory}/cgroup.subtree_control", 2) from error


def enabling(controllers: frozenset[str]) -> str:
    """Give what is written to cgroup.subtree_control."""
    return " ".join([f"+{name}" for name in sorted(controllers)])


def apply_write(group: Group, write: Write) -> str:
    """Write one limit, read it back, and give the file's name; Refused if it doesn't hold."""
    from stockade.sandbox.cgroup_limits import matches

    if not write.file:
        raise Refused(f"cgroup v{group.hierarchy.version} has no such limit", "leave it out")
    if not cgroup_tree.has(group.fd, write.file):
        if write.fallback:
            return apply_write(group, write.fallback)
        raise Refused(f"this kernel has no {write.file} in {group.path}", "leave the limit out")
    try:
        cgroup_tree.write(group.fd, write.file, write.value)
        got = cgroup_tree.read(group.fd, write.file)
        if write.check == "list" and group.hierarchy.version == 2:
            got = cgroup_tree.read(group.fd, f"{write.file}.effective")  # what isn't there falls back to the parent's
    except OSError as error:
        raise Refused(
            f"the kernel refuses {write.value!r} for {group.path}/{write.file}: {os.strerror(error.errno or 0)}",
            "ask for more than is in use" if error.errno == errno.EBUSY else "see whether a group above it allows less",
        ) from error
    if not matches(write, got):
        raise Refused(
            f"{group.path}/{write.file} holds {got.strip()!r} after {write.value!r} was written",
            "ask for what it holds",
        )
    return write.file
