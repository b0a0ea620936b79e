"""Control points of /proc and /sys: what the container could open, and what hides them."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import ControlFile, Identity, Mask, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import DoesNotApply, Found, Outcome, is_declared, rule, seen, several

_SYSCTL = "https://docs.kernel.org/admin-guide/sysctl/kernel.html"
_PROC = "https://man7.org/linux/man-pages/man5/proc.5.html"

_HELPERS = {
    "/proc/sys/kernel/core_pattern": ("PROC-CORE", "the kernel runs its program on the host at every crash"),
    "/proc/sys/kernel/modprobe": ("PROC-MODPROBE", "the kernel runs it on the host to load a module"),
    "/proc/sys/kernel/hotplug": ("PROC-HOTPLUG", "the kernel runs it on the host for every device event"),
    "/sys/kernel/uevent_helper": ("PROC-HOTPLUG", "the kernel runs it on the host for every device event"),
    "/proc/sys/fs/binfmt_misc/register": ("PROC-BINFMT", "the host's programs run under an interpreter of its choice"),
}
_CGROUP = {"release_agent": "PROC-RELEASE", "devices.allow": "PROC-DEVALLOW"}
_COMMANDS = {
    "/proc/sys/kernel/poweroff_cmd": ("PROC-POWEROFF", "the kernel runs it on the host to power off"),
    "/proc/sysrq-trigger": ("PROC-SYSRQ", "one letter reboots or crashes the machine"),
}
_DIRECTORIES = {"/sys/kernel/security/": "PROC-SECURITYFS", "/sys/firmware/efi/efivars/": "PROC-EFI"}
_POLICIES = tuple(_DIRECTORIES)
_SYSCTLS = {
    "/proc/sys/vm/panic_on_oom": "PROC-PANIC",
    "/proc/sys/kernel/panic": "PROC-PANIC",
    "/proc/sys/kernel/panic_on_oops": "PROC-PANIC",
    "/proc/sys/kernel/sysrq": "PROC-SYSRQ",
    "/proc/sys/fs/suid_dumpable": "PROC-SUIDDUMP",
}
_NAMED = frozenset(_HELPERS.keys() | _COMMANDS.keys())
_MEMORY = frozenset({"/proc/kcore", "/proc/kmem", "/dev/mem", "/dev/kmem"})
_INFORMATION = frozenset(
    {
        "/proc/kallsyms", "/proc/kmsg", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/sched_debug",
        "/proc/config.gz", "/proc/latency_stats", "/proc/interrupts", "/proc/acpi", "/proc/scsi", "/proc/asound",
        "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/vmcoreinfo",
    }
)  # fmt: skip


# what the runtimes hide or make read-only: the OCI default lists. Open, the first lot can be written or is memory.
_GRAVE = frozenset(
    {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/kcore", "/proc/acpi", "/sys"}
)
_HIDDEN = frozenset(
    {
        "/proc/asound", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
        "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
    }
)  # fmt: skip


def _opened(file: ControlFile) -> str:
    return seen(file, f"{file.path} opened for {'writing' if file.access == 'write' else 'reading'} as the container")


def _writable(file: ControlFile) -> bool:
    return file.access == "write" and file.outcome == "opened" and not file.own_namespace


def _absent(file: ControlFile) -> DoesNotApply:
    return DoesNotApply(f"this kernel has no {file.path}")


@rule(
    Severity.CRITICAL,
    _SYSCTL,
    "https://man7.org/linux/man-pages/man5/core.5.html",
    conditions=("PROC-CORE", "PROC-MODPROBE", "PROC-HOTPLUG", "PROC-BINFMT"),
    attack=("T1611", "T1068"),
    cwe=(732,),
)
def helper_program(files: tuple[ControlFile, ...]) -> Iterator[Outcome]:
    """The container can name a program that the kernel runs on the host.

    core_pattern, modprobe and their like hold the path of a helper that the kernel starts as root in the host's own
    namespaces. One write and one crash are an escape. Capabilities don't guard these files, the uid does: host root
    with an empty set opens them wherever /proc/sys is writable.

    Severity: none for a knob that belongs to the container's own namespaces.

    Fix: map the container's ids to a subordinate range, or keep /proc/sys and /sys read-only (leave out
    systempaths=unconfined, procMount: Unmasked).

    ```toml bad
    [[ControlFile]]
    path = "/proc/sys/kernel/core_pattern"
    access = "write"
    outcome = "opened"
    ```

    ```toml good
    [[ControlFile]]
    path = "/proc/sys/kernel/core_pattern"
    access = "write"
    outcome = "refused"
    error = "EACCES"
    ```
    """
    for file in [file for file in files if file.path in _HELPERS]:
        condition, what = _HELPERS[file.path]
        if file.outcome == "absent":
            yield _absent(file)
        elif _writable(file):
            yield Found(f"{file.path} can be written: {what}", file.where, (_opened(file),), conditions=(condition,))


@rule(
    Severity.CRITICAL,
    "https://man7.org/linux/man-pages/man7/cgroups.7.html",
    "https://unit42.paloaltonetworks.com/cve-2022-0492-cgroups/",
    conditions=("PROC-RELEASE", "PROC-DEVALLOW"),
    attack=("T1611",),
    cwe=(732,),
    cve=("CVE-2022-0492",),
)
def cgroup_control(files: tuple[ControlFile, ...]) -> Iterator[Outcome]:
    """The container can write cgroup files that lead to the host.

    release_agent is a program that the kernel runs on the host when a cgroup empties (CVE-2022-0492); devices.allow
    opens every device to the container.

    Fix: mount the cgroup file systems read-only, map the ids to a subordinate range, or use cgroup v2.

    ```toml bad
    [[ControlFile]]
    path = "/sys/fs/cgroup/memory/release_agent"
    access = "write"
    outcome = "opened"
    ```

    ```toml good
    [[ControlFile]]
    path = "/sys/fs/cgroup/memory/release_agent"
    access = "write"
    outcome = "refused"
    error = "EROFS"
    ```
    """
    # that one is absent says nothing of the kernel: only the root of a hierarchy has a release_agent
    for name, condition in _CGROUP.items():
        end = f"/{name}"
        opened = [file for file in files if file.path.endswith(end) and _writable(file)]
        opened.sort(key=lambda file: file.path)
        if opened:
            title = f"{opened[0].path} can be written" + (f", and {len(opened) - 1} more" if opened[1:] else "")
            evidence = several(opened, (f"{file.path} opened for writing as the container" for file in opened))
            yield Found(title, opened[0].where, evidence, conditions=(condition,), key=name)


@rule(
    Severity.HIGH,
    "https://docs.kernel.org/admin-guide/sysrq.html",
    conditions=("PROC-SYSRQ", "PROC-POWEROFF", "PROC-SECURITYFS", "PROC-EFI"),
    attack=("T1529",),
    cwe=(732,),
)
def kernel_command(files: tuple[ControlFile, ...]) -> Iterator[Outcome]:
    """The container can command the kernel.

    sysrq-trigger reboots the machine with one letter; poweroff_cmd names the program that powers it off; securityfs
    holds the policy of the security modules; efivars holds what the firmware boots.

    Fix: keep /proc and /sys read-only, or map the ids to a subordinate range.

    ```toml bad
    [[ControlFile]]
    path = "/proc/sysrq-trigger"
    access = "write"
    outcome = "opened"
    ```

    ```toml good
    [[ControlFile]]
    path = "/proc/sysrq-trigger"
    access = "write"
    outcome = "refused"
    error = "EROFS"
    ```
    """
    for file in [file for file in files if file.path in _COMMANDS or file.path.startswith(_POLICIES)]:
        condition, what = _COMMANDS.get(file.path, ("", "security policy or firmware is open to it"))
        for directory, each in _DIRECTORIES.items():
            if file.path.startswith(directory):
                condition = each
        if file.outcome == "absent":
            yield _absent(file)
        elif _writable(file):
            yield Found(f"{file.path} can be written: {what}", file.where, (_opened(file),), conditions=(condition,))


@rule(
    Severity.MEDIUM,
    _SYSCTL,
    conditions=("PROC-SYSANY", "PROC-PANIC", "PROC-SUIDDUMP", "PROC-UMH"),
    attack=("T1499",),
    cwe=(732,),
)
def global_sysctl(files: tuple[ControlFile, ...]) -> Iterator[Outcome]:
    """The container can write sysctls of the whole machine.

    They make the kernel panic, dump setuid programs, or change limits for everyone. Sysctls of the container's own
    network and IPC namespaces are no finding.

    Severity: low for usermodehelper/*, whose handler asks for capabilities when written.

    Fix: keep /proc/sys read-only and set namespaced sysctls through the engine (--sysctl).

    ```toml bad
    [[ControlFile]]
    path = "/proc/sys/vm/panic_on_oom"
    access = "write"
    outcome = "opened"
    ```

    ```toml good
    [[ControlFile]]
    path = "/proc/sys/net/ipv4/ip_forward"
    access = "write"
    outcome = "opened"
    own_namespace = true
    ```
    """
    opened: dict[str, list[ControlFile]] = {}
    for file in files:
        # cheapest first: there are hundreds
        if _writable(file) and file.path not in _NAMED and file.path.startswith("/proc/sys/"):
            usual = "PROC-UMH" if "/usermodehelper/" in file.path else "PROC-SYSANY"
            opened.setdefault(_SYSCTLS.get(file.path, usual), []).append(file)
    for condition, found in opened.items():
        found.sort(key=lambda file: file.path)
        title = f"{found[0].path} can be written" if len(found) == 1 else f"{len(found)} global sysctls can be written"
        evidence = several(found, (f"{file.path} opened for writing as the container" for file in found))
        severity = Severity.LOW if condition == "PROC-UMH" else None
        yield Found(title, found[0].where, evidence, severity, (condition,), key=condition)


@rule(Severity.HIGH, _PROC, conditions=("PROC-KCORE",), attack=("T1003.007",), cwe=(200,))
def kernel_memory(files: tuple[ControlFile, ...]) -> Iterator[Outcome]:
    """The container can read kernel memory.

    /proc/kcore and /dev/mem hold everything that any process of the host keeps in memory: keys, passwords, the files of
    other containers.

    Fix: mask /proc/kcore (the engines' default), drop CAP_SYS_RAWIO, pass no memory device.

    ```toml bad
    [[ControlFile]]
    path = "/proc/kcore"
    access = "read"
    outcome = "opened"
    ```

    ```toml good
    [[ControlFile]]
    path = "/proc/kcore"
    access = "read"
    outcome = "refused"
    error = "EPERM"
    ```
    """
    for file in [file for file in files if file.path in _MEMORY and file.access == "read"]:
        if file.outcome == "absent":
            yield _absent(file)
        elif file.outcome == "opened":
            yield Found(f"{file.path} can be read: kernel memory", file.where, (_opened(file),))


@rule(Severity.LOW, _PROC, conditions=("PROC-INFO",), attack=("T1082",), cwe=(200,))
def kernel_information(files: tuple[ControlFile, ...]) -> Iterator[Outcome]:
    """The container can read about the kernel and the machine.

    Addresses, logs, keys, timers, interrupts and power readings help an exploit or leak what neighbours do.

    Fix: mask them, as engines do unless told otherwise.

    ```toml bad
    [[ControlFile]]
    path = "/proc/timer_list"
    access = "read"
    outcome = "opened"
    ```

    ```toml good
    [[ControlFile]]
    path = "/proc/timer_list"
    access = "read"
    outcome = "absent"
    ```
    """
    opened = [
        file for file in files if file.path in _INFORMATION and file.access == "read" and file.outcome == "opened"
    ]
    if opened:
        title = (
            f"{len(opened)} files about the kernel can be read" if len(opened) > 1 else f"{opened[0].path} can be read"
        )
        yield Found(title, opened[0].where, tuple([_opened(file) for file in opened]), key="information")


@rule(
    Severity.HIGH,
    "https://kubernetes.io/docs/concepts/security/pod-security-standards/",
    "https://docs.docker.com/reference/cli/docker/container/run/#security-opt",
    conditions=("PROC-UNMASK",),
    attack=("T1611",),
    cwe=(732,),
)
def unmasked_paths(
    masks: tuple[Mask, ...], identity: Identity | None, userns: UserNamespace | None
) -> Iterator[Outcome]:
    """Paths of /proc and /sys aren't masked.

    Engines hide files that show the kernel and make the sysctls read-only, because procfs trusts uid 0. Without the
    masks host root writes whatever the rules on control files name.

    Severity: none in a user namespace without host root, where the kernel refuses by itself; medium for other ids
    of the host.

    Fix: leave out systempaths=unconfined, --security-opt unmask, procMount: Unmasked.

    ```toml bad
    [Identity]
    host_uids = [1000, 1000, 1000, 1000]

    [UserNamespace]
    initial = true

    [[Mask]]
    path = "/proc/sys"
    state = "open"
    declared = "open"
    ```

    ```toml good
    [[Mask]]
    path = "/proc/sys"
    state = "open"
    declared = "open"
    ```
    """
    opened = [mask for mask in masks if mask.state == "open" and mask.path in _GRAVE | _HIDDEN]
    if not opened or (gates.reaches_host_root(userns) is False and gates.host_root(identity, userns) is not True):
        return
    severity = None if gates.may_be_host_root(identity, userns) else Severity.MEDIUM
    if not any(mask.path in _GRAVE for mask in opened):
        severity = Severity.LOW
    title = (
        f"{len(opened)} paths of /proc and /sys aren't masked" if len(opened) > 1 else f"{opened[0].path} isn't masked"
    )
    evidence = tuple([seen(mask, f"{mask.path} is neither hidden nor read-only") for mask in opened])
    if is_declared(opened[0]) and len(opened) > 1:  # one setting of the file opens them all
        evidence = (seen(opened[0], f"{', '.join(mask.path for mask in opened)} are open"),)
    yield Found(title, opened[0].where, evidence, severity, key="unmasked")


@rule(
    Severity.HIGH,
    "https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2",
    conditions=("PROC-MASKDRIFT",),
    attack=("T1611",),
    cwe=(367,),
    cve=("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"),
)
def ineffective_mask(mask: Mask) -> Iterator[Outcome]:
    """A declared mask isn't in effect.

    The configuration hides the path or makes it read-only, and the kernel has no such mount. That is what a won race
    against the runtime leaves behind (CVE-2025-31133, CVE-2025-52881), or a process that unmounted it.

    Fix: stop the container, update the runtime, and treat the container as compromised.

    ```toml bad
    [[Mask]]
    path = "/proc/kcore"
    state = "open"
    declared = "masked"
    ```

    ```toml good
    [[Mask]]
    path = "/proc/kcore"
    state = "masked"
    declared = "masked"
    ```
    """
    weaker = mask.state == "open" or (mask.state == "read-only" and mask.declared == "masked")
    if mask.declared in {"masked", "read-only"} and weaker:
        title = f"{mask.path} is declared {mask.declared} and is {mask.state}"
        yield Found(title, mask.where, (seen(mask, title),))
