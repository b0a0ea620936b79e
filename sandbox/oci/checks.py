"""What config.json must satisfy beyond its types: rules of runtime-spec 1.2 and of the kernel, by record."""

from __future__ import annotations

import re
from itertools import pairwise

from stockade.sandbox.linux import capabilities, idmap
from stockade.sandbox.oci.write import key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from stockade.sandbox.linux.record import Record
    from stockade.sandbox.oci import spec

    Check: TypeAlias = Callable[[Record, str], None]


class Invalid(Exception):
    """A value at a JSON path that config.json may not have."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path, self.message = path, message


NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
PROPAGATIONS = tuple(deep + kind for deep in ("", "r") for kind in ("private", "shared", "slave", "unbindable"))
ACTIONS = tuple(
    "SCMP_ACT_" + name
    for name in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
)
OPERATORS = tuple("SCMP_CMP_" + name for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
FILTER_FLAGS = tuple("SECCOMP_FILTER_FLAG_" + name for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"))
ARCHITECTURES = tuple(
    "SCMP_ARCH_" + name
    for name in [
        "X86",
        "X86_64",
        "X32",
        "ARM",
        "AARCH64",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "RISCV64",
        "LOONGARCH64",
        "M68K",
        "SH",
        "SHEB",
    ]
)
RLIMITS = tuple(
    "RLIMIT_" + name
    for name in (
        [
            "AS",
            "CORE",
            "CPU",
            "DATA",
            "FSIZE",
            "LOCKS",
            "MEMLOCK",
            "MSGQUEUE",
            "NICE",
            "NOFILE",
            "NPROC",
            "RSS",
            "RTPRIO",
            "RTTIME",
            "SIGPENDING",
            "STACK",
        ]
    )
)
_CPU_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


def _one_of(field: str, allowed: Sequence[str], *, empty: bool = False) -> Check:
    def check(record: Record, path: str) -> None:
        value = getattr(record, field)
        if value not in allowed and not (empty and value == ""):
            raise Invalid(f"{path}.{key(field)}", f"unknown value {value!r}; known are {', '.join(allowed)}")

    return check


def _each_of(field: str, allowed: Sequence[str]) -> Check:
    def check(record: Record, path: str) -> None:
        for index, value in enumerate(getattr(record, field)):
            if value not in allowed:
                raise Invalid(
                    f"{path}.{key(field)}[{index}]", f"unknown value {value!r}; known are {', '.join(allowed)}"
                )

    return check


def _absolute(field: str, *, empty: bool = False) -> Check:
    def check(record: Record, path: str) -> None:
        value = getattr(record, field)
        if not value.startswith("/") and not (empty and value == ""):
            raise Invalid(f"{path}.{key(field)}", f"{value!r} is not an absolute path")

    return check


def _absolute_each(field: str) -> Check:
    def check(record: Record, path: str) -> None:
        for index, value in enumerate(getattr(record, field)):
            if not value.startswith("/"):
                raise Invalid(f"{path}.{key(field)}[{index}]", f"{value!r} is not an absolute path")

    return check


def _between(field: str, low: int, high: int) -> Check:
    def check(record: Record, path: str) -> None:
        value = getattr(record, field)
        if value is not None and not low <= value <= high:
            raise Invalid(f"{path}.{key(field)}", f"expected a number from {low} to {high}, not {value}")

    return check


def _filled(field: str) -> Check:
    def check(record: Record, path: str) -> None:
        if not getattr(record, field):
            raise Invalid(f"{path}.{key(field)}", "must not be empty")

    return check


def _environment(record: Record, path: str) -> None:
    for index, entry in enumerate(getattr(record, "env")):  # noqa: B009 - Process and Hook have it
        if entry.find("=") < 1:
            raise Invalid(f"{path}.env[{index}]", f"expected NAME=VALUE, not {entry!r}")


def _capabilities(record: Record, path: str) -> None:
    for field in type(record)._fields:
        for index, name in enumerate(getattr(record, field)):
            if name not in capabilities.NAMES:
                raise Invalid(f"{path}.{key(field)}[{index}]", f"unknown capability {name!r}; see capabilities(7)")


def _no_twins(field: str, of: str) -> Check:
    def check(record: Record, path: str) -> None:
        seen: set[str] = set()
        for index, item in enumerate(getattr(record, field)):
            value = getattr(item, of)
            if value in seen:
                raise Invalid(f"{path}.{key(field)}[{index}].{key(of)}", f"{value!r} is there twice")
            seen.add(value)

    return check


def _mapping(record: spec.LinuxIDMapping, path: str) -> None:
    if record.size < 1:
        raise Invalid(f"{path}.size", "an id map needs at least one id")
    for name, first in (("containerID", record.container_id), ("hostID", record.host_id)):
        if first + record.size > idmap.ID_LIMIT:
            raise Invalid(f"{path}.size", f"{name} {first} and size {record.size} go beyond the last id")


def _maps(uid: str, gid: str) -> Check:
    def check(record: Record, path: str) -> None:
        for field in (uid, gid):
            maps = getattr(record, field)
            if len(maps) > idmap.MAX_EXTENTS:
                raise Invalid(f"{path}.{key(field)}", f"{len(maps)} extents; the kernel takes {idmap.MAX_EXTENTS}")
            _overlaps(maps, f"{path}.{key(field)}")
        if bool(getattr(record, uid)) != bool(getattr(record, gid)):
            raise Invalid(
                f"{path}.{key(gid if getattr(record, uid) else uid)}", "missing: an id map needs uids and gids"
            )

    return check


def _overlaps(maps: Iterable[spec.LinuxIDMapping], path: str) -> None:
    for name in ("container_id", "host_id"):
        ordered = sorted((getattr(each, name), each.size, index) for index, each in enumerate(maps))
        for (first, size, one), (second, _, other) in pairwise(ordered):
            if first + size > second:
                later, earlier = max(one, other), min(one, other)
                raise Invalid(f"{path}[{later}].{key(name)}", f"overlaps with [{earlier}]")


def _rlimit(record: spec.POSIXRlimit, path: str) -> None:
    if record.soft > record.hard:
        raise Invalid(f"{path}.soft", f"{record.soft} is above the hard limit {record.hard}")


def _device(record: spec.LinuxDevice, path: str) -> None:
    for name, value in (("major", record.major), ("minor", record.minor)):
        if value < 0:
            raise Invalid(f"{path}.{name}", f"{value} is no device number")


def _access(record: spec.LinuxDeviceCgroup, path: str) -> None:
    if set(record.access) - set("rwm"):
        raise Invalid(f"{path}.access", f"{record.access!r}: only r, w and m are known")


def _seccomp(record: spec.LinuxSeccomp, path: str) -> None:
    if record.listener_metadata and not record.listener_path:
        raise Invalid(f"{path}.listenerMetadata", "needs listenerPath")


def _version(record: spec.Spec, path: str) -> None:
    if not re.fullmatch(r"1\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?", record.oci_version):
        raise Invalid(f"{path}.ociVersion", f"version {record.oci_version!r} is not known; expected 1.x.y")


def _sysctl(record: spec.Linux, path: str) -> None:
    for name in record.sysctl:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./:@-]*", name) or ".." in name or "//" in name:
            raise Invalid(f"{path}.sysctl", f"{name!r} is no name of a sysctl")


def _user_namespace(record: spec.Linux, path: str) -> None:
    namespace = record.namespace("user")
    if record.uid_mappings and namespace is None:
        raise Invalid(f"{path}.uidMappings", "an id map without a user namespace in $.linux.namespaces")
    if namespace is not None and not namespace.path and not record.uid_mappings:
        raise Invalid(f"{path}.uidMappings", "missing: a new user namespace needs an id map")


def _time_offsets(record: spec.Linux, path: str) -> None:
    for clock, offset in record.time_offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise Invalid(f"{path}.timeOffsets", f"unknown clock {clock!r}; known are monotonic, boottime")
        if offset.nanosecs >= 1_000_000_000:
            raise Invalid(f'{path}.timeOffsets["{clock}"].nanosecs', "a second has 1000000000 nanoseconds")


def _unified(record: spec.LinuxResources, path: str) -> None:
    for name in record.unified:
        # the name of a file in the container's own group, cgroups(7); runc refuses a path, too
        if "/" in name or not name:
            raise Invalid(f"{path}.unified", f"{name!r} is no name of a cgroup file")


def _affinity(record: spec.ExecCPUAffinity, path: str) -> None:
    for name, value in (("initial", record.initial), ("final", record.final)):
        if value and not _CPU_LIST.fullmatch(value):
            raise Invalid(f"{path}.{name}", f"{value!r} is not a list of processors such as 0-3,8")


#: class of spec.py → what its records must satisfy; each check raises Invalid
CHECKS: dict[str, tuple[Callable[..., None], ...]] = {
    "Spec": (_version,),
    "Process": (
        _absolute("cwd"),
        _filled("args"),
        _environment,
        _no_twins("rlimits", "type"),
        _between("oom_score_adj", -1000, 1000),
    ),
    "LinuxCapabilities": (_capabilities,),
    "POSIXRlimit": (_one_of("type", RLIMITS), _rlimit),
    "User": (_between("umask", 0, 0o777),),
    "Root": (_filled("path"),),
    "Mount": (_absolute("destination"), _maps("uid_mappings", "gid_mappings")),
    "Hook": (_absolute("path"), _environment, _between("timeout", 1, 1 << 31)),
    "Scheduler": (
        _one_of("policy", tuple("SCHED_" + n for n in ["OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE"])),
        _between("nice", -20, 19),
    ),
    "LinuxIOPriority": (
        _one_of("class_", ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")),
        _between("priority", 0, 7),
    ),
    "ExecCPUAffinity": (_affinity,),
    "LinuxNamespace": (_one_of("type", NAMESPACES), _absolute("path", empty=True)),
    "LinuxIDMapping": (_mapping,),
    "LinuxDevice": (
        _absolute("path"),
        _one_of("type", ("c", "b", "u", "p")),
        _device,
        _between("file_mode", 0, 0o177777),
    ),
    "LinuxDeviceCgroup": (_one_of("type", ("a", "b", "c"), empty=True), _access),
    "LinuxMemory": (_between("swappiness", 0, 100),),
    "LinuxResources": (_unified,),
    "LinuxSeccomp": (
        _one_of("default_action", ACTIONS),
        _between("default_errno_ret", 0, 4095),
        _each_of("architectures", ARCHITECTURES),
        _each_of("flags", FILTER_FLAGS),
        _absolute("listener_path", empty=True),
        _seccomp,
    ),
    "LinuxSyscall": (_filled("names"), _one_of("action", ACTIONS), _between("errno_ret", 0, 4095)),
    "LinuxSeccompArg": (_between("index", 0, 5), _one_of("op", OPERATORS)),
    "LinuxPersonality": (_one_of("domain", ("LINUX", "LINUX32")),),
    "Linux": (
        _maps("uid_mappings", "gid_mappings"),
        _no_twins("namespaces", "type"),
        _user_namespace,
        _one_of("rootfs_propagation", PROPAGATIONS, empty=True),
        _absolute_each("masked_paths"),
        _absolute_each("readonly_paths"),
        _sysctl,
        _time_offsets,
    ),
}
