"""Namespaces that the container shares with the host or with others."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import CapabilitySets, Identity, Namespace, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import CannotTell, Found, Outcome, rule, seen
from stockade.sandbox.linux import capabilities as caps

_MAN = "https://man7.org/linux/man-pages/man7/namespaces.7.html"
_PSS = "https://kubernetes.io/docs/concepts/security/pod-security-standards/"


def _shared(namespaces: tuple[Namespace, ...], kind: str) -> Iterator[Namespace | CannotTell]:
    """Give the host's namespace of a kind if the container is in it."""
    for namespace in namespaces:
        if namespace.kind == kind:
            if namespace.host is None:
                yield CannotTell(f"whether the {kind} namespace is the host's is not known", namespace.where)
            elif namespace.host:
                yield namespace
            return
    yield CannotTell(f"the {kind} namespace is not known")


def _judge(
    namespaces: tuple[Namespace, ...], kind: str, title: str, severity: Severity | None = None
) -> Iterator[Outcome]:
    for shared in _shared(namespaces, kind):
        if isinstance(shared, CannotTell):
            yield shared
        else:
            line = f"the {kind} namespace is the host's"
            inode = f" ({kind}:[{shared.inode}])" if shared.inode else ""
            yield Found(title, shared.where, (seen(shared, line + inode),), severity, key=kind)


@rule(
    Severity.CRITICAL,
    _MAN,
    conditions=("NS-MNT",),
    covers=("host_pid_namespace", "host_network", "host_ipc_namespace", "host_uts_namespace", "host_cgroup_namespace"),
    attack=("T1611",),
    cwe=(653,),
)
def host_mount_namespace(
    namespaces: tuple[Namespace, ...], identity: Identity | None, userns: UserNamespace | None
) -> Iterator[Outcome]:
    """The process sees the host's file system tree.

    Without a mount namespace of its own it isn't in a container: every file of the host is in view and only file
    permissions protect it.

    Severity: high for a process that isn't host root.

    Fix: start it in a mount namespace with a root file system of its own.

    ```toml bad
    [[Namespace]]
    kind = "mnt"
    host = true
    ```

    ```toml good
    [[Namespace]]
    kind = "mnt"
    host = false
    ```
    """
    severity = None if gates.may_be_host_root(identity, userns) else Severity.HIGH
    yield from _judge(namespaces, "mnt", "the process sees the host's file system tree", severity)


@rule(
    Severity.HIGH, _MAN, _PSS, conditions=("NS-PID",), cis=("5.16", "K8S 5.2.3"), attack=("T1611", "T1057"), cwe=(653,)
)
def host_pid_namespace(
    namespaces: tuple[Namespace, ...],
    identity: Identity | None,
    userns: UserNamespace | None,
) -> Iterator[Outcome]:
    """The container sees the host's processes.

    It can signal, and where ids or capabilities allow it trace, processes of the host; /proc/PID/root, environ and
    fd of each lead to the host's files and secrets.

    Severity: medium where an own user namespace without host root keeps the host's processes out of reach.

    Fix: give the container its own pid namespace (leave out --pid host, hostPID).

    ```toml bad
    [[Namespace]]
    kind = "pid"
    host = true
    ```

    ```toml good
    [[Namespace]]
    kind = "pid"
    host = false
    ```
    """
    remapped = gates.reaches_host_root(userns) is False and gates.host_root(identity, userns) is False
    severity = Severity.MEDIUM if remapped else None
    yield from _judge(namespaces, "pid", "the container sees the host's processes", severity)


@rule(
    Severity.HIGH,
    _MAN,
    "https://github.com/containerd/containerd/security/advisories/GHSA-36xw-fx78-c5r4",
    conditions=("NS-NET", "NET-ABSTRACT"),
    cis=("5.10", "K8S 5.2.5"),
    attack=("T1611", "T1046"),
    cwe=(653,),
    cve=("CVE-2020-15257",),
)
def host_network(
    namespaces: tuple[Namespace, ...],
    identity: Identity | None,
    userns: UserNamespace | None,
) -> Iterator[Outcome]:
    """The container is in the host's network.

    Services that listen on the loopback address believe that they talk to the host. Abstract unix sockets belong to the
    network namespace too: containerd's was a way out (CVE-2020-15257).

    Severity: medium for a process that isn't host root and has no capability over the network.

    Fix: give the container its own network (leave out --network host, hostNetwork) and publish the ports it serves.

    ```toml bad
    [[Namespace]]
    kind = "net"
    host = true
    owner_initial = true
    ```

    ```toml good
    [[Namespace]]
    kind = "net"
    host = false
    owner_initial = false
    ```
    """
    severity = None if gates.may_be_host_root(identity, userns) else Severity.MEDIUM
    yield from _judge(namespaces, "net", "the container is in the host's network", severity)


@rule(Severity.MEDIUM, _MAN, _PSS, conditions=("NS-IPC",), cis=("5.17", "K8S 5.2.4"), attack=("T1611",), cwe=(653,))
def host_ipc_namespace(namespaces: tuple[Namespace, ...]) -> Iterator[Outcome]:
    """The container shares the host's System V IPC and POSIX queues.

    Shared memory of the host's programs (databases, desktops) can be read and written where its mode allows it.

    Fix: give the container its own IPC namespace (leave out --ipc host, hostIPC).

    ```toml bad
    [[Namespace]]
    kind = "ipc"
    host = true
    ```

    ```toml good
    [[Namespace]]
    kind = "ipc"
    host = false
    ```
    """
    yield from _judge(namespaces, "ipc", "the container shares the host's IPC")


@rule(Severity.LOW, _MAN, conditions=("NS-UTS",), cis=("5.21",), cwe=(653,))
def host_uts_namespace(
    namespaces: tuple[Namespace, ...], sets: CapabilitySets | None, userns: UserNamespace | None
) -> Iterator[Outcome]:
    """The container shares the host's name.

    With CAP_SYS_ADMIN it can change the host name of the machine.

    Severity: medium with CAP_SYS_ADMIN against the host, info without.

    Fix: give the container its own UTS namespace (leave out --uts host).

    ```toml bad
    [[Namespace]]
    kind = "uts"
    host = true
    ```

    ```toml good
    [[Namespace]]
    kind = "uts"
    host = false
    ```
    """
    severity = None
    if sets is not None:
        admin = gates.counting(sets, userns) & caps.mask(["SYS_ADMIN"])
        severity = Severity.MEDIUM if admin else Severity.INFO
    yield from _judge(namespaces, "uts", "the container shares the host's name", severity)


@rule(
    Severity.LOW,
    "https://github.com/opencontainers/runc/security/advisories/GHSA-m8cg-xc2p-r3fc",
    conditions=("NS-CGROUP",),
    attack=("T1082",),
    cwe=(653,),
    cve=("CVE-2023-25809",),
)
def host_cgroup_namespace(namespaces: tuple[Namespace, ...]) -> Iterator[Outcome]:
    """The container sees the host's cgroup tree.

    It learns the names and limits of every other container; with a writable cgroup mount it can change them
    (CVE-2023-25809).

    Fix: give the container its own cgroup namespace (--cgroupns private).

    ```toml bad
    [[Namespace]]
    kind = "cgroup"
    host = true
    ```

    ```toml good
    [[Namespace]]
    kind = "cgroup"
    host = false
    ```
    """
    yield from _judge(namespaces, "cgroup", "the container sees the host's cgroup tree")


@rule(Severity.LOW, _MAN, conditions=("NS-JOIN",), attack=("T1021",), cwe=(653,))
def joined_namespace(namespace: Namespace) -> Iterator[Outcome]:
    """The container shares a namespace with another container.

    Whoever takes over one of them reaches the other: its processes, its loopback services or its shared memory.

    Severity: info for the user, UTS, cgroup and time namespaces.

    Fix: let them talk over a network or a volume instead, unless they are meant to be one.

    ```toml bad
    [[Namespace]]
    kind = "net"
    shared_with = ["container:db"]
    ```

    ```toml good
    [[Namespace]]
    kind = "net"
    shared_with = []
    ```
    """
    if namespace.shared_with and not namespace.host:
        others = ", ".join(sorted(namespace.shared_with)[:5])
        severity = None if namespace.kind in {"pid", "net", "ipc", "mnt"} else Severity.INFO
        title = f"the {namespace.kind} namespace is shared with {others}"
        yield Found(title, namespace.where, (seen(namespace, title),), severity, key=namespace.kind)
