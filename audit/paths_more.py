"""Attack paths of files, where nothing runs that could be measured, and those that rest on what an image holds."""

from stockade.audit import gates
from stockade.audit.facts import (
    CapabilitySets,
    HostService,
    Identity,
    ImageFile,
    Mask,
    Mount,
    Namespace,
    NoNewPrivs,
    SeccompFilter,
    SeccompState,
    UserNamespace,
)
from stockade.audit.path_rule import Way, attack_path, chain, filter_line, holds, identity_line, lets
from stockade.audit.report import Severity
from stockade.audit.rule import seen, several
from stockade.audit.rules.known import normal
from stockade.sandbox.linux import capabilities as caps

_OWN_NETWORK = "give the container its own network"


@attack_path(
    "AP-CORE",
    "unmasked_paths",
    "host_kernel_files",
    "privileged",
    "host_root",
    effect="a program of the container's choice runs as root in the host's own namespaces",
    proof="the file declares it; nothing was started and nothing was measured",
    declared=True,
)
def kernel_helper_declared(
    masks: tuple[Mask, ...] | None,
    mounts: tuple[Mount, ...] | None,
    identity: Identity | None,
    userns: UserNamespace | None,
) -> Way | None:
    """The kernel runs a program of the container's choice on the host.

    Root writes the path of its program to core_pattern, which no mask keeps from it, and lets a process crash.
    """
    if gates.host_root(identity, userns) is False or gates.reaches_host_root(userns) is False:
        return None
    severity = None if gates.host_root(identity, userns) else Severity.HIGH
    for mount in mounts or ():
        if mount.host_path and normal(mount.host_path) in {"/proc", "/proc/sys"} and mount.writable:
            line = seen(mount, f"{mount.destination} is the host's {mount.host_path}, writable")
            fix = f"mount {mount.destination} read-only, or leave it out"
            return Way(chain(identity_line(identity), line), mount.where, fix, line, severity)
    opened = next((mask for mask in masks or () if mask.path == "/proc/sys" and mask.state == "open"), None)
    if opened is None:
        return None
    line = seen(opened, "/proc/sys is neither hidden nor read-only")
    fix = "keep /proc/sys read-only (leave out privileged, systempaths=unconfined, procMount: Unmasked)"
    return Way(chain(identity_line(identity), line), opened.where, fix, line, severity)


@attack_path(
    "AP-RELEASE",
    "mount_capability",
    "cgroup_writable",
    "privileged",
    "host_root",
    effect="a program of the container's choice runs as root on the host when a cgroup empties",
    proof="the file declares it; nothing was started and nothing was measured",
    severity=Severity.HIGH,
    declared=True,
)
def release_agent_declared(
    sets: CapabilitySets,
    identity: Identity | None,
    userns: UserNamespace | None,
    state: SeccompState | None,
    filter_: SeccompFilter | None,
) -> Way | None:
    """A cgroup v1 release agent runs on the host.

    Where the host has cgroup v1, it mounts a hierarchy and writes its program's path to release_agent (CVE-2022-0492).
    """
    admin = holds(sets, userns, "SYS_ADMIN")
    if not admin or gates.host_root(identity, userns) is False or lets(state, filter_, "mount", "fsmount") is False:
        return None
    evidence = chain(
        identity_line(identity),
        admin,
        filter_line(state, filter_, "mount"),
        "where the host has cgroup v1, which the file doesn't tell",
    )
    return Way(evidence, sets.where, "drop CAP_SYS_ADMIN", admin)


@attack_path(
    "AP-SUID",
    "new_privileges",
    "privileged_programs",
    effect="an ordinary user of the container becomes its root, with every capability of the bounding set",
    proof="the image's files were listed; nothing was started",
    severity=Severity.MEDIUM,
)
def setuid_program(
    *,
    files: tuple[ImageFile, ...],
    no_new_privs: NoNewPrivs,
    identity: Identity,
    sets: CapabilitySets | None,
    userns: UserNamespace | None,
) -> Way | None:
    """A program with the setuid bit raises privileges.

    It makes a setuid program of the image do something else than it was made for, and is root inside.
    """
    if no_new_privs.value or identity.uids is None or 0 in identity.uids:
        return None
    found = [each for each in files if each.kind in {"setuid", "capability"} and not each.removed]
    if not found:
        return None
    allowed = seen(no_new_privs, "no_new_privs is off")
    gain = gates.gainable(sets, userns, no_new_privs) if sets is not None else 0
    names = ", ".join(caps.names(gain)[:4])
    bounded = seen(sets, f"the bounding set leaves {names} and more") if sets is not None and gain else ""
    evidence = (
        *chain(identity_line(identity), allowed),
        *several(found, [f"{each.path} is {each.kind} {each.detail}".rstrip() for each in found]),
        *chain(bounded),
    )
    dangerous = gain & ~gates.USUAL
    severity = Severity.HIGH if dangerous else None
    return Way(evidence, no_new_privs.where, "set no-new-privileges", allowed, severity)


@attack_path(
    "AP-NET",
    "host_network",
    "network_capability",
    "host_root",
    effect="services of the host that trust its own network do the container's bidding",
    proof="the sockets that listen were listed; nobody connected",
    severity=Severity.HIGH,
)
def host_service(
    namespaces: tuple[Namespace, ...],
    services: tuple[HostService, ...] | None,
) -> Way | None:
    """A service of the host trusts its own network.

    It connects to an abstract socket (CVE-2020-15257) or a loopback port of a service that takes everyone there for the
    host.
    """
    net = next((each for each in namespaces if each.kind == "net" and each.host), None)
    if net is None:
        return None
    shared = seen(net, "the container is in the host's network")
    roots = [each for each in services or () if each.owner in {0, None}]
    if not roots:
        return None
    told = several(roots, [f"{each.name} ({each.kind}) listens" for each in roots])
    return Way((shared, *told), net.where, _OWN_NETWORK, shared)


@attack_path(
    "AP-NET",
    "host_network",
    "network_capability",
    "host_root",
    effect="services of the host that trust its own network do the container's bidding",
    proof="the file declares it; nothing was started and nothing was measured",
    severity=Severity.MEDIUM,
    declared=True,
)
def host_service_declared(
    namespaces: tuple[Namespace, ...], identity: Identity | None, userns: UserNamespace | None
) -> Way | None:
    """A service of the host trusts its own network.

    It connects to whatever listens on the host's loopback address or on an abstract socket (CVE-2020-15257).
    """
    net = next((each for each in namespaces if each.kind == "net" and each.host), None)
    if net is None:
        return None
    shared = seen(net, "the container is in the host's network")
    severity = None if gates.may_be_host_root(identity, userns) else Severity.LOW
    more = "what listens on the host's loopback and abstract sockets, the file doesn't tell"
    return Way((*chain(shared, identity_line(identity)), more), net.where, _OWN_NETWORK, shared, severity)
