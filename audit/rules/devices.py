"""Device nodes in view and what the device cgroup allows."""

from collections.abc import Iterable, Iterator

from stockade.audit import gates
from stockade.audit.facts import CapabilitySets, DeviceNode, DevicePolicy, Identity, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, is_declared, rule, seen, several
from stockade.sandbox.linux import capabilities as caps

_DEVICES = "https://docs.kernel.org/admin-guide/devices.html"
_CGROUP = "https://docs.kernel.org/admin-guide/cgroup-v1/devices.html"


def permits(policy: DevicePolicy, device: DeviceNode) -> bool:
    """Say whether a device policy lets a device be opened; rules are those of cgroup v1, such as "b *:* r"."""
    for rule_ in policy.rules:
        kind, numbers, access = (*rule_.split(), "", "", "")[:3]
        major, _, minor = numbers.partition(":")
        fits = kind == "a" or (
            kind == device.kind[0] and major in {"*", str(device.major)} and minor in {"*", str(device.minor)}
        )
        if fits and (set(access) & {"r", "w"} or kind == "a"):
            return True
    return policy.default == "allow"


def reachable(device: DeviceNode, policy: DevicePolicy | None, identity: Identity | None = None) -> bool | None:
    """Say whether the target can open a device: its mode, its mount and the policy. None is not known.

    A file doesn't tell the node's mode, which lets root in; with an `identity` it is not known for others.
    """
    if is_declared(device) and device.usable and gates.host_root(identity) is False:
        return None
    allowed = device.policy if device.policy is not None else permits(policy, device) if policy else None
    if device.usable is False or allowed is False:
        return False
    return True if device.usable and allowed else None


def by_weight(devices: Iterable[DeviceNode]) -> list[DeviceNode]:
    """Give the block devices, disks before what is mostly empty (loop, RAM disks)."""
    light = ("loop", "ram", "zram", "nbd", "sr", "fd")
    blocks = [device for device in devices if device.kind == "block"]
    return sorted(blocks, key=lambda device: (device.path.rpartition("/")[2].startswith(light), device.path))


def _line(device: DeviceNode) -> str:
    return seen(device, f"{device.path} is {device.kind} {device.major}:{device.minor}")


def _found(device: DeviceNode, what: str, severity: Severity | None, conditions: tuple[str, ...]) -> Found:
    return Found(f"{device.path} can be opened: {what}", device.where, (_line(device),), severity, conditions)


@rule(
    Severity.CRITICAL,
    _DEVICES,
    "https://attack.mitre.org/techniques/T1611/",
    conditions=("DEV-BLOCK",),
    cis=("5.18",),
    attack=("T1611", "T1006"),
    cwe=(668,),
)
def block_device(
    devices: tuple[DeviceNode, ...], policy: DevicePolicy | None, identity: Identity | None
) -> Iterator[Outcome]:
    """A disk of the host can be opened.

    Whoever reads and writes the block device reads and writes every file on it, past all permissions.

    Severity: high when the mode or the device policy isn't known; none when one of them refuses.

    Fix: leave the device out; mount the directory that is needed.

    ```toml bad
    [[DeviceNode]]
    path = "/dev/sda"
    kind = "block"
    major = 8
    minor = 0
    usable = true
    policy = true
    ```

    ```toml good
    [[DeviceNode]]
    path = "/dev/sda"
    kind = "block"
    major = 8
    minor = 0
    usable = true
    policy = false
    ```
    """
    disks = by_weight(devices)
    for sure in (True, None):
        found = [device for device in disks if reachable(device, policy, identity) is sure]
        if found:
            title = f"{found[0].path} can be opened: a disk of the host"
            if len(found) > 1:
                title = f"{found[0].path} and {len(found) - 1} more disks of the host can be opened"
            evidence = several(found, (f"{each.path} is block {each.major}:{each.minor}" for each in found))
            yield Found(title, found[0].where, evidence, None if sure else Severity.HIGH, key=f"{sure}")


@rule(
    Severity.CRITICAL,
    _DEVICES,
    "https://man7.org/linux/man-pages/man4/mem.4.html",
    conditions=("DEV-MEM",),
    cis=("5.18",),
    attack=("T1611",),
    cwe=(668,),
)
def memory_device(devices: tuple[DeviceNode, ...], policy: DevicePolicy | None) -> Iterator[Outcome]:
    """The machine's memory or I/O ports can be opened.

    /dev/mem, /dev/kmem and /dev/port read and write the machine below the kernel; /dev/kmsg shows its log and takes
    forged lines.

    Severity: medium for /dev/kmsg; one step lower when mode or policy isn't known.

    Fix: leave the device out.

    ```toml bad
    [[DeviceNode]]
    path = "/dev/mem"
    kind = "char"
    major = 1
    minor = 1
    usable = true
    policy = true
    ```

    ```toml good
    [[DeviceNode]]
    path = "/dev/mem"
    kind = "char"
    major = 1
    minor = 1
    usable = false
    ```
    """
    for device in devices:
        if device.major != 1 or device.kind != "char" or device.minor not in {1, 2, 4, 11}:
            continue
        opens = reachable(device, policy)
        if opens is False:
            continue
        severity = Severity.MEDIUM if device.minor == 11 else Severity.CRITICAL
        what = "the kernel's log" if device.minor == 11 else "the machine's memory"
        yield _found(device, what, severity if opens else gates.lower(severity), ("DEV-MEM",))


@rule(Severity.HIGH, _CGROUP, conditions=("DEV-ALLOWALL",), cis=("5.18",), attack=("T1611",), cwe=(276,))
def open_device_policy(
    policy: DevicePolicy, sets: CapabilitySets | None, identity: Identity | None, userns: UserNamespace | None
) -> Iterator[Outcome]:
    """Every device is allowed.

    The device cgroup is what stands between a node and the hardware. Without it, any node that appears in the container
    works: one that is passed by mistake, lies on a volume, or is made there.

    Severity: low for ids that are neither host root nor hold CAP_MKNOD; none in a user namespace without host root,
    where nobody can make a node and modes refuse the host's.

    Fix: allow the devices that are needed (--device) instead of all (--privileged, --device-cgroup-rule 'a *:* rwm').

    ```toml bad
    [Identity]
    host_uids = [1000, 1000, 1000, 1000]

    [UserNamespace]
    initial = true

    [DevicePolicy]
    default = "allow"
    rules = []
    ```

    ```toml good
    [DevicePolicy]
    default = "allow"
    rules = []
    source = "none"
    ```
    """
    if policy.default != "allow" and not any(rule_.startswith("a ") for rule_ in policy.rules):
        return
    if gates.reaches_host_root(userns) is False and gates.host_root(identity, userns) is False:
        return
    mknod = sets is None or gates.counting(sets, userns) & caps.mask(["MKNOD"])
    severity = None if mknod or gates.may_be_host_root(identity, userns) else Severity.LOW
    enforced = "nothing enforces a device policy" if policy.source == "none" else "the device policy allows all"
    yield Found("every device is allowed", policy.where, (seen(policy, enforced),), severity, key="allow")


_MISC = {  # minor of major 10
    200: ("DEV-TUN", "network tunnels", Severity.LOW),
    223: ("DEV-INPUT", "forged input", Severity.MEDIUM),
    229: ("DEV-FUSE", "file systems in user space", Severity.LOW),
    232: ("DEV-KVM", "virtual machines", Severity.LOW),
    237: ("DEV-BLOCK", "new loop devices", Severity.MEDIUM),
    238: ("DEV-VHOST", "the host's network datapath", Severity.MEDIUM),
    241: ("DEV-VHOST", "sockets to virtual machines", Severity.MEDIUM),
    196: ("DEV-VFIO", "devices by pass-through", Severity.MEDIUM),
}
_MAJORS = {
    13: ("DEV-INPUT", "keyboards and mice of the host", Severity.MEDIUM),
    21: ("DEV-BLOCK", "raw SCSI commands", Severity.HIGH),
    195: ("DEV-GPU", "a graphics driver", Severity.LOW),
    226: ("DEV-GPU", "a graphics driver", Severity.LOW),
}
_NAMED = {"userfaultfd": ("DEV-UFFD", "page faults in user space", Severity.LOW)}


@rule(
    Severity.LOW,
    _DEVICES,
    conditions=("DEV-KVM", "DEV-TUN", "DEV-FUSE", "DEV-VHOST", "DEV-VFIO", "DEV-GPU", "DEV-INPUT", "DEV-UFFD"),
    cis=("5.18",),
    attack=("T1068",),
    cwe=(668,),
)
def extra_device(devices: tuple[DeviceNode, ...], policy: DevicePolicy | None) -> Iterator[Outcome]:
    """A device opens more of the kernel than containers have.

    Each driver is kernel code that the container can call: hypervisor, tunnels, graphics, input. Some of it has let
    programs out before.

    Severity: medium for devices that reach other programs (input, vhost, VFIO), high for raw SCSI.

    Fix: pass it to the containers only that need it.

    ```toml bad
    [[DeviceNode]]
    path = "/dev/kvm"
    kind = "char"
    major = 10
    minor = 232
    usable = true
    policy = true
    ```

    ```toml good
    [[DeviceNode]]
    path = "/dev/full"
    kind = "char"
    major = 1
    minor = 7
    usable = true
    policy = true
    ```
    """
    for device in devices:
        if device.kind != "char":
            continue
        known = _NAMED.get(device.path.rpartition("/")[2]) or _MAJORS.get(device.major)
        if device.major == 10:
            known = known or _MISC.get(device.minor)
        if known and reachable(device, policy) is not False:
            condition, what, severity = known
            yield _found(device, what, severity, (condition,))
