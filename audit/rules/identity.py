"""Who the container's processes are on the host, and whether they can become more."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import (
    CapabilitySets,
    DevicePolicy,
    Identity,
    LsmLabel,
    Mask,
    NoNewPrivs,
    Privileged,
    Process,
    SeccompState,
    UserNamespace,
)
from stockade.audit.report import Severity
from stockade.audit.rule import CannotTell, Found, Outcome, rule, said, seen
from stockade.sandbox.linux import capabilities as caps

_SYS_ADMIN = caps.mask(["SYS_ADMIN"])


@rule(
    Severity.CRITICAL,
    "https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities",
    "https://attack.mitre.org/techniques/T1611/",
    conditions=("PRV-PRIVILEGED", "CAP-ALL"),
    covers=(
        "mount_capability", "module_capability", "trace_capability", "file_handle_capability", "raw_io_capability",
        "device_node_capability", "network_capability", "raw_socket_capability", "kernel_view_capability",
        "policy_capability", "machine_capability", "host_file_capability", "resource_capability",
        "usual_capabilities", "capabilities_in_own_namespace", "gainable_capabilities", "inheritable_capabilities",
        "ambient_capabilities", "new_privileges", "no_seccomp", "weak_seccomp", "open_device_policy", "unmasked_paths",
        "lsm_unconfined", "added_capabilities", "seccomp_left_to_engine",
    ),
    cis=("5.5", "K8S 5.2.2"), attack=("T1611",), cwe=(250,),
)  # fmt: skip
def privileged(
    *,
    sets: CapabilitySets,
    userns: UserNamespace | None,
    seccomp: SeccompState | None,
    policy: DevicePolicy | None,
    masks: tuple[Mask, ...] | None,
    switch: Privileged | None,
) -> Iterator[Outcome]:
    """The container is privileged.

    It holds nearly every capability, so nothing but a user namespace stands between it and the host: it can mount the
    host's disks, load modules and trace every process. Engines drop the system call filter, the device rules and the
    masks of /proc together with it.

    Severity: medium when its user namespace has no name for host root; high when it maps host root.

    Fix: start it without --privileged and add the one capability or device that the program needs.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    bounding = "ALL"
    effective = "ALL"
    permitted = "ALL"

    [SeccompState]
    mode = "disabled"

    [DevicePolicy]
    default = "allow"
    rules = []
    ```

    ```toml good
    [UserNamespace]
    initial = true

    [CapabilitySets]
    bounding = ["CAP_NET_BIND_SERVICE"]
    effective = ["CAP_NET_BIND_SERVICE"]
    permitted = ["CAP_NET_BIND_SERVICE"]
    ```
    """
    held = gates.held(sets)
    # the engine may itself lack some capabilities, as in nested containers: three quarters of all is all the same
    if not held & _SYS_ADMIN or held.bit_count() < (sets.last + 1) * 3 // 4:
        return
    signs = [seen(sets, f"{held.bit_count()} of {sets.last + 1} capabilities")]
    if switch is not None:
        yield _switched(switch, sets, userns, signs)
        return
    if seccomp and seccomp.mode == "disabled":
        signs.append(seen(seccomp, "no system call filter"))
    if policy and policy.default == "allow":
        signs.append(seen(policy, "every device is allowed"))
    opened = [mask for mask in masks or () if mask.state == "open"]
    if opened:
        signs.append(seen(opened[0], f"{len(opened)} paths of /proc and /sys are neither hidden nor read-only"))
    conditions = ("PRV-PRIVILEGED", "CAP-ALL") if len(signs) > 1 else ("CAP-ALL",)
    yield Found("the container is privileged", sets.where, tuple(signs), _privileged_in(userns), conditions)


def _privileged_in(userns: UserNamespace | None) -> Severity:
    if userns is None or userns.initial:
        return Severity.CRITICAL
    return Severity.MEDIUM if gates.reaches_host_root(userns) is False else Severity.HIGH


def _switched(switch: Privileged, sets: CapabilitySets, userns: UserNamespace | None, signs: list[str]) -> Found:
    """Tell of what a file declares: the switch itself, or all capabilities without it."""
    if switch.value:
        signs = [seen(switch, "privileged: all capabilities and devices, no filter, no masks")]
        conditions: tuple[str, ...] = ("PRV-PRIVILEGED", "CAP-ALL")
        return Found("the container is privileged", switch.where, tuple(signs), _privileged_in(userns), conditions)
    title = "the container gets every capability"
    return Found(title, sets.where, tuple(signs), _privileged_in(userns), ("CAP-ALL",))


@rule(
    Severity.MEDIUM,
    "https://man7.org/linux/man-pages/man7/user_namespaces.7.html",
    "https://docs.docker.com/engine/security/userns-remap/",
    conditions=("PRV-HOSTROOT", "NS-USER"),
    covers=("root_in_container", "low_user_id"),
    cis=("2.9", "5.31"),
    attack=("T1611",),
    cwe=(250,),
)
def host_root(identity: Identity, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The container's root is the host's root.

    Files, sysctls and processes of the host are guarded by user ids first. A process with host uid 0 passes those
    checks without any capability; every other gap in the container then leads to root on the host. A user namespace
    that maps 0 to 0 changes nothing about it.

    Severity: low when host root is only mapped and no process has that id. It raises what other rules find.

    Fix: map the container's ids to a subordinate range (--userns auto), or run the program as another user.

    ```toml bad
    [Identity]
    uids = [0, 0, 0, 0]
    host_uids = [0, 0, 0, 0]

    [UserNamespace]
    uid_map = ["0:0:1"]
    ```

    ```toml good
    [Identity]
    host_uids = [100033, 100033, 100033, 100033]
    ```
    """
    root = gates.host_root(identity, userns)
    maps = ", ".join(str(each) for each in userns.uid_map or ()) if userns else ""
    if root is None:
        yield CannotTell("the host's ids of the process are not known", identity.where)
    elif root:
        ids = listed(identity.host_uids or identity.uids)
        evidence = [said(identity, f"host uids {ids}", f"user {identity.user or ids}")]
        if userns:
            evidence.append(seen(userns, "initial user namespace" if userns.initial else f"uid_map {maps}"))
        yield Found("the container's root is the host's root", identity.where, tuple(evidence))
    elif userns and not userns.initial and gates.reaches_host_root(userns):
        title = "the user namespace maps the host's root"
        yield Found(title, userns.where, (seen(userns, f"uid_map {maps}"),), Severity.LOW)


def listed(ids: tuple[int, ...] | None) -> str:
    """Give ids as one text."""
    return " ".join(str(each) for each in ids or ())


@rule(
    Severity.MEDIUM,
    "https://docs.docker.com/build/building/best-practices/#user",
    conditions=("PRV-ROOT", "PRV-UID0"),
    covers=("low_user_id",),
    cis=("4.1", "K8S 5.2.7"),
    cwe=(250,),
)
def root_in_container(identity: Identity, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The program runs as root inside the container.

    Root inside owns the container's files and gets every capability of the bounding set with each program it starts. A
    flaw in the program then changes its own code, and a later way out starts with more.

    Severity: low when the maps give root an unprivileged id on the host.

    Fix: name a user for the program (--user, USER in the image).

    ```toml bad
    [Identity]
    uids = [0, 0, 0, 0]
    host_uids = [100000, 100000, 100000, 100000]
    ```

    ```toml good
    [Identity]
    uids = [33, 33, 33, 33]
    host_uids = [100033, 100033, 100033, 100033]
    ```
    """
    if identity.uids is None:
        if not identity.user:  # a name that isn't root is a user of the image
            yield CannotTell("the ids inside are not known", identity.where)
    elif 0 in identity.uids and gates.host_root(identity, userns) is not True:
        severity = Severity.LOW if gates.host_root(identity, userns) is False else Severity.MEDIUM
        ids = f"uids {listed(identity.uids)}, on the host {listed(identity.host_uids) or 'unknown'}"
        evidence = (said(identity, ids, f"user {identity.user or identity.uids[1]}"),)
        yield Found("the program runs as root inside the container", identity.where, evidence, severity)


@rule(
    Severity.MEDIUM,
    "https://docs.kernel.org/userspace-api/no_new_privs.html",
    conditions=("PRV-NNP",),
    cis=("2.14", "5.26", "K8S 5.2.6"),
    attack=("T1548.001",),
    cwe=(269,),
)
def new_privileges(
    no_new_privs: NoNewPrivs, identity: Identity | None, userns: UserNamespace | None
) -> Iterator[Outcome]:
    """Programs with setuid or file capabilities can raise privileges.

    Without no_new_privs, execve(2) of one setuid program with a flaw, in the image or on a volume, makes an
    ordinary user of the container its root, with every capability of the bounding set.

    Severity: low for host root, which has nothing to gain but the bounding set, and where root inside is an
    unprivileged id of the host.

    Fix: set no_new_privs (--security-opt no-new-privileges, allowPrivilegeEscalation: false).

    ```toml bad
    [NoNewPrivs]
    value = false
    ```

    ```toml good
    [NoNewPrivs]
    value = true
    ```
    """
    if no_new_privs.value:
        return
    little = gates.host_root(identity, userns) or gates.reaches_host_root(userns) is False
    title = "no_new_privs is off: a setuid program can raise privileges"
    line = said(no_new_privs, "NoNewPrivs: 0", "no_new_privs isn't asked for")
    yield Found(title, no_new_privs.where, (line,), Severity.LOW if little else None)


@rule(
    Severity.HIGH,
    "https://www.cisecurity.org/benchmark/docker",
    conditions=("PRV-EXEC",),
    cis=("5.23", "5.24"),
    attack=("T1609",),
    cwe=(269,),
)
def process_exceeds_first(
    *,
    process: Process,
    sets: CapabilitySets | None,
    identity: Identity | None,
    userns: UserNamespace | None,
    no_new_privs: NoNewPrivs | None,
    seccomp: SeccompState | None,
    labels: tuple[LsmLabel, ...] | None,
) -> Iterator[Outcome]:
    """A process or thread of the container has more privilege than its first one.

    A process was put there by exec with more rights (docker exec --privileged, --user root), or it lost a protection on
    the way. Whatever controls the container can take that process over. A thread was there before the first one gave
    rights away or loaded a filter, which capset and seccomp do for the calling thread alone. All threads share one
    memory: whoever controls one of them has the rights of each.

    Severity: medium when neither a capability against the host nor host root is gained.

    Fix: run exec without --privileged and as the container's user; end the process when its work is done. Give rights
    away before the first thread starts, load filters with SECCOMP_FILTER_FLAG_TSYNC.

    ```toml bad
    [[Process]]
    pid = 4021
    name = "sh"
    seccomp = "disabled"
    ```

    ```toml bad
    [SeccompState]
    filters = 2

    [[Process]]
    pid = 4021
    name = "worker"
    threads = [4022, 4023]
    seccomp = "filter"
    filters = 1
    ```

    ```toml good
    [[Process]]
    pid = 4021
    name = "sh"
    capabilities = 0
    host_uid = 101000
    no_new_privs = true
    seccomp = "filter"
    ```
    """
    more: list[str] = []
    extra = process.capabilities & ~gates.held(sets) if process.capabilities is not None and sets else 0
    if extra:
        names = [name.removeprefix("CAP_") for name in caps.names(extra)]
        more.append(f"{len(names)} more capabilities: {' '.join(names[:5])}{' ...' if names[5:] else ''}")
    root = process.host_uid == 0 and gates.host_root(identity, userns) is False
    if root:
        more.append("host uid 0")
    more += _lacking(process, no_new_privs, seccomp, labels or ())
    if not more:
        if process.capabilities is None or process.host_uid is None:
            yield CannotTell(f"the privilege of pid {process.pid} is not known", process.where)
        return
    against_host = root or (extra and not (userns and not userns.initial))
    title = f"a later process of the container ({process.name}) has {more[0]}"
    who = f"pid {process.pid} {process.name}"
    if process.threads:
        title = f"a thread of {process.name} has more than the container's first one: {more[0]}"
        who = f"{len(process.threads)} of the threads of {who}, {process.threads[0]} first"
    evidence = tuple([seen(process, f"{who}: {each}") for each in more])
    severity = Severity.HIGH if against_host else Severity.MEDIUM
    yield Found(title, process.where, evidence, severity, key=f"{process.name} {' '.join(more)}")


def _lacking(
    process: Process, no_new_privs: NoNewPrivs | None, seccomp: SeccompState | None, labels: tuple[LsmLabel, ...]
) -> Iterator[str]:
    """Tell which protections of the first process another one, or a thread, is without."""
    if no_new_privs and no_new_privs.value and process.no_new_privs is False:
        yield "no no_new_privs"
    if seccomp and seccomp.mode != "disabled" and process.seccomp == "disabled":
        yield "no system call filter"
    elif seccomp and process.threads and (process.filters or seccomp.filters or 0) < (seccomp.filters or 0):
        # Of threads only: they are one program, while another process need not add filters of its own to the engine's.
        yield f"{process.filters} system call filters instead of {seccomp.filters}"
    confined = any(label.mode in {"enforce", "complain"} for label in labels)
    if confined and process.lsm and process.lsm.startswith("unconfined"):
        yield "no security module's confinement"
