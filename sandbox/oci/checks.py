"""What config.json must satisfy beyond its types: rules of runtime-spec 1.2 and of the kernel, by record.

What depends on several sections, or on what this runtime can do, is in container_checks.py.
"""

from __future__ import annotations

from itertools import pairwise

from stockade.sandbox.linux import idmap
from stockade.sandbox.oci import names
from stockade.sandbox.oci.write import key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TypeAlias

    from stockade.sandbox.oci import spec

    Check: TypeAlias = Callable[[Any], None]


class Invalid(Exception):
    """A value that config.json may not have, at a JSON path below the record or section that is looked at.

    Whoever looks at what is around it puts its own part of the path in front: paths are only made when they are told.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path, self.message = path, message


_DIGITS = frozenset("0123456789")
_SYSCTL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@-")
#: the one above stands for "leave it as it is", setresuid(2)
LARGEST_ID = 0xFFFFFFFE


def _one_of(field: str, allowed: Sequence[str], *, empty: bool = False) -> Check:
    def check(record: Any) -> None:
        value = getattr(record, field)
        if value not in allowed and not (empty and value == ""):
            raise Invalid(f".{key(field)}", f"unknown value {value!r}; known are {', '.join(allowed)}")

    return check


def _each_of(field: str, allowed: Sequence[str]) -> Check:
    def check(record: Any) -> None:
        for index, value in enumerate(getattr(record, field) or ()):
            if value not in allowed:
                raise Invalid(f".{key(field)}[{index}]", f"unknown value {value!r}; known are {', '.join(allowed)}")

    return check


def _absolute(field: str, *, empty: bool = False) -> Check:
    def check(record: Any) -> None:
        value = getattr(record, field)
        if not value.startswith("/") and not (empty and value == ""):
            raise Invalid(f".{key(field)}", f"{value!r} is not an absolute path")

    return check


def _absolute_each(field: str) -> Check:
    def check(record: Any) -> None:
        for index, value in enumerate(getattr(record, field)):
            if not value.startswith("/"):
                raise Invalid(f".{key(field)}[{index}]", f"{value!r} is not an absolute path")

    return check


def _between(field: str, low: int, high: int) -> Check:
    def check(record: Any) -> None:
        value = getattr(record, field)
        if value is not None and not low <= value <= high:
            raise Invalid(f".{key(field)}", f"expected a number from {low} to {high}, not {value}")

    return check


def _filled(field: str) -> Check:
    def check(record: Any) -> None:
        if not getattr(record, field):
            raise Invalid(f".{key(field)}", "must not be empty")

    return check


def _environment(record: spec.Process) -> None:
    for index, entry in enumerate(record.env):
        if entry.find("=") < 1:
            raise Invalid(f".env[{index}]", f"expected NAME=VALUE, not {entry!r}")


def _no_twins(field: str, of: str) -> Check:
    def check(record: Any) -> None:
        seen: set[str] = set()
        for index, item in enumerate(getattr(record, field)):
            value = getattr(item, of)
            if value in seen:
                raise Invalid(f".{key(field)}[{index}].{key(of)}", f"{value!r} is there twice")
            seen.add(value)

    return check


def _mapping(record: spec.LinuxIDMapping) -> None:
    if record.size < 1:
        raise Invalid(".size", "an id map needs at least one id")
    for name, first in (("containerID", record.container_id), ("hostID", record.host_id)):
        if first + record.size > idmap.ID_LIMIT:
            raise Invalid(".size", f"{name} {first} and size {record.size} go beyond the last id")


def _maps(record: spec.Mount | spec.Linux) -> None:
    uids, gids = record.uid_mappings, record.gid_mappings
    for name, maps in (("uidMappings", uids), ("gidMappings", gids)):
        if len(maps) > idmap.MAX_EXTENTS:
            raise Invalid(f".{name}", f"{len(maps)} extents; the kernel takes {idmap.MAX_EXTENTS}")
        _overlaps(maps, f".{name}")
    if bool(uids) != bool(gids):
        raise Invalid(f".{'gidMappings' if uids else 'uidMappings'}", "missing: an id map needs uids and gids")


def _overlaps(maps: Iterable[spec.LinuxIDMapping], path: str) -> None:
    for name in ("container_id", "host_id"):
        ordered = sorted([(getattr(each, name), each.size, index) for index, each in enumerate(maps)])
        for (first, size, one), (second, _, other) in pairwise(ordered):
            if first + size > second:
                later, earlier = max(one, other), min(one, other)
                raise Invalid(f"{path}[{later}].{key(name)}", f"overlaps with [{earlier}]")


def _rlimit(record: spec.POSIXRlimit) -> None:
    if record.soft > record.hard:
        raise Invalid(".soft", f"{record.soft} is above the hard limit {record.hard}")


def _scheduler(record: spec.Scheduler) -> None:
    """As runc's validator: values of another policy would be ignored by the kernel, or refused without a name."""
    if record.priority and record.policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise Invalid(".priority", f"only SCHED_FIFO and SCHED_RR have a priority, not {record.policy}")
    if record.policy != "SCHED_DEADLINE":
        for name in ("runtime", "deadline", "period"):
            if getattr(record, name):
                raise Invalid(f".{name}", f"only SCHED_DEADLINE has one, not {record.policy}")


def _device(record: spec.LinuxDevice) -> None:
    for name, value in (("major", record.major), ("minor", record.minor)):
        if value < 0:
            raise Invalid(f".{name}", f"{value} is no device number")


def _access(record: spec.LinuxDeviceCgroup) -> None:
    if record.access.strip("rwm"):
        raise Invalid(".access", f"{record.access!r}: only r, w and m are known")


def _errno(action: str, value: int | None, name: str) -> None:
    """Refuse an errno where the action can't return one, as config-linux.md "Seccomp" demands, and one out of range."""
    if value is None:
        return
    if action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        raise Invalid(f".{name}", f"{action} returns no errno")
    limit = 4095 if action == "SCMP_ACT_ERRNO" else 0xFFFF  # MAX_ERRNO; SECCOMP_RET_DATA, seccomp(2)
    if value > limit:
        raise Invalid(f".{name}", f"expected a number from 0 to {limit}, not {value}")


def _seccomp(record: spec.LinuxSeccomp) -> None:
    _errno(record.default_action, record.default_errno_ret, "defaultErrnoRet")
    if record.listener_metadata and not record.listener_path:
        raise Invalid(".listenerMetadata", "needs listenerPath")


def _syscall(record: spec.LinuxSyscall) -> None:
    _errno(record.action, record.errno_ret, "errnoRet")


def _version(record: spec.Spec) -> None:
    """Semantic versioning: whoever knows 1.2 can read all of 1.x ("Specification version")."""
    numbers, _, _ = record.oci_version.partition("+")
    numbers, _, _ = numbers.partition("-")
    parts = numbers.split(".")
    if len(parts) != 3 or parts[0] != "1" or not all(part and _DIGITS.issuperset(part) for part in parts):
        raise Invalid(".ociVersion", f"version {record.oci_version!r} is not known; expected 1.x.y")


def _sysctl(record: spec.Linux) -> None:
    for name in record.sysctl:
        if not _SYSCTL.issuperset(name) or name[:1] in ("", ".", "/", ":", "@", "-") or ".." in name or "//" in name:
            raise Invalid(".sysctl", f"{name!r} is no name of a sysctl")


def _user_namespace(record: spec.Linux) -> None:
    namespace = record.namespace("user")
    if record.uid_mappings and namespace is None:
        raise Invalid(".uidMappings", "an id map without a user namespace in $.linux.namespaces")
    if namespace is not None and not namespace.path and not record.uid_mappings:
        raise Invalid(".uidMappings", "missing: a new user namespace needs an id map")


def _time_offsets(record: spec.Linux) -> None:
    for clock, offset in record.time_offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise Invalid(".timeOffsets", f"unknown clock {clock!r}; known are monotonic, boottime")
        if offset.nanosecs >= 1_000_000_000:
            raise Invalid(f'.timeOffsets["{clock}"].nanosecs', "a second has 1000000000 nanoseconds")


def _unified(record: spec.LinuxResources) -> None:
    for name in record.unified:
        # the name of a file in the container's own group, cgroups(7); runc refuses a path, too
        if "/" in name or not name:
            raise Invalid(".unified", f"{name!r} is no name of a cgroup file")


def _list(text: str) -> bool:
    """Tell whether a text is a list of numbers in cpuset(7)'s form: 0-3,8."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        for number in (first, last) if dash else (first,):
            if not number or not _DIGITS.issuperset(number) or len(number) > 9:
                return False
        if dash and int(first) > int(last):
            return False
    return True


def _numbers(field: str, what: str) -> Check:
    def check(record: Any) -> None:
        value = getattr(record, field)
        if value and not _list(value):
            raise Invalid(f".{key(field)}", f"{value!r} is not a list of {what} such as 0-3,8")

    return check


#: class of spec.py → what its records must satisfy; each check raises Invalid
CHECKS: dict[str, tuple[Check, ...]] = {
    "Spec": (_version,),
    "Process": (
        _absolute("cwd"),
        _filled("args"),
        _environment,
        _no_twins("rlimits", "type"),
        _between("oom_score_adj", -1000, 1000),
    ),
    "Box": (_between("height", 0, 0xFFFF), _between("width", 0, 0xFFFF)),  # struct winsize, ioctl_tty(2)
    "POSIXRlimit": (_one_of("type", names.RLIMITS), _rlimit),
    "User": (_between("uid", 0, LARGEST_ID), _between("gid", 0, LARGEST_ID), _between("umask", 0, 0o777)),
    "Root": (_filled("path"),),
    "Mount": (_filled("destination"), _maps),
    "Hook": (_absolute("path"), _between("timeout", 1, 1 << 31)),
    "Scheduler": (
        _one_of("policy", names.SCHEDULERS),
        _between("nice", -20, 19),
        _between("priority", 0, 99),
        _each_of("flags", names.SCHEDULER_FLAGS),
        _scheduler,
    ),
    "LinuxIOPriority": (_one_of("class_", names.IO_CLASSES), _between("priority", 0, 7)),
    "ExecCPUAffinity": (_numbers("initial", "processors"), _numbers("final", "processors")),
    "LinuxNamespace": (_one_of("type", names.NAMESPACES), _absolute("path", empty=True)),
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
        _one_of("default_action", names.ACTIONS),
        _each_of("architectures", names.ARCHITECTURES),
        _each_of("flags", names.FILTER_FLAGS),
        _absolute("listener_path", empty=True),
        _seccomp,
    ),
    "LinuxSyscall": (_filled("names"), _one_of("action", names.ACTIONS), _syscall),
    "LinuxSeccompArg": (_between("index", 0, 5), _one_of("op", names.OPERATORS)),
    "LinuxPersonality": (_one_of("domain", names.PERSONALITIES),),
    "LinuxMemoryPolicy": (
        _one_of("mode", names.MEMORY_MODES),
        _each_of("flags", names.MEMORY_FLAGS),
        _numbers("nodes", "memory nodes"),
    ),
    "Linux": (
        _maps,
        _no_twins("namespaces", "type"),
        _user_namespace,
        _one_of("rootfs_propagation", names.PROPAGATIONS, empty=True),
        _absolute_each("masked_paths"),
        _absolute_each("readonly_paths"),
        _sysctl,
        _time_offsets,
    ),
}
