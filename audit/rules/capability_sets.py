"""The five sets as a whole: what was not dropped, what can still be gained, what is passed on."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import CapabilityChange, CapabilitySets, Identity, Mount, NoNewPrivs, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import DoesNotApply, Found, Outcome, rule, seen
from stockade.audit.rules.capabilities import line_of, only_usual
from stockade.audit.rules.known import engine_made, host_files
from stockade.sandbox.linux import capabilities as caps

_PSS = "https://kubernetes.io/docs/concepts/security/pod-security-standards/"
_MAN = "https://man7.org/linux/man-pages/man7/capabilities.7.html"

_RESOURCES = caps.mask(
    ["SYS_RESOURCE", "SYS_NICE", "IPC_LOCK", "IPC_OWNER", "LEASE", "LINUX_IMMUTABLE", "SYS_PACCT", "SYS_TTY_CONFIG",
     "NET_BROADCAST"]
)  # fmt: skip
_FILES = caps.mask(["DAC_OVERRIDE", "CHOWN", "FOWNER"])
# what opens most kernel code to a process that is root of its own user namespace only
_SURFACE = caps.mask(["SYS_ADMIN", "NET_ADMIN", "BPF", "PERFMON"])
_GAINABLE = caps.ALL & ~gates.USUAL & ~_RESOURCES
_BASELINE = frozenset(name.removeprefix("CAP_") for name in caps.names(gates.USUAL)) - {"NET_RAW"}
# each usual capability that a rule of its own judges
_JUDGED = caps.mask(["MKNOD", "NET_RAW"])


@rule(Severity.LOW, _MAN, conditions=("CAP-ADD",), cis=("5.4", "K8S 5.2.9"), attack=("T1499",), cwe=(250,))
def resource_capability(sets: CapabilitySets, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The container holds capabilities beyond the usual ones.

    They exceed quotas and priorities, lock memory or make files immutable: no way out by themselves, and more than any
    engine gives to a container that asks for nothing.

    Fix: drop what the program doesn't need.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_SYS_NICE"]
    permitted = ["CAP_SYS_NICE"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    known = caps.ALL | 0
    beyond = gates.counting(sets, userns) & (_RESOURCES | ~known)
    if beyond:
        title = f"{', '.join(caps.names(beyond))}: beyond the usual capabilities"
        yield Found(title, sets.where, (line_of(sets, beyond),))


@rule(Severity.LOW, "https://kubernetes.io/docs/concepts/security/pod-security-standards/",
      conditions=("CAP-DROP", "CAP-ADD-ANY"), cis=("5.4", "K8S 5.2.10"), cwe=(250,))  # fmt: skip
def usual_capabilities(
    sets: CapabilitySets, userns: UserNamespace | None, change: CapabilityChange | None
) -> Iterator[Outcome]:
    """The usual capabilities were not dropped.

    Engines give a container fourteen of them so that any image works. Few programs use more than one, and each is a
    tool for whoever takes the program over.

    Severity: none in an own user namespace.

    Fix: drop all (--cap-drop ALL) and add the one that the program needs.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_CHOWN", "CAP_SETUID", "CAP_NET_BIND_SERVICE"]
    permitted = ["CAP_CHOWN", "CAP_SETUID", "CAP_NET_BIND_SERVICE"]
    ```

    ```toml good
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_NET_BIND_SERVICE"]
    permitted = ["CAP_NET_BIND_SERVICE"]
    ```
    """
    if change is not None:
        yield from _not_dropped(sets, change)
        return
    kept = gates.counting(sets, userns) & gates.USUAL & ~_JUDGED & ~caps.mask(["NET_BIND_SERVICE"])
    if kept:
        title = f"{kept.bit_count()} of the usual capabilities were not dropped"
        yield Found(title, sets.where, (line_of(sets, kept),), key="usual")


def _not_dropped(sets: CapabilitySets, change: CapabilityChange) -> Iterator[Found]:
    """Judge what a file drops: whatever of the engine's usual set is left, but NET_BIND_SERVICE."""
    if "ALL" in change.dropped and "ALL" not in change.added:
        return
    kept = sets.bounding & gates.USUAL & ~caps.mask(["NET_BIND_SERVICE"])
    if kept:
        where = change.drop_where or change.where
        title = f"{kept.bit_count()} of the usual capabilities are not dropped"
        dropped = f"drops {', '.join(change.dropped)}" if change.dropped else "drops no capability"
        names = ", ".join(caps.names(kept))
        yield Found(title, where, (f"{where}: {dropped}", f"left are {names}"), conditions=("CAP-DROP",), key="usual")


@rule(Severity.LOW, _PSS, conditions=("CAP-ADD", "CAP-ADD-ANY", "CAP-ALL"), cis=("5.4", "K8S 5.2.9"),
      attack=("T1611",), cwe=(250,))  # fmt: skip
def added_capabilities(change: CapabilityChange, sets: CapabilitySets | None) -> Iterator[Outcome]:
    """A file adds capabilities.

    Engines leave fourteen. What is added beyond them was left out for a reason, and opens system calls in the engine's
    default filter as well; what is added of them again after all were dropped is a choice to look at.

    Severity: medium beyond the engine's usual set, info for NET_BIND_SERVICE where nothing was dropped.

    Fix: leave out what the program doesn't need; add NET_BIND_SERVICE at most.

    ```toml bad
    [CapabilityChange]
    added = ["NET_ADMIN"]
    dropped = ["ALL"]
    ```

    ```toml good
    [CapabilityChange]
    added = ["NET_BIND_SERVICE"]
    dropped = ["ALL"]
    ```
    """
    named = tuple(dict.fromkeys(change.added))
    if not named:
        return
    if set(named) <= {"NET_BIND_SERVICE"}:
        if "ALL" not in change.dropped and "NET_BIND_SERVICE" not in change.dropped:
            title = "NET_BIND_SERVICE is added to the engine's usual capabilities, which have it"
            line = seen(change, f"adds {named[0]} and doesn't drop the others")
            yield Found(title, change.where, (line,), Severity.INFO, ("CAP-ADD",), key="added")
        return
    # of those that Kubernetes' baseline standard takes, NET_RAW isn't one
    beyond = [name for name in named if name not in _BASELINE]
    severity = Severity.MEDIUM if beyond and (sets is None or sets.effective) else Severity.LOW
    conditions = ["CAP-ADD-ANY", *(["CAP-ADD"] if beyond else [])]
    conditions += [f"CAP-{name}" for name in named if f"CAP_{name}" in caps.NAMES or name == "ALL"]
    title = f"{', '.join(named[:5])}{' ...' if named[5:] else ''} added to the container's capabilities"
    line = seen(change, f"adds {', '.join(named)}")
    yield Found(title, change.where, (line,), severity, tuple(conditions), key="added")


@rule(Severity.LOW, "https://docs.kernel.org/admin-guide/sysctl/user.html",
      conditions=("CAP-SYS_ADMIN", "CAP-NET_ADMIN", "CAP-BPF", "CAP-PERFMON"), attack=("T1068",), cwe=(250,),
      cve=("CVE-2022-0185", "CVE-2022-25636"))  # fmt: skip
def capabilities_in_own_namespace(sets: CapabilitySets, userns: UserNamespace | None) -> Iterator[Outcome]:
    """Administrative capabilities open kernel code, if only in an own user namespace.

    CAP_SYS_ADMIN and CAP_NET_ADMIN don't count against the host here. They still lead into file system and network code
    that only root could reach before, where local root exploits have been found (CVE-2022-0185, CVE-2022-25636).

    Fix: drop them, or deny mount, setns, unshare and the netlink families by the system call filter.

    ```toml bad
    [CapabilitySets]
    effective = ["CAP_SYS_ADMIN"]
    permitted = ["CAP_SYS_ADMIN"]
    ```

    ```toml good
    [CapabilitySets]
    effective = ["CAP_CHOWN"]
    permitted = ["CAP_CHOWN"]
    ```
    """
    if userns is None or userns.initial:
        return
    held = gates.held(sets) & _SURFACE
    if held:
        names = caps.names(held)
        conditions = tuple(["CAP-" + name.removeprefix("CAP_") for name in names])
        title = f"{', '.join(names)} in its own user namespace"
        yield Found(title, sets.where, (line_of(sets, held), seen(userns, "not the initial namespace")),
                    conditions=conditions)  # fmt: skip


@rule(Severity.MEDIUM, _MAN, conditions=("CAP-ADD",), cis=("5.4",), attack=("T1548.001",), cwe=(269,))
def gainable_capabilities(
    sets: CapabilitySets, userns: UserNamespace | None, no_new_privs: NoNewPrivs | None
) -> Iterator[Outcome]:
    """Dangerous capabilities are left in the bounding set.

    The process doesn't hold them, and gets them by a program with file capabilities or setuid root, in the image or
    on a volume.

    Severity: none with no_new_privs or in an own user namespace.

    Fix: drop them from the bounding set too (--cap-drop), or set no_new_privs.

    ```toml bad
    absent = ["NoNewPrivs"]

    [UserNamespace]
    initial = true

    [CapabilitySets]
    bounding = ["CAP_SYS_ADMIN"]
    ```

    ```toml good
    [UserNamespace]
    initial = true

    [CapabilitySets]
    bounding = ["CAP_SYS_ADMIN"]
    ```
    """
    left = gates.gainable(sets, userns, no_new_privs) & _GAINABLE
    if left:
        names = ", ".join(caps.names(left))
        yield Found(f"{names} can still be gained", sets.where, (seen(sets, f"CapBnd holds {names}"),))


@rule(Severity.MEDIUM, _MAN, conditions=("PRV-AMBIENT",), attack=("T1548",), cwe=(269,))
def ambient_capabilities(sets: CapabilitySets, identity: Identity, userns: UserNamespace | None) -> Iterator[Outcome]:
    """A process that isn't root passes capabilities on to every program.

    Ambient capabilities survive execve(2) of any program, also of a shell that an attacker starts.

    Severity: low in an own user namespace.

    Fix: give the one program file capabilities, or clear the ambient set (--cap-ambient none).

    ```toml bad
    [CapabilitySets]
    bounding = ["CAP_NET_BIND_SERVICE"]
    effective = ["CAP_NET_BIND_SERVICE"]
    inheritable = ["CAP_NET_BIND_SERVICE"]
    permitted = ["CAP_NET_BIND_SERVICE"]
    ambient = ["CAP_NET_BIND_SERVICE"]
    ```

    ```toml good
    [Identity]
    host_uids = [101000, 101000, 101000, 101000]
    ```
    """
    if not sets.ambient or identity.uids is None:
        return
    if identity.uids[1] == 0:
        yield DoesNotApply("root gets its capabilities by its uid, not by the ambient set")
        return
    names = ", ".join(caps.names(sets.ambient))
    severity = Severity.LOW if userns and not userns.initial else None
    yield Found(f"ambient capabilities: {names}", sets.where, (seen(sets, f"CapAmb holds {names}"),), severity)


@rule(
    Severity.LOW,
    "https://github.com/moby/moby/security/advisories/GHSA-2mm7-x5h6-5pvq",
    conditions=("PRV-INHERIT",),
    attack=("T1548",),
    cwe=(276,),
    cve=("CVE-2022-24769",),
)
def inheritable_capabilities(sets: CapabilitySets) -> Iterator[Outcome]:
    """The inheritable set isn't empty.

    A program whose file has inheritable capabilities turns them into permitted ones, also for users other than root
    (CVE-2022-24769). Nothing else needs the set, but ambient capabilities.

    Fix: clear the inheritable set.

    ```toml bad
    [CapabilitySets]
    bounding = ["CAP_CHOWN"]
    inheritable = ["CAP_CHOWN"]
    ```

    ```toml good
    [CapabilitySets]
    bounding = ["CAP_CHOWN"]
    ```
    """
    extra = sets.inheritable & ~sets.ambient
    if extra:
        names = ", ".join(caps.names(extra))
        yield Found("the inheritable set isn't empty", sets.where, (seen(sets, f"CapInh holds {names}"),))


@rule(
    Severity.MEDIUM,
    _MAN,
    conditions=("CAP-DAC_OVERRIDE", "CAP-CHOWN", "CAP-FOWNER"),
    covers=("host_path", "usual_capabilities"),
    attack=("T1611",),
    cwe=(250,),
)
def host_file_capability(
    sets: CapabilitySets,
    userns: UserNamespace | None,
    identity: Identity | None,
    mounts: tuple[Mount, ...],
    change: CapabilityChange | None,
) -> Iterator[Outcome]:
    """The container can write every file of a directory of the host.

    CAP_DAC_OVERRIDE, CAP_CHOWN and CAP_FOWNER set the owner and mode of files aside. On a writable mount of the host's
    files that holds for whatever the host keeps there.

    Severity: none for host root, to whom files of root belong anyway.

    Fix: drop the capabilities, or make the mount read-only.

    ```toml bad
    [UserNamespace]
    initial = true

    [CapabilitySets]
    effective = ["CAP_DAC_OVERRIDE"]
    permitted = ["CAP_DAC_OVERRIDE"]

    [[Mount]]
    destination = "/data"
    fstype = "ext4"
    host_path = "/srv/data"
    writable = true
    options = ["rw", "nosuid", "nodev"]
    ```

    ```toml good
    [UserNamespace]
    initial = true
    ```
    """
    held = gates.counting(sets, userns) & _FILES
    if not held or gates.host_root(identity, userns) or only_usual(change, "DAC_OVERRIDE", "CHOWN", "FOWNER"):
        return
    for mount in host_files(mounts):
        if mount.writable and not engine_made(mount):
            title = f"{', '.join(caps.names(held))} count on the host's {mount.host_path}"
            line = seen(mount, f"{mount.destination} is the host's {mount.host_path}, writable")
            yield Found(title, mount.where, (line_of(sets, held), line), key=f"{mount.host_path}")
