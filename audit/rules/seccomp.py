"""The system call filter and the security modules."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import Host, Identity, LsmLabel, SeccompFilter, SeccompState, SecurityOptions, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import CannotTell, DoesNotApply, Found, Outcome, is_declared, rule, said, seen

_SECCOMP = "https://docs.docker.com/engine/security/seccomp/"
_MAN = "https://man7.org/linux/man-pages/man2/seccomp.2.html"

#: What a program in a container has no use for, by what each of them opens. ptrace and process_vm_* are not here: they
# reach peers only, unless the host's processes are in view, which is a path of its own.
DANGEROUS = {
    "mount": "mount file systems",
    "umount2": "unmount masks",
    "pivot_root": "change the root",
    "move_mount": "move mounts",
    "open_tree": "clone mounts",
    "fsopen": "open file systems",
    "fsmount": "mount file systems",
    "mount_setattr": "make read-only mounts writable",
    "setns": "enter namespaces",
    "unshare": "make user namespaces",
    "bpf": "load kernel programs",
    "perf_event_open": "watch the kernel",
    "keyctl": "use keyrings, which have no namespace",
    "add_key": "use keyrings, which have no namespace",
    "request_key": "start the kernel's key helper",
    "userfaultfd": "stop the kernel at page faults",
    "io_uring_setup": "do I/O past the filter",
    "io_uring_enter": "do I/O past the filter",
    "io_uring_register": "do I/O past the filter",
    "open_by_handle_at": "open files by handle",
    "kexec_load": "boot a kernel",
    "kexec_file_load": "boot a kernel",
    "init_module": "load modules",
    "finit_module": "load modules",
    "delete_module": "unload modules",
    "quotactl": "change quotas",
    "acct": "write the host's accounting",
    "swapon": "change swap",
    "swapoff": "change swap",
    "reboot": "reboot",
    "settimeofday": "set the clock",
    "clock_settime": "set the clock",
    "iopl": "use I/O ports",
    "ioperm": "use I/O ports",
    "lookup_dcookie": "trace the kernel",
}
# those that work without any capability: they count whatever the container holds
_FOR_ANYONE = frozenset(
    {"unshare", "bpf", "perf_event_open", "keyctl", "add_key", "request_key", "userfaultfd", "io_uring_setup"}
)


@rule(
    Severity.HIGH, _SECCOMP, _MAN, conditions=("SEC-SECCOMP",), cis=("5.22", "K8S 5.7.2"), attack=("T1068",), cwe=(693,)
)
def no_seccomp(seccomp: SeccompState, identity: Identity | None, userns: UserNamespace | None) -> Iterator[Outcome]:
    """No system call filter is loaded.

    All of the kernel's some 360 system calls are open, among them those in which most local root exploits were found.

    Severity: medium for a process that isn't host root.

    Fix: leave out seccomp=unconfined; name a profile (seccompProfile: RuntimeDefault).

    ```toml bad
    absent = ["SeccompFilter"]

    [SeccompState]
    mode = "disabled"
    filters = 0
    ```

    ```toml good
    [SeccompState]
    mode = "filter"
    filters = 1
    ```
    """
    if seccomp.mode == "disabled":
        severity = None if gates.may_be_host_root(identity, userns) else Severity.MEDIUM
        line = said(seccomp, "Seccomp: 0", "seccomp is unconfined")
        yield Found("no system call filter is loaded", seccomp.where, (line,), severity)


@rule(Severity.LOW, _SECCOMP, conditions=("SEC-SECCOMP",), cis=("5.22",), attack=("T1068",), cwe=(693,))
def misplaced_seccomp_option(options: SecurityOptions, state: SeccompState | None) -> Iterator[Outcome]:
    """A security option means to turn the system call filter off, in a form that no engine takes.

    The engine refuses the container. Whoever corrects the spelling turns the filter off.

    Fix: leave the option out.

    ```toml bad
    [SecurityOptions]
    values = ["label:seccomp:unconfined"]
    ```

    ```toml good
    [SecurityOptions]
    values = ["seccomp=/etc/seccomp/web.json"]
    ```
    """
    if state is not None and state.mode == "disabled":
        return
    for value in options.values:
        if "seccomp" in value.lower() and value.lower().endswith("unconfined"):
            title = f"the security option {value} means to turn the system call filter off"
            yield Found(title, options.where, (seen(options, value),), key=value)


@rule(Severity.MEDIUM, _SECCOMP, _MAN, conditions=("SEC-WEAK",), cis=("5.22",), attack=("T1068",), cwe=(693,))
def weak_seccomp(filter_: SeccompFilter, state: SeccompState | None) -> Iterator[Outcome]:
    """The system call filter lets dangerous calls through.

    That a filter is loaded says little; an empty one is loaded too. This one was evaluated for every system call, and
    calls are open that containers have no use for and exploits have.

    Severity: high when it lets nearly all of them through; low when only privileged calls are open, which still ask for
    a capability.

    Fix: use the engine's default profile and add the single calls that the program needs.

    ```toml bad
    [SeccompFilter]
    allowed = ["read", "write", "unshare", "keyctl", "io_uring_setup"]
    ```

    ```toml good
    [SeccompFilter]
    allowed = ["read", "write", "openat"]
    ```
    """
    if state and state.mode == "disabled":
        return
    opened = [name for name in DANGEROUS if name in filter_.allowed]
    if not opened:
        return
    severity = None if _FOR_ANYONE & filter_.allowed else Severity.LOW
    if len(opened) > len(DANGEROUS) * 2 // 3:
        severity = Severity.HIGH
    title = f"the filter lets through {', '.join(opened[:4])}" + (f" and {len(opened) - 4} more" if opened[4:] else "")
    evidence = tuple([seen(filter_, f"{name} is allowed: {DANGEROUS[name]}") for name in opened])
    yield Found(title, filter_.where, evidence, severity, key=" ".join(opened))


@rule(Severity.MEDIUM, _MAN, conditions=("SEC-ARCH",), attack=("T1068",), cwe=(693,))
def foreign_calls(filter_: SeccompFilter) -> Iterator[Outcome]:
    """The filter can be passed by another architecture's entry.

    x86-64 kernels take 32-bit and x32 calls from any program. A filter that doesn't look at the architecture, or has no
    rules for one, lets calls through there that it denies otherwise.

    Fix: let the profile name every architecture that the kernel takes, and kill what comes in by another.

    ```toml bad
    [SeccompFilter]
    foreign = ["i386"]
    ```

    ```toml good
    [SeccompFilter]
    foreign = []
    ```
    """
    if filter_.foreign:
        entries = ", ".join(filter_.foreign)
        title = f"the filter can be passed through the {entries} entry"
        yield Found(title, filter_.where, (seen(filter_, f"denied calls go through as {entries}"),))


@rule(
    Severity.LOW, "https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html", conditions=("SEC-NOTIFY",), cwe=(367,)
)
def notifying_filter(filter_: SeccompFilter) -> Iterator[Outcome]:
    """The filter asks another process to decide.

    A supervisor that looks at a call's memory and then lets the kernel continue judges something that the program can
    still change. Such a filter isn't a protection by itself.

    Fix: let the supervisor do the call itself, or deny the call in the filter.

    ```toml bad
    [SeccompFilter]
    notifies = true
    ```

    ```toml good
    [SeccompFilter]
    notifies = false
    ```
    """
    if filter_.notifies:
        title = "the filter leaves decisions to another process"
        yield Found(title, filter_.where, (seen(filter_, "it returns SECCOMP_RET_USER_NOTIF"),))


#: what the Pod Security Standards take: pod-security-admission policy/check_seLinuxOptions.go at 1.35
SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})


@rule(
    Severity.MEDIUM,
    "https://kubernetes.io/docs/concepts/security/pod-security-standards/",
    conditions=("SEC-SEL",),
    cis=("5.2",),
    attack=("T1562.001",),
    cwe=(693,),
)
def selinux_label(label: LsmLabel) -> Iterator[Outcome]:
    """A file sets a SELinux label of its own.

    The engine's own types keep containers from the host's files. Another type, user or role may be allowed more, and
    nobody but the policy says how much.

    Fix: leave type, user and role out; a level of its own is fine.

    ```toml bad
    [[LsmLabel]]
    where = "pod.yml:9:7"
    module = "selinux"
    label = "::web_t:"
    ```

    ```toml good
    [[LsmLabel]]
    where = "pod.yml:9:7"
    module = "selinux"
    label = "::container_t:s0:c1,c2"
    ```
    """
    if label.module != "selinux" or label.mode == "unconfined" or not is_declared(label) or _open(label.label):
        return
    parts = (*label.label.split(":"), "", "", "")
    user, role, kind = parts[:3]
    if user or role or kind not in SELINUX_TYPES:
        named = ", ".join(
            f"{name} {value}" for name, value in (("user", user), ("role", role), ("type", kind)) if value
        )
        yield Found(f"a SELinux label of its own is set: {named}", label.where, (seen(label, named),), key=named)


_OPEN_LABELS = ("unconfined", "spc_t", "super_t", "unlabeled")


@rule(
    Severity.MEDIUM,
    "https://docs.docker.com/engine/security/apparmor/",
    "https://man7.org/linux/man-pages/man8/container_selinux.8.html",
    conditions=("SEC-AA", "SEC-SEL", "SEC-AACOMPLAIN"),
    cis=("5.2", "5.3"),
    attack=("T1562.001",),
    cwe=(693,),
)
def lsm_unconfined(labels: tuple[LsmLabel, ...], host: Host | None, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The host's security module doesn't confine the container.

    AppArmor or SELinux is active on the host, and the container runs without a profile of it, or in one that only
    complains. It is the layer that still denies mounts and writes to /proc when another one has failed.

    Severity: low in an own user namespace without host root, and for complain mode; not applicable where the host has
    neither module.

    Fix: leave out apparmor=unconfined and label=disable; load the engine's profile.

    ```toml bad
    [UserNamespace]
    initial = true

    [[LsmLabel]]
    module = "apparmor"
    label = "unconfined"
    mode = "unconfined"
    ```

    ```toml good
    [[LsmLabel]]
    module = "apparmor"
    label = "docker-default (enforce)"
    mode = "enforce"
    ```
    """
    if host is not None and host.apparmor is False and host.selinux is False:
        yield DoesNotApply("the host has neither AppArmor nor SELinux")
        return
    confining = [label for label in labels if label.module in {"apparmor", "selinux"}]
    if not confining:
        yield CannotTell("the label of AppArmor or SELinux is not known", host.where if host else None)
    for label in confining:
        complains = label.mode == "complain"
        if not complains and label.mode != "unconfined" and not _open(label.label):
            continue
        low = complains or gates.reaches_host_root(userns) is False
        condition = "SEC-AACOMPLAIN" if complains else "SEC-AA" if label.module == "apparmor" else "SEC-SEL"
        title = f"{label.module} {'only complains' if complains else 'does not confine the container'}"
        line = seen(label, f"label {label.label}")
        yield Found(title, label.where, (line,), Severity.LOW if low else None, (condition,))


def _open(label: str) -> bool:
    kind = label.split(":")[2] if label.count(":") >= 2 else label
    return kind.startswith(_OPEN_LABELS)


@rule(
    Severity.INFO,
    "https://docs.kernel.org/admin-guide/LSM/index.html",
    conditions=("SEC-NOLSM",),
    scope="host",
    cwe=(693,),
)
def no_security_module(host: Host) -> Iterator[Outcome]:
    """The host has no mandatory access control.

    Neither AppArmor nor SELinux is active, so no container on this host is confined by one. Said once for the host.

    Fix: enable AppArmor or SELinux; the container profiles of the engines then apply by themselves.

    ```toml bad
    [Host]
    apparmor = false
    selinux = false
    ```

    ```toml good
    [Host]
    apparmor = true
    selinux = false
    ```
    """
    if host.apparmor or host.selinux:
        return
    if host.apparmor is None or host.selinux is None:
        yield CannotTell("whether AppArmor and SELinux are active is not known", host.where)
    else:
        modules = ", ".join(host.lsms or ()) or "none"
        title = "the host has neither AppArmor nor SELinux"
        yield Found(title, host.where, (f"security modules: {modules}",))
