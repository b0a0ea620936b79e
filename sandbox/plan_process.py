"""Attributes of the process beside its ids and capabilities: Spec → steps. Pure."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox import steps as s
from stockade.sandbox.oci import spec as oci

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockade.sandbox.steps import Step

#: the host's procfs: a slot that outlives Pivot and Join (native/process.c KEPT_SLOTS) until the label is written
PROC = s.Slot(2006, "host /proc")
#: getrlimit(2), the numbers of all architectures but alpha, mips and sparc
RLIMITS = {
    name: number
    for number, name in enumerate(
        (
            *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE"),
            *("MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
        )
    )
}
#: include/uapi/linux/sched.h; SCHED_ISO is reserved there and was never made
POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES = {"LINUX": 0, "LINUX32": 0x0008}
#: include/uapi/linux/mempolicy.h
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
#: the first that the kernel has; the one of AppArmor's own is there beside another module's since Linux 5.8
APPARMOR_FILES = ("self/attr/apparmor/exec", "self/attr/exec")
SELINUX_FILES = ("self/attr/exec",)
LARGEST_LIST = 1 << 16
#: SECCOMP_FILTER_FLAG_NEW_LISTENER and _WAIT_KILLABLE_RECV, seccomp(2)
LISTENING = 1 << 3 | 1 << 5


def _known(table: Mapping[str, int], name: str, what: str) -> int:
    if name not in table:
        raise StockadeError(f"unknown {what} {name}", hint=f"known: {' '.join(table)}")
    return table[name]


def mask_of(numbers: str, what: str) -> bytes:
    """Give the mask of a list such as 0-3,8 (cpuset(7)), in whole words of 8 bytes. Raises StockadeError."""
    bits = 0
    for part in numbers.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = _number(first, numbers, what), _number(last if dash else first, numbers, what)
        if not low <= high < LARGEST_LIST:
            raise StockadeError(f"{what} {numbers!r}: {part} is no range", hint="write a list such as 0-3,8")
        bits |= (1 << high + 1) - (1 << low)
    return bits.to_bytes((bits.bit_length() + 63) // 64 * 8, "little")


def _number(text: str, numbers: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise StockadeError(f"{what} {numbers!r} is not a list of numbers", hint="write a list such as 0-3,8")
    return int(text)


def outside(spec: oci.Spec, process: oci.Process) -> Iterator[Step]:
    """Give the steps that the launcher takes on the new process: only there is what the caller may do on the host."""
    if process.oom_score_adj is not None:
        yield s.OomScore(str(process.oom_score_adj))
    if spec.linux.namespace("user") is not None:
        for limit in process.rlimits:
            name = limit.type.removeprefix("RLIMIT_")
            yield s.RlimitRoom(_known(RLIMITS, name, "resource limit"), limit.hard, name.lower())
    if process.scheduler is not None:
        yield _scheduler(process.scheduler)
    if process.io_priority is not None:
        kind = _known(IO_CLASSES, process.io_priority.class_, "class of I/O priority")
        if not 0 <= process.io_priority.priority <= 7:
            raise StockadeError(f"I/O priority {process.io_priority.priority} is not from 0 to 7")
        yield s.IoPriority(kind << 13 | process.io_priority.priority)


def _scheduler(wanted: oci.Scheduler) -> Step:
    flags = sum({_known(SCHEDULER_FLAGS, flag, "flag of the scheduler") for flag in wanted.flags})
    policy = _known(POLICIES, wanted.policy, "scheduling policy")
    return s.Scheduler(
        policy,
        flags,
        wanted.nice,
        wanted.priority,
        wanted.runtime,
        wanted.deadline,
        wanted.period,
        wanted.policy,
    )


def affinity(process: oci.Process, *, final: bool) -> Iterator[Step]:
    """Give the step for the processors of an exec'd process, before or after it moves to its control groups."""
    wanted = process.exec_cpu_affinity
    numbers = (wanted.final if final else wanted.initial) if wanted is not None else ""
    if numbers:
        yield s.Affinity(mask_of(numbers, "execCPUAffinity"), numbers)


def time_offsets(spec: oci.Spec) -> bool:
    """Tell whether a time namespace must be made by the process itself, and not by clone(2)."""
    namespace = spec.linux.namespace("time")
    return bool(spec.linux.time_offsets) and namespace is not None and not namespace.path


def needs_proc(spec: oci.Spec, process: oci.Process) -> bool:
    """Tell whether something is written to the host's procfs."""
    return bool(spec.linux.sysctl or process.apparmor_profile or process.selinux_label) or time_offsets(spec)


def enter_time(spec: oci.Spec) -> Iterator[Step]:
    """Give the step that makes and enters a time namespace with offsets."""
    if time_offsets(spec):
        lines = [f"{clock} {offset.secs} {offset.nanosecs}\n" for clock, offset in spec.linux.time_offsets.items()]
        yield s.TimeOffsets(PROC, "".join(lines))


def sysctls(spec: oci.Spec, process: oci.Process) -> Iterator[Step]:
    """Give the steps that write sysctls, once all namespaces are as they will be; the last user of PROC closes it."""
    for name, value in spec.linux.sysctl.items():
        yield s.Sysctl(PROC, "sys/" + sysctl_path(name), value.encode())
    if needs_proc(spec, process) and not labels_of(process):
        yield s.Close(PROC)


def sysctl_path(name: str) -> str:
    """Give the path below /proc/sys: the first of `.` and `/` in a name separates, the other is literal (sysctl(8))."""
    separator = next((character for character in name if character in "./"), ".")
    return name if separator == "/" else name.translate({ord("."): "/", ord("/"): "."})


def labels_of(process: oci.Process) -> bool:
    """Tell whether a security module labels the program."""
    return bool(process.apparmor_profile or process.selinux_label)


def labels(process: oci.Process) -> Iterator[Step]:
    """Give the steps that label the program. Before no_new_privs, under which AppArmor may refuse the transition."""
    if process.apparmor_profile:
        yield s.Label(PROC, b"exec " + process.apparmor_profile.encode(), APPARMOR_FILES)
    if process.selinux_label:
        yield s.Label(PROC, process.selinux_label.encode(), SELINUX_FILES)
    if labels_of(process):
        yield s.Close(PROC)


def attributes(spec: oci.Spec) -> Iterator[Step]:
    """Give the steps about personality and memory policy. The specification has no flags of a personality yet."""
    wanted = spec.linux.personality
    if wanted is not None:
        yield s.Personality(_known(PERSONALITIES, wanted.domain, "personality"))
    policy = getattr(spec.linux, "memory_policy", None)
    if policy is not None and policy.mode:
        mode = _known(MEMORY_MODES, policy.mode, "memory policy")
        mode |= sum({_known(MEMORY_FLAGS, flag, "flag of the memory policy") for flag in policy.flags})
        nodes = mask_of(policy.nodes, "memoryPolicy.nodes") if policy.nodes else b""
        yield s.MemoryPolicy(mode, nodes, f"{policy.mode} {policy.nodes}".rstrip())


def container_hooks(spec: oci.Spec, when: str, state: s.Slot, flags: int = 0, program: bytes = b"") -> Iterator[Step]:
    """Give the steps that run the hooks of `when`, createContainer or startContainer.

    `state` holds a memfd with the state as JSON. `program` is the filter: a startContainer hook is a program of the
    container's, and gets what the container's program gets, but nobody listens to what it may not decide itself: those
    calls fail with ENOSYS (seccomp_unotify(2)).
    """
    flags &= ~LISTENING
    hooks = spec.hooks or oci.Hooks()
    found = hooks.create_container if when == "createContainer" else hooks.start_container
    for index, hook in enumerate(found):
        yield s.Hook(when, index, state, hook.timeout or 0, flags, program, hook.path, hook.args, hook.env)
