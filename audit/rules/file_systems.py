"""File systems of the kernel's that are mounted, and the root itself."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import Identity, Mount, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen, several


@rule(
    Severity.HIGH,
    "https://unit42.paloaltonetworks.com/cve-2022-0492-cgroups/",
    conditions=("MNT-CGROUP",),
    attack=("T1611",),
    cwe=(668,),
    cve=("CVE-2022-0492",),
)
def cgroup_writable(
    mounts: tuple[Mount, ...], identity: Identity | None, userns: UserNamespace | None
) -> Iterator[Outcome]:
    """A cgroup file system is mounted writable.

    The container can lift its own limits. In cgroup v1, host root can also set release_agent, a program that the kernel
    runs on the host, and allow itself every device.

    Severity: low for cgroup v2, which has neither; none for v2 and low for v1 where the process isn't host root.

    Fix: mount it read-only; nested managers such as systemd work with cgroup v2 in a user namespace.

    ```toml bad
    [Identity]
    host_uids = [101000, 101000, 101000, 101000]

    [[Mount]]
    destination = "/sys/fs/cgroup/memory"
    fstype = "cgroup"
    writable = true
    options = ["rw"]
    ```

    ```toml good
    [[Mount]]
    destination = "/sys/fs/cgroup/memory"
    fstype = "cgroup"
    writable = false
    options = ["ro"]
    ```
    """
    root = gates.may_be_host_root(identity, userns)
    for fstype, version in (("cgroup", "v1"), ("cgroup2", "v2")):
        found = [mount for mount in mounts if mount.fstype == fstype and mount.writable]
        if found and (root or version == "v1"):
            title = f"cgroup {version} is writable at {found[0].destination}"
            title += f", and {len(found) - 1} more" if found[1:] else ""
            evidence = several(found, [f"{mount.destination} {fstype} rw" for mount in found])
            severity = Severity.HIGH if root and version == "v1" else Severity.LOW
            yield Found(title, found[0].where, evidence, severity, key=version)


_CONTROL = {
    "debugfs": "kernel debugging",
    "tracefs": "kernel tracing",
    "securityfs": "security policy",
    "bpf": "pinned kernel programs",
    "configfs": "kernel objects",
    "efivarfs": "firmware variables",
    "pstore": "crash records",
    "fuse.lxcfs": "cgroups through lxcfs",
}


@rule(
    Severity.HIGH,
    "https://docs.kernel.org/filesystems/debugfs.html",
    conditions=("MNT-PSEUDO", "MNT-LXCFS"),
    attack=("T1611",),
    cwe=(668,),
)
def kernel_filesystem(mount: Mount, identity: Identity | None, userns: UserNamespace | None) -> Iterator[Outcome]:
    """A file system that controls the kernel is mounted.

    debugfs, tracefs, securityfs, bpffs, configfs and efivarfs are made for the administrator: through them host
    root reads kernel memory, traces all processes, changes policy or bricks the machine.

    Severity: low when it is read-only or the process isn't host root, info when both.

    Fix: leave it out.

    ```toml bad
    [[Mount]]
    destination = "/sys/kernel/debug"
    fstype = "debugfs"
    writable = true
    options = ["rw"]
    ```

    ```toml good
    [[Mount]]
    destination = "/dev/mqueue"
    fstype = "mqueue"
    writable = true
    options = ["rw", "nosuid", "nodev", "noexec"]
    ```
    """
    if mount.fstype not in _CONTROL:
        return
    root = gates.may_be_host_root(identity, userns)
    closed = (not mount.writable) + (not root)
    severity = (None, Severity.LOW, Severity.INFO)[closed]
    conditions = ("MNT-LXCFS",) if mount.fstype == "fuse.lxcfs" else ("MNT-PSEUDO",)
    title = f"{mount.fstype} ({_CONTROL[mount.fstype]}) is mounted at {mount.destination}"
    line = seen(mount, f"{mount.destination} {mount.fstype} {'rw' if mount.writable else 'ro'}")
    yield Found(title, mount.where, (line,), severity, conditions)


@rule(
    Severity.LOW,
    "https://www.cisecurity.org/benchmark/docker",
    conditions=("MNT-ROFS",),
    cis=("5.13",),
    attack=("T1036",),
    cwe=(732,),
)
def writable_root(mount: Mount) -> Iterator[Outcome]:
    """The container's root file system is writable.

    An attacker changes the program itself and stays; what runs differs from the image.

    Fix: make it read-only (--read-only) and mount a tmpfs or a volume where the program writes.

    ```toml bad
    [[Mount]]
    destination = "/"
    writable = true
    options = ["rw", "nosuid", "nodev"]
    ```

    ```toml good
    [[Mount]]
    destination = "/"
    writable = false
    ```
    """
    if mount.destination == "/" and mount.writable and mount.fstype != "tmpfs":
        yield Found("the container's root file system is writable", mount.where, (seen(mount, "/ is mounted rw"),))
