"""Attack paths: conjunctions of measured facts that end on the host.

audit/path_rule.py says how one is declared. Those that only files have stand in audit/paths_more.py.
"""

from typing import TYPE_CHECKING

from stockade.audit import gates, paths_more
from stockade.audit.facts import (
    CapabilitySets,
    ControlFile,
    DeviceNode,
    DevicePolicy,
    EngineSocket,
    Host,
    Identity,
    Mask,
    Mount,
    Namespace,
    OpenDescriptor,
    SeccompFilter,
    SeccompState,
    UserNamespace,
    WorkingDirectory,
)
from stockade.audit.path_rule import (
    REMAP,
    AttackPath,
    Judged,
    Way,
    attack_path,
    chain,
    filter_line,
    holds,
    identity_line,
    lets,
)
from stockade.audit.report import Severity
from stockade.audit.rule import DoesNotApply, is_declared, seen, several
from stockade.audit.rules.capabilities import closed_to_modules
from stockade.audit.rules.devices import by_weight, reachable
from stockade.audit.rules.known import engine_made, host_files, is_host_file, normal, within
from stockade.audit.rules.sensitive import sensitive
from stockade.sandbox.linux import capabilities as caps

if TYPE_CHECKING:
    from stockade.audit.facts import Where

_HELPERS = (
    "/proc/sys/kernel/core_pattern",
    "/sys/kernel/uevent_helper",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/fs/binfmt_misc/register",
)


@attack_path(
    "AP-CORE",
    "helper_program",
    "host_root",
    "unmasked_paths",
    effect="a program of the container's choice runs as root in the host's own namespaces",
    proof="the file was opened for writing with the container's exact ids and closed; nothing was written",
)
def kernel_helper(
    files: tuple[ControlFile, ...],
    identity: Identity | None,
    sets: CapabilitySets | None,
    userns: UserNamespace | None,
    masks: tuple[Mask, ...] | None,
) -> Way | None:
    """The kernel runs a program of the container's choice on the host.

    It writes the path of its program to core_pattern (or a file like it) and lets a process crash.
    """
    opened = [
        file
        for file in files
        if file.path in _HELPERS and file.access == "write" and file.outcome == "opened" and not file.own_namespace
    ]
    if not opened:
        return None
    opened.sort(key=lambda file: _HELPERS.index(file.path))
    root, files_ = identity_line(identity), [seen(file, f"{file.path} opened for writing") for file in opened]
    # whoever can mount makes a read-only /proc/sys writable again: then only other ids help
    admin = sets is not None and gates.counting(sets, userns) & caps.mask(["SYS_ADMIN"])
    mask = next((mask for mask in masks or () if mask.path == "/proc/sys" and mask.state == "open"), None)
    if (mask or not root) and not admin:
        line = seen(mask, "/proc/sys isn't read-only") if mask else files_[0]
        fix = "keep /proc/sys read-only (leave out systempaths=unconfined, --privileged)"
        return Way(chain(root, line if mask else "", *files_), opened[0].where, fix, line)
    return Way(chain(root, *files_), opened[0].where, REMAP, root or files_[0])


@attack_path(
    "AP-RELEASE",
    "cgroup_control",
    "cgroup_writable",
    "mount_capability",
    "privileged",
    "host_root",
    effect="a program of the container's choice runs as root on the host when a cgroup empties",
    proof="release_agent was opened for writing and closed, or what lets it be mounted was read; nothing was mounted",
)
def release_agent(
    *,
    files: tuple[ControlFile, ...] | None,
    sets: CapabilitySets,
    identity: Identity,
    userns: UserNamespace | None,
    host: Host | None,
    state: SeccompState | None,
    filter_: SeccompFilter | None,
) -> Way | None:
    """A cgroup v1 release agent runs on the host.

    It writes its program's path to release_agent, of a mounted hierarchy or of one that it mounts itself
    (CVE-2022-0492).
    """
    for file in files or ():
        if file.path.endswith("/release_agent") and file.access == "write" and file.outcome == "opened":
            line = seen(file, f"{file.path} opened for writing")
            return Way(
                chain(identity_line(identity), line), file.where, "mount the cgroup file systems read-only", line
            )
    admin = holds(sets, userns, "SYS_ADMIN")
    if not admin or not gates.host_root(identity, userns) or host is None or host.cgroup not in {"v1", "hybrid"}:
        return None
    allowed = lets(state, filter_, "mount", "fsmount")
    if allowed is False:
        return None
    evidence = chain(
        identity_line(identity),
        admin,
        filter_line(state, filter_, "mount"),
        "the host mounts cgroup v1 hierarchies, and so can the container",
    )
    return Way(evidence, sets.where, "drop CAP_SYS_ADMIN", admin, None if allowed else Severity.HIGH)


@attack_path(
    "AP-SOCK",
    "engine_socket",
    effect="the engine starts a privileged container with the host's root for whoever asks: root on the host",
    proof="the socket's permissions were compared with the container's ids; nobody connected",
)
def engine(sockets: tuple[EngineSocket, ...], identity: Identity | None, userns: UserNamespace | None) -> Way | None:
    """The container engine does the container's bidding.

    It connects to the engine's socket and asks for a container that has everything.
    """
    reachable_ = sorted((each for each in sockets if each.permitted is not False), key=lambda each: not each.permitted)
    if not reachable_:
        return None
    lines = [
        seen(
            each,
            f"{each.engine}'s socket at {each.path}, " + ("may connect" if each.permitted else "permission unknown"),
        )
        for each in reachable_
    ]
    best = reachable_[0]
    fix = "take the socket's mount away, or put a filtering proxy there"
    if best.via == "descriptor":
        fix = "start the runtime without the socket's descriptor"
    # a rootless engine acts as its user
    own = (best.host_path or best.path).startswith("/run/user/")
    # of a file the mode isn't known; engines make theirs root's, so root inside may connect unless it is mapped away
    root = (
        is_declared(best) and gates.may_be_host_root(identity, userns) and gates.reaches_host_root(userns) is not False
    )
    severity = Severity.HIGH if own or (best.permitted is None and not root) else None
    return Way(tuple(lines), best.where, fix, lines[0], severity)


@attack_path(
    "AP-DISK",
    "block_device",
    "device_node_capability",
    "open_device_policy",
    "privileged",
    effect="every file of the host can be read and written on the raw disk",
    proof="the node's mode, its mount and the device policy were read; no device was opened",
)
def raw_disk(
    devices: tuple[DeviceNode, ...] | None,
    policy: DevicePolicy | None,
    sets: CapabilitySets | None,
    userns: UserNamespace | None,
    identity: Identity | None,
) -> Way | None:
    """The host's disk is open.

    It reads and writes the block device, through a node that is there or that it makes (CAP_MKNOD).
    """
    disks = [device for device in by_weight(devices or ()) if reachable(device, policy, identity)]
    if disks:
        lines = several(disks, [f"{each.path} (block {each.major}:{each.minor}) can be opened" for each in disks])
        if policy and policy.default == "allow":
            allow = seen(policy, "every device is allowed")
            fix = "allow only the devices that are needed (--device instead of --privileged)"
            return Way((*lines, allow), disks[0].where, fix, allow)
        return Way(
            lines, disks[0].where, f"leave {', '.join(each.path for each in disks[:3])} out (--device)", lines[0]
        )
    mknod = holds(sets, userns, "MKNOD") if sets else ""
    if not mknod or policy is None or policy.default != "allow" or sets is None:
        return None
    allow = seen(policy, "every device is allowed")
    return Way((mknod, allow), sets.where, "drop CAP_MKNOD", mknod)


@attack_path(
    "AP-PTRACE",
    "host_pid_namespace",
    "trace_capability",
    "privileged",
    "host_root",
    effect="code of the container's choice runs in a process of the host",
    proof="namespaces, ids and capabilities were compared; no process was traced",
)
def host_process(
    namespaces: tuple[Namespace, ...],
    sets: CapabilitySets,
    identity: Identity | None,
    userns: UserNamespace | None,
    host: Host | None,
) -> Way | None:
    """A process of the host is taken over.

    It traces a process of the host that it sees, or writes to its /proc/PID/mem, which asks for the same permission and
    for no system call that a filter denies.
    """
    pid = next((each for each in namespaces if each.kind == "pid" and each.host), None)
    yama = host.yama if host else None
    if pid is None or yama == 3:
        return None
    view, fix = seen(pid, "the host's processes are in view"), "give the container its own pid namespace"
    trace = holds(sets, userns, "SYS_PTRACE")
    if trace:
        return Way((view, trace), pid.where, fix, view)
    # Without the capability the kernel asks for the same uid, the same user namespace and no capability more
    # (cap_ptrace_access_check); yama 1 and 2 then allow children only or nothing.
    if userns is None or not userns.initial or yama in {1, 2} or identity is None or not identity.host_uids:
        return None
    if identity.host_uids[0] == 0 or not identity.host_user:
        return None
    same = seen(identity, f"host uid {identity.host_uids[0]} is the host's account {identity.host_user}")
    return Way((view, same), pid.where, fix, view, Severity.HIGH if yama == 0 else Severity.MEDIUM)


@attack_path(
    "AP-MODULE",
    "module_capability",
    "privileged",
    effect="code of the container's choice runs in the kernel",
    proof="capabilities, filter and the kernel's module settings were read; nothing was loaded",
)
def kernel_module(
    sets: CapabilitySets,
    userns: UserNamespace | None,
    host: Host | None,
    state: SeccompState | None,
    filter_: SeccompFilter | None,
) -> Judged:
    """A kernel module of the container's choice is loaded.

    It brings a module built for this kernel and loads it.
    """
    held = holds(sets, userns, "SYS_MODULE")
    allowed = lets(state, filter_, "init_module", "finit_module")
    if host is not None and host.modules is False:
        return DoesNotApply("the kernel is built without loadable modules")
    if not held or allowed is False or (host is not None and closed_to_modules(host)):
        return None
    sure = allowed and host is not None and host.modules and host.modules_disabled is False
    modules = "/proc/sys/kernel/modules_disabled is 0" if sure else ""
    evidence = chain(held, filter_line(state, filter_, "finit_module"), modules)
    return Way(evidence, sets.where, "drop CAP_SYS_MODULE", held, None if sure else Severity.HIGH)


@attack_path(
    "AP-FD",
    "outside_descriptor",
    "outside_directory",
    effect="the host's files can be reached past the container's root, with the process's ids",
    proof="the mounts of open descriptors were compared with the container's own; nothing was opened through them",
)
def open_directory(
    descriptors: tuple[OpenDescriptor, ...] | None,
    directory: WorkingDirectory | None,
    identity: Identity | None,
    userns: UserNamespace | None,
) -> Way | None:
    """A directory of the host is open.

    It walks up from the descriptor or working directory with "../.." (CVE-2024-21626).
    """
    lines: list[str] = []
    places: list[Where] = []
    for each in descriptors or ():
        if each.kind == "directory" and each.outside:
            lines.append(seen(each, f"descriptor {each.fd} is the host's directory {each.target}"))
            places.append(each.where)
    if directory and directory.outside:
        lines.append(seen(directory, f"the working directory is {directory.path}, outside the container"))
        places.append(directory.where)
    if not lines:
        return None
    fix = "update the runtime and start it with no descriptors open but the standard ones"
    severity = None if gates.may_be_host_root(identity, userns) else Severity.HIGH
    return Way((*chain(identity_line(identity)), *lines), places[0], fix, lines[0], severity)


@attack_path(
    "AP-HANDLE",
    "file_handle_capability",
    "privileged",
    effect="every file on a disk of the host can be read",
    proof="capabilities, the filter's answer and the mounts were read; no handle was opened",
)
def file_handle(
    sets: CapabilitySets,
    userns: UserNamespace | None,
    mounts: tuple[Mount, ...],
    state: SeccompState | None,
    filter_: SeccompFilter | None,
) -> Way | None:
    """The host's files are opened by handle.

    It guesses the inode of the root directory, which is the same on most file systems, and opens it by handle.
    """
    held = holds(sets, userns, "DAC_READ_SEARCH")
    views = [*host_files(mounts), *[each for each in mounts if each.destination == "/" and each.host_path]]
    if held and is_declared(sets) and not views:
        return _by_name_files(sets, held, state, filter_)
    # /run is a tmpfs of its own, whose handles lead to no disk
    views.sort(key=lambda mount: within(normal(mount.host_path or "/"), "/run"))
    allowed = lets(state, filter_, "open_by_handle_at")
    if not held or not views or allowed is False:
        return None
    view = seen(views[0], f"{views[0].destination} lies on the host's {views[0].host_path}")
    evidence = chain(held, view, filter_line(state, filter_, "open_by_handle_at"))
    return Way(evidence, sets.where, "drop CAP_DAC_READ_SEARCH", held, None if allowed else Severity.HIGH)


def _by_name_files(
    sets: CapabilitySets, held: str, state: SeccompState | None, filter_: SeccompFilter | None
) -> Way | None:
    """Take for the mount what no file declares: engines bind /etc/hosts and its like from the host's disk."""
    if lets(state, filter_, "open_by_handle_at") is False:
        return None
    view = "the engine binds /etc/hosts and /etc/resolv.conf from the host's disk"
    evidence = chain(held, view, filter_line(state, filter_, "open_by_handle_at"))
    return Way(evidence, sets.where, "drop CAP_DAC_READ_SEARCH", held, Severity.HIGH)


@attack_path(
    "AP-HOSTWRITE",
    "host_root_mounted",
    "sensitive_host_path",
    "host_root",
    effect="the host runs what the container writes, as root",
    proof="the mount's flags and the process's ids were read; nothing was written",
)
def host_write(mounts: tuple[Mount, ...], identity: Identity | None, userns: UserNamespace | None) -> Way | None:
    """The container writes what the host runs.

    It changes a start-up file, a program or a key of the host through a writable mount.
    """
    root = gates.host_root(identity, userns)
    for mount in mounts if root is not False else ():
        if root is None and not is_declared(mount):
            continue
        if not mount.writable or not is_host_file(mount) or engine_made(mount) or mount.host_path is None:
            continue
        path = normal(mount.host_path)
        known = sensitive(path, writable=True) if path != "/" else None
        if path == "/" or (known and known.condition in {"MNT-CRON", "MNT-SENS", "MNT-RUNTIME"}):
            line = seen(mount, f"{mount.destination} is the host's {mount.host_path}, writable")
            fix = f"mount {mount.destination} read-only, or leave it out"
            severity = Severity.HIGH if root is None else None
            return Way(chain(identity_line(identity), line), mount.where, fix, line, severity)
    return None


#: every path, in the order of the catalogue's last part
PATHS: list[AttackPath] = [
    value for found in (globals(), vars(paths_more)) for value in found.values() if isinstance(value, AttackPath)
]
