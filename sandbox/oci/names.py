"""The words that config.json knows, as runtime-spec 1.2 lists them: what the reader takes and `features` tells."""

from __future__ import annotations


def _with(prefix: str, names: str) -> tuple[str, ...]:
    return tuple([prefix + name for name in names.split()])


NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
#: the recursive ones are not in the specification's text; runc and crun take them, and engines write them
PROPAGATIONS = ("private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable")

ACTIONS = _with("SCMP_ACT_", "ALLOW ERRNO KILL KILL_PROCESS KILL_THREAD LOG NOTIFY TRACE TRAP")
OPERATORS = _with("SCMP_CMP_", "EQ GE GT LE LT MASKED_EQ NE")
FILTER_FLAGS = _with("SECCOMP_FILTER_FLAG_", "LOG SPEC_ALLOW TSYNC WAIT_KILLABLE_RECV")
ARCHITECTURES = _with(
    "SCMP_ARCH_",
    "AARCH64 ARM LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC PARISC64 PPC PPC64 PPC64LE"
    " RISCV64 S390 S390X SH SHEB X32 X86 X86_64",
)

RLIMITS = _with(
    "RLIMIT_",
    "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK",
)
SCHEDULERS = _with("SCHED_", "OTHER FIFO RR BATCH ISO IDLE DEADLINE")
SCHEDULER_FLAGS = _with(
    "SCHED_FLAG_", "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX"
)
IO_CLASSES = _with("IOPRIO_CLASS_", "RT BE IDLE")
MEMORY_MODES = _with("MPOL_", "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL")
MEMORY_FLAGS = _with("MPOL_F_", "NUMA_BALANCING RELATIVE_NODES STATIC_NODES")
PERSONALITIES = ("LINUX", "LINUX32")
