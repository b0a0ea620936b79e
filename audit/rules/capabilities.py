"""Capabilities that count against the host, and those that a process could still gain."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import (
    CapabilityChange,
    CapabilitySets,
    DeviceNode,
    DevicePolicy,
    Host,
    Mount,
    Namespace,
    SeccompFilter,
    UserNamespace,
)
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, said, seen
from stockade.audit.rules.known import host_files
from stockade.sandbox.linux import capabilities as caps

_MAN = "https://man7.org/linux/man-pages/man7/capabilities.7.html"
_BREAKOUTS = "https://attack.mitre.org/techniques/T1611/"


def _has(sets: CapabilitySets, userns: UserNamespace | None, name: str) -> bool:
    return bool(gates.counting(sets, userns) >> caps.number(name) & 1)


def line_of(sets: CapabilitySets, mask: int) -> str:
    """Give the line of evidence for capabilities that a process holds."""
    names = ", ".join(caps.names(mask))
    return said(sets, f"CapEff or CapPrm holds {names}", f"the container gets {names}")


def only_usual(change: CapabilityChange | None, *names: str) -> bool:
    """Say whether a file leaves some capabilities of the engine's usual set as they are: that has a rule of its own."""
    return change is not None and not {"ALL", *names} & set(change.added)


def _one(sets: CapabilitySets, name: str, title: str, severity: Severity | None, *more: str) -> Found:
    return Found(title, sets.where, (line_of(sets, caps.mask([name])), *more), severity)


@rule(
    Severity.CRITICAL,
    _MAN,
    _BREAKOUTS,
    conditions=("CAP-SYS_ADMIN",),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1611",),
    cwe=(250,),
)
def mount_capability(sets: CapabilitySets, userns: UserNamespace | None) -> Iterator[Outcome]:
    """CAP_SYS_ADMIN counts against the host.

    It is the kernel's new root: it mounts file systems, makes read-only mounts writable again, enters other namespaces,
    attaches programs to cgroups. Engines also let mount, setns, unshare and bpf through the system call filter with it.

    Severity: none in an own user namespace, where it counts for that namespace's mounts only.

    Fix: drop CAP_SYS_ADMIN; run what needs it in a user namespace of its own (--userns auto).

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_SYS_ADMIN"]
    permitted = ["CAP_SYS_ADMIN"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    if _has(sets, userns, "SYS_ADMIN"):
        yield _one(sets, "SYS_ADMIN", "CAP_SYS_ADMIN counts against the host", None)


@rule(
    Severity.CRITICAL,
    _MAN,
    _BREAKOUTS,
    conditions=("CAP-SYS_MODULE",),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1611", "T1547.006"),
    cwe=(250,),
)
def module_capability(sets: CapabilitySets, userns: UserNamespace | None, host: Host | None) -> Iterator[Outcome]:
    """The container can load kernel modules.

    A module is code in the kernel: with CAP_SYS_MODULE a program of the container decides what the machine runs.

    Severity: low when the kernel takes no modules any more (modules_disabled, lockdown, built without them).

    Fix: drop CAP_SYS_MODULE and load the module on the host.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_SYS_MODULE"]
    permitted = ["CAP_SYS_MODULE"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    if not _has(sets, userns, "SYS_MODULE"):
        return
    closed = closed_to_modules(host) if host else ""
    more = (closed,) if closed else ()
    yield _one(sets, "SYS_MODULE", "CAP_SYS_MODULE counts against the host", Severity.LOW if closed else None, *more)


def closed_to_modules(host: Host) -> str:
    """Say why the kernel loads no (unsigned) modules, or give an empty text."""
    if host.modules is False:
        return "the kernel is built without loadable modules"
    if host.modules_disabled:
        return "/proc/sys/kernel/modules_disabled is 1"
    if host.lockdown in {"integrity", "confidentiality"}:
        return f"/sys/kernel/security/lockdown is {host.lockdown}: only signed modules load"
    return ""


@rule(
    Severity.HIGH,
    _MAN,
    "https://attack.mitre.org/techniques/T1055/",
    conditions=("CAP-SYS_PTRACE", "PRV-PTRACE"),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1611", "T1055.008"),
    cwe=(250,),
)
def trace_capability(
    sets: CapabilitySets, userns: UserNamespace | None, namespaces: tuple[Namespace, ...] | None
) -> Iterator[Outcome]:
    """CAP_SYS_PTRACE counts against the host.

    It opens the memory, files and root directory of every process in view, whoever owns it.

    Severity: critical when the host's processes are in view (host pid namespace).

    Fix: drop CAP_SYS_PTRACE; a debugger needs it for processes of other users only.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_SYS_PTRACE"]
    permitted = ["CAP_SYS_PTRACE"]
    ```

    ```toml good
    [CapabilitySets]
    effective = ["CAP_SYS_PTRACE"]
    permitted = ["CAP_SYS_PTRACE"]
    ```
    """
    if _has(sets, userns, "SYS_PTRACE"):
        pid = next((each for each in namespaces or () if each.kind == "pid" and each.host), None)
        more = (seen(pid, "the host's pid namespace"),) if pid else ()
        severity = Severity.CRITICAL if pid else None
        yield _one(sets, "SYS_PTRACE", "CAP_SYS_PTRACE counts against the host", severity, *more)


@rule(
    Severity.CRITICAL,
    "https://man7.org/linux/man-pages/man2/open_by_handle_at.2.html",
    "http://stealth.openwall.net/xSports/shocker.c",
    conditions=("CAP-DAC_READ_SEARCH",),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1611",),
    cwe=(250,),
)
def file_handle_capability(
    sets: CapabilitySets,
    userns: UserNamespace | None,
    mounts: tuple[Mount, ...] | None,
    seccomp: SeccompFilter | None,
) -> Iterator[Outcome]:
    """The container can open the host's files by handle.

    With CAP_DAC_READ_SEARCH, open_by_handle_at(2) opens any inode of a file system of which one mount is in view. A
    bind of /etc/hosts is enough to read /etc/shadow of the disk it lies on.

    Severity: medium when no file system of the host is in view or the filter denies the call; the capability still
    reads every file that the container sees.

    Fix: drop CAP_DAC_READ_SEARCH.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_DAC_READ_SEARCH"]
    permitted = ["CAP_DAC_READ_SEARCH"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    if not _has(sets, userns, "DAC_READ_SEARCH"):
        return
    # the root counts too, where it is a directory of the host and not an overlay
    views = None if mounts is None else tuple([each for each in mounts if each.destination == "/" and each.host_path])
    if mounts and views is not None:
        views += host_files(mounts)
    denied = seccomp is not None and "open_by_handle_at" not in seccomp.allowed | seccomp.conditional
    more = [seen(view, f"{view.destination} is the host's {view.host_path}") for view in (views or ())[:3]]
    if denied and seccomp:
        more.append(seen(seccomp, "the filter denies open_by_handle_at"))
    severity = Severity.MEDIUM if denied or views == () else None
    yield _one(sets, "DAC_READ_SEARCH", "CAP_DAC_READ_SEARCH counts against the host", severity, *more)


@rule(
    Severity.CRITICAL,
    _MAN,
    conditions=("CAP-SYS_RAWIO",),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1611",),
    cwe=(250,),
)
def raw_io_capability(
    sets: CapabilitySets, userns: UserNamespace | None, devices: tuple[DeviceNode, ...] | None
) -> Iterator[Outcome]:
    """The container may use the hardware directly.

    CAP_SYS_RAWIO opens /dev/mem and /proc/kcore, I/O ports and raw SCSI commands.

    Severity: medium when no device node that it opens is in view.

    Fix: drop CAP_SYS_RAWIO.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_SYS_RAWIO"]
    permitted = ["CAP_SYS_RAWIO"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    if _has(sets, userns, "SYS_RAWIO"):
        raw = [each for each in devices or () if each.kind == "block" or (each.major == 1 and each.minor in {1, 2, 4})]
        more = [seen(each, each.path) for each in raw]
        severity = None if raw or devices is None else Severity.MEDIUM
        yield _one(sets, "SYS_RAWIO", "CAP_SYS_RAWIO counts against the host", severity, *more)


@rule(
    Severity.MEDIUM,
    _MAN,
    conditions=("CAP-MKNOD",),
    covers=(
        "added_capabilities",
        "open_device_policy",
    ),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1611",),
    cwe=(250,),
)
def device_node_capability(
    sets: CapabilitySets, userns: UserNamespace | None, policy: DevicePolicy | None, change: CapabilityChange | None
) -> Iterator[Outcome]:
    """The container can make device nodes.

    With CAP_MKNOD a program makes the node of the host's disk for itself. Only the device cgroup stands before it.

    Severity: critical when every device is allowed; low when the policy lists few.

    Fix: drop CAP_MKNOD; pass the devices that are needed (--device).

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_MKNOD"]
    permitted = ["CAP_MKNOD"]
    ```

    ```toml good
    [CapabilitySets]
    effective = ["CAP_MKNOD"]
    permitted = ["CAP_MKNOD"]
    ```
    """
    if not _has(sets, userns, "MKNOD"):
        return
    if only_usual(change, "MKNOD") and (policy is None or policy.default == "deny"):
        return
    severity = None if policy is None else Severity.CRITICAL if policy.default == "allow" else Severity.LOW
    more = (seen(policy, f"device policy: {policy.default} by default"),) if policy else ()
    yield _one(sets, "MKNOD", "CAP_MKNOD counts against the host", severity, *more)


@rule(
    Severity.HIGH,
    _MAN,
    conditions=("CAP-NET_ADMIN",),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.9"),
    attack=("T1562.004",),
    cwe=(250,),
)
def network_capability(
    sets: CapabilitySets, userns: UserNamespace | None, namespaces: tuple[Namespace, ...] | None
) -> Iterator[Outcome]:
    """The container administers a network of the host's user namespace.

    CAP_NET_ADMIN changes addresses, routes and packet filters, and opens kernel code (nftables, traffic control)
    that has had many local root exploits.

    Severity: high in the host's network namespace; low in an own one.

    Fix: drop CAP_NET_ADMIN; let the engine set the network up.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_NET_ADMIN"]
    permitted = ["CAP_NET_ADMIN"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    if _has(sets, userns, "NET_ADMIN"):
        own = any(each.kind == "net" and each.host is False for each in namespaces or ())
        place = "a network namespace of its own" if own else "the host's network"
        severity = Severity.LOW if own else None
        yield _one(sets, "NET_ADMIN", f"CAP_NET_ADMIN counts in {place}", severity)


@rule(
    Severity.LOW,
    _MAN,
    conditions=("CAP-NET_RAW",),
    covers=("added_capabilities",),
    cis=("5.4", "K8S 5.2.8"),
    attack=("T1557.002", "T1040"),
    cwe=(250,),
)
def raw_socket_capability(
    sets: CapabilitySets,
    userns: UserNamespace | None,
    namespaces: tuple[Namespace, ...] | None,
    change: CapabilityChange | None,
) -> Iterator[Outcome]:
    """The container can forge packets.

    CAP_NET_RAW opens packet sockets: ARP and neighbour spoofing of the other containers on a bridge, sniffing, and
    kernel code (AF_PACKET) with a record of local root exploits.

    Severity: medium in the host's network namespace.

    Fix: drop CAP_NET_RAW; ping works without it where net.ipv4.ping_group_range allows it.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_NET_RAW"]
    permitted = ["CAP_NET_RAW"]
    ```

    ```toml good
    [CapabilitySets]
    effective = ["CAP_NET_RAW"]
    permitted = ["CAP_NET_RAW"]
    ```
    """
    if _has(sets, userns, "NET_RAW") and not only_usual(change, "NET_RAW"):
        host = any(each.kind == "net" and each.host for each in namespaces or ())
        title = f"CAP_NET_RAW counts in {'the host' if host else 'its own network'}"
        yield _one(sets, "NET_RAW", title, Severity.MEDIUM if host else None)
