"""What can be known of a container, each fact with the place where it was read.

Collectors fill these, rules read them. A live collector reads /proc, a static one a file; both fill the same kinds,
so one rule judges both. Facts stand in a `Target`, which is one container and never a file or a host.

An absent fact is unknown, never a default. A kind of which a target may have any number (`many`: mounts, devices,
control files) is fully known only when it is named in `Target.complete`: then no fact means that there is none.
Within a fact, None means that this part is not known.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from stockade.audit.declared_facts import *  # noqa: F403 -- its kinds are looked for here
from stockade.audit.fact import Fact as Fact  # noqa: PLC0414 -- given on
from stockade.audit.fact import Where as Where  # noqa: PLC0414 -- given on
from stockade.audit.host_facts import *  # noqa: F403 -- given on
from stockade.sandbox.linux.idmap import Mapping


@dataclass(frozen=True, slots=True)
class Runtime(Fact):
    """The engine that made the container, such as "docker" or "stockade", and the sandbox kernel it runs on.

    With a `sandbox` ("gvisor", "kata") what procfs says describes the guest and not this host.
    """

    engine: str | None
    sandbox: str | None = None


@dataclass(frozen=True, slots=True)
class Identity(Fact):
    """Who the first process is: inside its user namespace and, from the maps, on the host.

    `uids` and `host_uids` are real, effective, saved and file system id; an id that has no name inside is 65534
    there. A file that declares one user fills all four alike. `host_user` and `host_group_names` are the host's
    names for them. `user` and `group_names` are the names that a file gives, of which the ids are known to the image.
    """

    uids: tuple[int, int, int, int] | None
    gids: tuple[int, int, int, int] | None
    groups: tuple[int, ...] | None = None
    host_uids: tuple[int, int, int, int] | None = None
    host_gids: tuple[int, int, int, int] | None = None
    host_groups: tuple[int, ...] | None = None
    host_user: str | None = None
    host_group_names: tuple[str, ...] = ()
    user: str | None = None
    group_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UserNamespace(Fact):
    """The user namespace: whether it is the initial one, its maps to the host's ids, its owner, its depth.

    `owner_uid` is the host uid that owns it (NS_GET_OWNER_UID): in the parent that user has every capability over it.
    """

    initial: bool
    uid_map: tuple[Mapping, ...] | None = None
    gid_map: tuple[Mapping, ...] | None = None
    owner_uid: int | None = None
    depth: int | None = None


SeccompMode = Literal["disabled", "strict", "filter"]
Propagation = Literal["private", "shared", "slave", "unbindable"]
NamespaceKind = Literal["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"]


@dataclass(frozen=True, slots=True)
class Namespace(Fact):
    """One namespace. `owner_initial`: the initial user namespace owns it, so capabilities of another don't count here.

    `shared_with` names other targets (not the host) in the same namespace.
    """

    many: ClassVar[bool] = True

    kind: NamespaceKind
    host: bool | None
    inode: int | None = None
    owner_initial: bool | None = None
    shared_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CapabilitySets(Fact):
    """The five sets as masks, bit n is capability n. `last` is the highest capability the kernel knows."""

    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int
    last: int = 40


@dataclass(frozen=True, slots=True)
class NoNewPrivs(Fact):
    """Whether execve(2) can't add privilege any more."""

    value: bool


@dataclass(frozen=True, slots=True)
class SeccompState(Fact):
    """What /proc/PID/status says: a mode and the number of stacked filters, or the profile that a file names."""

    mode: SeccompMode
    filters: int | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class SeccompFilter(Fact):
    """What the real filters decide together: the names of system calls that they let through, some or all arguments.

    `foreign` names the entries (such as "x32", "i386") over which a call that is denied natively goes through.
    `programs` holds the filters as sock_filter arrays, outermost first, where they were read.
    """

    allowed: frozenset[str]
    conditional: frozenset[str] = frozenset()
    foreign: tuple[str, ...] = ()
    notifies: bool = False
    programs: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class LsmLabel(Fact):
    """The label of a security module, as attr/current has it. `mode` is None for modules without modes."""

    many: ClassVar[bool] = True

    module: str
    label: str
    mode: Literal["enforce", "complain", "unconfined"] | None = None


@dataclass(frozen=True, slots=True)
class Mount(Fact):
    """One mount in the container's view.

    `host_path` is the path on the host of what is mounted, for mounts of the host's file systems and None for fresh
    ones; `writable` and `options` are those of the mount, not of the superblock. `propagation` is "shared" only
    when the peer group reaches out of the container. `engine_made` marks files that the engine itself binds
    (/etc/hosts, ...). `subpath` is the part of a volume that is mounted (Kubernetes' subPath).
    """

    many: ClassVar[bool] = True

    destination: str
    fstype: str | None
    host_path: str | None
    writable: bool
    options: tuple[str, ...] = ()
    super_options: tuple[str, ...] = ()
    source: str | None = None
    propagation: Propagation | None = None
    engine_made: bool = False
    directory: bool | None = None
    subpath: str | None = None


@dataclass(frozen=True, slots=True)
class EngineSocket(Fact):
    """A container engine's (or systemd's) socket that the container sees, by a mount or an open descriptor.

    `permitted` is the permission check on the inode with the target's ids; nobody connects.
    """

    many: ClassVar[bool] = True

    path: str
    engine: str
    via: Literal["mount", "descriptor"] = "mount"
    host_path: str | None = None
    permitted: bool | None = None


@dataclass(frozen=True, slots=True)
class Mask(Fact):
    """How a path of /proc or /sys is protected: hidden, read-only or open; `declared` is what a configuration asked."""

    many: ClassVar[bool] = True

    path: str
    state: Literal["masked", "read-only", "open", "absent"]
    declared: Literal["masked", "read-only", "open"] | None = None


@dataclass(frozen=True, slots=True)
class ControlFile(Fact):
    """A kernel control file that was opened with exactly the target's credentials, and closed; nothing was written.

    `error` is the errno's name when refused. `own_namespace`: the knob belongs to the container's own namespaces.
    """

    many: ClassVar[bool] = True

    path: str
    access: Literal["write", "read"]
    outcome: Literal["opened", "refused", "absent"]
    error: str = ""
    own_namespace: bool = False


@dataclass(frozen=True, slots=True)
class DeviceNode(Fact):
    """A device node in view. `usable`: its mode and its mount (nodev) let the target open it, apart from the policy."""

    many: ClassVar[bool] = True

    path: str
    kind: Literal["block", "char"]
    major: int
    minor: int
    usable: bool | None = None
    policy: bool | None = None


@dataclass(frozen=True, slots=True)
class DevicePolicy(Fact):
    """What the device cgroup decides: "allow" everything, or "deny" what `rules` (such as "c 1:3 rwm") don't list.

    `source`: "v1", "bpf", "none" (nothing enforces one, so `default` is "allow"), "declared".
    """

    default: Literal["allow", "deny"]
    rules: tuple[str, ...] = ()
    source: Literal["v1", "bpf", "none", "declared"] = "declared"


LimitName = Literal["memory", "swap", "pids", "cpu"]


@dataclass(frozen=True, slots=True)
class CgroupLimit(Fact):
    """The tightest limit of the own cgroup and all its ancestors; `value` None is unlimited.

    memory and swap (memory+swap) in bytes, pids in tasks, cpu in thousandths of a processor.
    """

    many: ClassVar[bool] = True

    name: LimitName
    value: int | None


@dataclass(frozen=True, slots=True)
class CgroupMembership(Fact):
    """The cgroup: its path, the version that counts, whether processes of the host outside the container share it."""

    path: str
    version: Literal[1, 2]
    shared_with_host: bool | None = None


@dataclass(frozen=True, slots=True)
class OpenDescriptor(Fact):
    """An open file of one of the container's processes. `outside`: on none of the container's mounts.

    For a namespace or a socket `outside` means that it is the host's.
    """

    many: ClassVar[bool] = True

    fd: int
    target: str
    kind: Literal["directory", "file", "device", "socket", "netlink", "namespace", "other"]
    writable: bool | None = None
    outside: bool | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class WorkingDirectory(Fact):
    """The working directory and whether it lies outside the container's mounts."""

    path: str
    outside: bool


@dataclass(frozen=True, slots=True)
class Executable(Fact):
    """The program of a process: whether it lies outside the container's mounts or was deleted."""

    many: ClassVar[bool] = True

    path: str
    outside: bool | None
    deleted: bool = False
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class OomScoreAdj(Fact):
    """How eagerly the kernel kills it: -1000 (never) to 1000."""

    value: int


@dataclass(frozen=True, slots=True)
class ResourceLimit(Fact):
    """One row of /proc/PID/limits by getrlimit(2)'s name ("nofile", "core", ...); None is unlimited."""

    many: ClassVar[bool] = True

    name: str
    soft: int | None
    hard: int | None


@dataclass(frozen=True, slots=True)
class Process(Fact):
    """A process of the container other than the first, or the `threads` of one whose rights its first thread lacks."""

    many: ClassVar[bool] = True

    pid: int
    name: str
    host_uid: int | None = None
    capabilities: int | None = None
    no_new_privs: bool | None = None
    seccomp: SeccompMode | None = None
    filters: int | None = None
    lsm: str | None = None
    threads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedIds(Fact):
    """Another target of another owner whose processes have the same host ids as this one's."""

    many: ClassVar[bool] = True

    other: str
    ids: Mapping


@dataclass(frozen=True, slots=True)
class Declared(Fact):
    """What a configuration declares of a running container; `subject` names the field as OCI does.

    "capabilities.bounding" (and the other four), "noNewPrivileges", "seccomp", "maskedPaths", "rootfs",
    "namespaces.pid" ... `effective` is the same thing as the kernel has it, in the same words.
    """

    many: ClassVar[bool] = True

    subject: str
    declared: str
    effective: str


@dataclass(frozen=True, slots=True)
class Host(Fact):
    """The kernel below: what decides whether a way out is open. None is not known."""

    kernel: tuple[int, int] | None = None
    release: str | None = None
    lsms: tuple[str, ...] | None = None
    yama: int | None = None
    modules: bool | None = None
    modules_disabled: bool | None = None
    lockdown: Literal["none", "integrity", "confidentiality"] | None = None
    cgroup: Literal["v1", "v2", "hybrid"] | None = None
    apparmor: bool | None = None
    selinux: bool | None = None


#: every kind, in the order above (not __subclasses__: dataclass(slots=True) makes each class twice)
KINDS: tuple[type[Fact], ...] = tuple(
    [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, Fact) and kind is not Fact]
)
F = TypeVar("F", bound=Fact)


#: kinds of targets of which the kernel was asked
LIVE = frozenset({"process", "container", "host"})


@dataclass(frozen=True, slots=True)
class Gap:
    """Why facts of a kind are missing: they were not checked or, not `applicable`, mean nothing for this target."""

    kind: type[Fact]
    reason: str
    where: Where | None = None
    applicable: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """One container, or one process, with all that is known of it.

    `id` is unique in a report and stable between audits ("container:web", "pid:17", "compose.yml:db"). `name` is for
    people. `kind` says what was looked at ("process", "container", "host", later "compose", "kubernetes" ...).
    """

    id: str
    name: str
    kind: str
    facts: tuple[Fact, ...] = ()
    gaps: tuple[Gap, ...] = ()
    complete: frozenset[type[Fact]] = frozenset()
    pids: tuple[int, ...] = ()
    command: str = ""
    mode: str = ""
    _by_kind: dict[type[Fact], tuple[Any, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the facts by kind once: rules and reports ask for them two hundred times."""
        found: dict[type[Fact], list[Fact]] = defaultdict(list)
        for fact in self.facts:
            found[fact.__class__].append(fact)
        self._by_kind.update({kind: tuple(each) for kind, each in found.items()})

    def all(self, kind: type[F]) -> tuple[F, ...]:
        """Give the facts of one kind, in the collector's order."""
        return self._by_kind.get(kind, ())

    def one(self, kind: type[F]) -> F | None:
        """Give the first fact of a kind or None where nothing is known."""
        found = self._by_kind.get(kind)
        return found[0] if found else None

    def knows(self, kind: type[Fact]) -> bool:
        """Say whether the kind is known fully: all of many, or the one."""
        return kind in self.complete if kind.many else self.one(kind) is not None

    @property
    def declared(self) -> bool:
        """Whether a file declares it; else it runs, and what is known of it was measured."""
        return self.kind not in LIVE

    def gap(self, kind: type[Fact]) -> Gap | None:
        """Give the reason why facts of a kind are missing, where the collector told one."""
        return next((gap for gap in self.gaps if gap.kind is kind), None)
