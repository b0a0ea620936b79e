"""Seccomp's vocabulary: actions, flags and the data that a filter sees; seccomp(2), include/uapi/linux/seccomp.h."""

from __future__ import annotations

from stockade.sandbox.linux.record import Record

# Actions, most restrictive first: of several filters the kernel takes the first of these, so do we of several rules.
RET_KILL_PROCESS = 0x80000000
RET_KILL_THREAD = 0x00000000
RET_TRAP = 0x00030000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000
RET_TRACE = 0x7FF00000
RET_LOG = 0x7FFC0000
RET_ALLOW = 0x7FFF0000

#: the low half of a return value: errno for RET_ERRNO, a message for the tracer or the signal handler
RET_DATA = 0x0000FFFF

#: action → position in the kernel's order of precedence
PRECEDENCE = {
    action: rank
    for rank, action in enumerate(
        (RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP, RET_ERRNO, RET_USER_NOTIF, RET_TRACE, RET_LOG, RET_ALLOW)
    )
}

#: OCI's name → return value without data; libseccomp's SCMP_ACT_KILL is the thread's
ACTIONS = {
    "SCMP_ACT_KILL": RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": RET_TRAP,
    "SCMP_ACT_ERRNO": RET_ERRNO,
    "SCMP_ACT_NOTIFY": RET_USER_NOTIF,
    "SCMP_ACT_TRACE": RET_TRACE,
    "SCMP_ACT_LOG": RET_LOG,
    "SCMP_ACT_ALLOW": RET_ALLOW,
}

#: OCI's name → flag of SECCOMP_SET_MODE_FILTER
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}

MAX_ERRNO = 4095  # kernel/seccomp.c clamps to it

# struct seccomp_data { int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]; }, as offsets of 32-bit words
DATA_SIZE = 64
NR_OFFSET = 0
ARCH_OFFSET = 4
IP_OFFSET = 8
ARGS_OFFSET = 16


class Return(Record):
    """A filter's return value taken apart: `action` is one of RET_*, `data` the low 16 bits."""

    action: int
    data: int


def decode(value: int) -> Return:
    """Take a return value apart; the kernel kills the process for an action that it doesn't know."""
    action = value & 0xFFFF0000
    return Return(action if action in PRECEDENCE else RET_KILL_PROCESS, value & RET_DATA)


def describe(value: int) -> str:
    """Give "ALLOW", "ERRNO EPERM", "TRACE 5", … for a return value."""
    result = decode(value)
    name = next(name for name, action in reversed(ACTIONS.items()) if action == result.action)[len("SCMP_ACT_") :]
    if result.action == RET_ERRNO:
        import errno

        return f"{name} {errno.errorcode.get(result.data, str(result.data))}"
    return f"{name} {result.data}" if result.action in (RET_TRACE, RET_TRAP) and result.data else name


def strictest(values: list[int]) -> int:
    """Give the return value that the kernel takes of these, one for each stacked filter, the newest filter first."""
    return min(values, key=lambda value: PRECEDENCE[decode(value).action])
