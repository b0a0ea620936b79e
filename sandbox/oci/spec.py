"""The OCI runtime configuration (config.json, runtime-spec 1.2 and what 1.3 adds) for Linux, as immutable records.

The classes have the names of the specification's own Go types, the fields those of its JSON in snake_case. An absent
field has the default that its class states: None where the specification tells absent from zero, else "", False or ().
The annotations say the width of each integer, as Go's do; `oci/read.py` derives the strict JSON reader from them.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/specs-go/config.go
"""

from __future__ import annotations

from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    uint16: TypeAlias = int  # noqa: PYI042 - Go's names
    uint32: TypeAlias = int  # noqa: PYI042
    uint64: TypeAlias = int  # noqa: PYI042
    int32: TypeAlias = int  # noqa: PYI042
    int64: TypeAlias = int  # noqa: PYI042

#: the oldest that has all we write (time namespaces, domainname, mounts with id maps): crun of Debian 12 takes no newer
OCI_VERSION = "1.1.0"

# What a Spec of ours says beyond the specification. Another runtime that reads our config.json may ignore them, and
# stockade-runtime does with all that begin so but labels: a bundle's annotations aren't only its author's.
PRIVATE = "org.stockade."
ROOT_TMPFS = "org.stockade.root"  # "tmpfs": the root is a fresh tmpfs and `root.path` is "" (run --host)
ROOT_SIZE = "org.stockade.root.size"  # bytes that this tmpfs may hold
ROOT_LINKS = "org.stockade.root.links"  # "bin=usr/bin lib=usr/lib": symbolic links to make in this tmpfs
ROOT_DIRECTORIES = (
    "org.stockade.root.directories"  # "tmp:1777:0:0 …": PATH:OCTAL MODE:UID:GID, ids inside, parents first
)
ROOT_FILE = (
    "org.stockade.root.file."  # prefix: "….file.etc/passwd" holds the content of a file in this tmpfs, mode 0644
)
ROOT_IDMAP = (
    "org.stockade.root.idmap"  # "true": mount the rootfs with the container's own id map, so that 0 on disk is 0
)
INIT = "org.stockade.init"  # "true": an init of ours is PID 1, reaps and forwards signals
STOP_SIGNAL = "org.stockade.stop-signal"  # number of the signal that asks the container to stop
TIMEOUT = "org.stockade.timeout"  # seconds (decimal) after which the whole tree is killed
MODE = "org.stockade.mode"  # name of the mode, or the path of its file
SECCOMP = (
    "org.stockade.seccomp"  # "default", "unconfined" or an absolute path, where linux.seccomp is not filled in yet
)
SECUREBITS = "org.stockade.securebits"  # number for PR_SET_SECUREBITS
KEEP_STDIN = "org.stockade.keep-stdin"  # "true": the container reads our stdin; else /dev/null
SETGROUPS = "org.stockade.setgroups"  # "deny": write it before gid_map, user_namespaces(7)
LABEL = "org.stockade.label."  # prefix of a label that the user gave
BEST_EFFORT = "org.stockade.best-effort"  # "true": limits that can't be enforced are reported instead of refused


class LinuxIDMapping(Record):
    """`size` ids from `container_id` on are `host_id` and up outside, user_namespaces(7)."""

    container_id: uint32
    host_id: uint32
    size: uint32


class LinuxNamespace(Record):
    """A namespace to create, or with `path` to join. `type` is OCI's word: mount, network, not mnt, net."""

    type: str
    path: str = ""


class User(Record):
    """Ids inside the container."""

    uid: uint32 = 0
    gid: uint32 = 0
    umask: uint32 | None = None
    additional_gids: tuple[uint32, ...] = ()
    username: str = ""


class LinuxCapabilities(Record):
    """The five sets, as CAP_ names; capabilities(7)."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class POSIXRlimit(Record):
    """`type` is RLIMIT_NOFILE and the like; 2**64-1 is RLIM_INFINITY; getrlimit(2)."""

    type: str
    hard: uint64
    soft: uint64


class Box(Record):
    """Size of a console in characters."""

    height: uint32
    width: uint32


class Scheduler(Record):
    """sched_setattr(2)."""

    policy: str
    nice: int32 = 0
    priority: int32 = 0
    flags: tuple[str, ...] = ()
    runtime: uint64 = 0
    deadline: uint64 = 0
    period: uint64 = 0


class LinuxIOPriority(Record):
    """ioprio_set(2): IOPRIO_CLASS_RT, _BE or _IDLE and a priority of 0 to 7."""

    class_: str
    priority: int32 = 0


class ExecCPUAffinity(Record):
    """CPU lists (cpuset(7)) before and after an exec'd process moves to the container's cgroup."""

    initial: str = ""
    final: str = ""


class Process(Record):
    """The program of the container."""

    cwd: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: User = User()
    terminal: bool = False
    console_size: Box | None = None
    capabilities: LinuxCapabilities | None = None
    rlimits: tuple[POSIXRlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int32 | None = None
    scheduler: Scheduler | None = None
    selinux_label: str = ""
    io_priority: LinuxIOPriority | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = None


class Root(Record):
    """The directory that becomes /; `path` is absolute, or relative to the bundle."""

    path: str
    readonly: bool = False


class Mount(Record):
    """A mount inside the container; `options` in fstab's style, runtime-spec config.md "Mounts"."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[LinuxIDMapping, ...] = ()
    gid_mappings: tuple[LinuxIDMapping, ...] = ()


class Hook(Record):
    """A program to run at a point of the life cycle; `timeout` in seconds."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int64 | None = None


class Hooks(Record):
    """Hooks by the point at which they run, in the order of the list."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class LinuxDevice(Record):
    """A device node to create: `type` c, b, u or p."""

    path: str
    type: str
    major: int64 = 0
    minor: int64 = 0
    file_mode: uint32 | None = None
    uid: uint32 | None = None
    gid: uint32 | None = None


class LinuxDeviceCgroup(Record):
    """A rule of the device controller; None for `major` or `minor` is every number. Later rules win."""

    allow: bool
    type: str = ""
    major: int64 | None = None
    minor: int64 | None = None
    access: str = ""


class LinuxMemory(Record):
    """Bytes; -1 is unlimited. `swap` is memory plus swap, as cgroup v1 counts it."""

    limit: int64 | None = None
    reservation: int64 | None = None
    swap: int64 | None = None
    kernel: int64 | None = None
    kernel_tcp: int64 | None = None
    swappiness: uint64 | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class LinuxCPU(Record):
    """`shares` relative (v1 scale, 2 to 262144), times in microseconds, `cpus` and `mems` as lists, cpuset(7)."""

    shares: uint64 | None = None
    quota: int64 | None = None
    burst: uint64 | None = None
    period: uint64 | None = None
    realtime_runtime: int64 | None = None
    realtime_period: uint64 | None = None
    cpus: str = ""
    mems: str = ""
    idle: int64 | None = None


class LinuxPids(Record):
    """Processes and threads; 0 and -1 are unlimited."""

    limit: int64


class LinuxWeightDevice(Record):
    """Relative weight of one block device."""

    major: int64
    minor: int64
    weight: uint16 | None = None
    leaf_weight: uint16 | None = None


class LinuxThrottleDevice(Record):
    """Bytes or operations a second for one block device."""

    major: int64
    minor: int64
    rate: uint64


class LinuxBlockIO(Record):
    """The block I/O controller."""

    weight: uint16 | None = None
    leaf_weight: uint16 | None = None
    weight_device: tuple[LinuxWeightDevice, ...] = ()
    throttle_read_bps_device: tuple[LinuxThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[LinuxThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[LinuxThrottleDevice, ...] = ()
    throttle_write_iops_device: tuple[LinuxThrottleDevice, ...] = ()


class LinuxHugepageLimit(Record):
    """`page_size` such as 2MB; `limit` in bytes."""

    page_size: str
    limit: uint64


class LinuxInterfacePriority(Record):
    """net_prio of one interface."""

    name: str
    priority: uint32


class LinuxNetwork(Record):
    """net_cls and net_prio, cgroup v1 only."""

    class_id: uint32 | None = None
    priorities: tuple[LinuxInterfacePriority, ...] = ()


class LinuxRdma(Record):
    """Limits of one RDMA device."""

    hca_handles: uint32 | None = None
    hca_objects: uint32 | None = None


class LinuxResources(Record):
    """What the cgroup limits."""

    devices: tuple[LinuxDeviceCgroup, ...] = ()
    memory: LinuxMemory | None = None
    cpu: LinuxCPU | None = None
    pids: LinuxPids | None = None
    block_io: LinuxBlockIO | None = None
    hugepage_limits: tuple[LinuxHugepageLimit, ...] = ()
    network: LinuxNetwork | None = None
    rdma: Mapping[str, LinuxRdma] = {}
    unified: Mapping[str, str] = {}


class LinuxSeccompArg(Record):
    """A condition on argument `index` (0 to 5): SCMP_CMP_EQ and the like; seccomp_rule_add(3)."""

    index: uint32
    value: uint64
    op: str
    value_two: uint64 = 0


class LinuxSyscall(Record):
    """What happens to system calls of these names when all of `args` hold."""

    names: tuple[str, ...]
    action: str
    errno_ret: uint32 | None = None
    args: tuple[LinuxSeccompArg, ...] = ()


class LinuxSeccomp(Record):
    """A system call filter; seccomp(2). Runtimes have a default for absent `flags`, which an empty list takes away."""

    default_action: str
    default_errno_ret: uint32 | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[LinuxSyscall, ...] = ()


class LinuxIntelRdt(Record):
    """Cache and memory bandwidth allocation through resctrl."""

    clos_id: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_cmt: bool = False
    enable_mbm: bool = False
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = False


class LinuxMemoryPolicy(Record):
    """set_mempolicy(2): MPOL_BIND and the like, `nodes` as a list such as 0-3,8, flags such as MPOL_F_STATIC_NODES."""

    mode: str
    nodes: str = ""
    flags: tuple[str, ...] = ()


class LinuxNetDevice(Record):
    """A network device to move into the container, there under `name` if it has one (runtime-spec 1.3)."""

    name: str = ""


class LinuxPersonality(Record):
    """personality(2): LINUX or LINUX32."""

    domain: str
    flags: tuple[str, ...] = ()


class LinuxTimeOffset(Record):
    """Offset of a clock of the time namespace, time_namespaces(7)."""

    secs: int64 = 0
    nanosecs: uint32 = 0


class Linux(Record):
    """What only Linux has."""

    uid_mappings: tuple[LinuxIDMapping, ...] = ()
    gid_mappings: tuple[LinuxIDMapping, ...] = ()
    sysctl: Mapping[str, str] = {}
    resources: LinuxResources | None = None
    cgroups_path: str = ""
    namespaces: tuple[LinuxNamespace, ...] = ()
    devices: tuple[LinuxDevice, ...] = ()
    seccomp: LinuxSeccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    intel_rdt: LinuxIntelRdt | None = None
    memory_policy: LinuxMemoryPolicy | None = None
    net_devices: Mapping[str, LinuxNetDevice] = {}
    personality: LinuxPersonality | None = None
    time_offsets: Mapping[str, LinuxTimeOffset] = {}

    def namespace(self, kind: str) -> LinuxNamespace | None:
        """Give the entry of this OCI type, or None when the container shares the caller's."""
        for namespace in self.namespaces:
            if namespace.type == kind:
                return namespace
        return None


class Spec(Record):
    """A whole config.json. The mappings in it are never changed: copy with `replace`."""

    oci_version: str = OCI_VERSION
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    annotations: Mapping[str, str] = {}
    linux: Linux = Linux()


def to_json(spec: Record) -> dict[str, object]:
    """Give the JSON object of a record with OCI's own key names; fields with their default value are left out."""
    from stockade.sandbox.oci.write import to_json as write

    return write(spec)


def from_json(data: object, name: str = "config.json") -> Spec:
    """Read a decoded config.json strictly.

    Raises UsageError whose message names the place, `config.json: $.linux.uidMappings[1].size: …`.
    """
    from stockade.sandbox.oci.read import read_spec

    return read_spec(data, name)
