"""What the filters of a running process decide together, from the programs that the kernel runs.

The programs are read with ptrace (sandbox/linux/ptrace.py) and followed call by call; no system call is fired.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from stockade.audit.facts import SeccompFilter
from stockade.sandbox.linux import bpf, bpf_explore, seccomp, syscalls
from stockade.sandbox.linux.calls_base import MACHINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stockade.audit.facts import Where

_ACTION = 0xFFFF0000
_GOES_ON = frozenset({seccomp.RET_ALLOW, seccomp.RET_LOG})
#: USER_NOTIF asks a supervisor and TRACE a tracer; both may let the call through
_ASKS = frozenset({seccomp.RET_USER_NOTIF, seccomp.RET_TRACE})

#: calls that open a way out or much of the kernel: for them the machine's other entries (i386, x32) are looked at
DANGEROUS = frozenset(
    {
        "mount", "umount2", "pivot_root", "fsopen", "fsconfig", "fsmount", "move_mount", "open_tree", "mount_setattr",
        "unshare", "setns", "clone3", "bpf", "perf_event_open", "keyctl", "add_key", "request_key", "userfaultfd",
        "io_uring_setup", "io_uring_enter", "io_uring_register", "ptrace", "process_vm_readv", "process_vm_writev",
        "open_by_handle_at", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
        "quotactl", "quotactl_fd", "personality", "reboot", "swapon", "swapoff", "syslog", "acct", "settimeofday",
        "clock_settime", "iopl", "ioperm",
    }
)  # fmt: skip


def facts_of(programs: tuple[bytes, ...], where: Where) -> SeccompFilter:
    """Judge stacked programs, first loaded first. Raises ValueError for what is no program of the kernel's kind."""
    allowed, conditional, foreign, notifies = _judge(programs)
    return SeccompFilter(
        where=where, allowed=allowed, conditional=conditional, foreign=foreign, notifies=notifies, programs=programs
    )


@lru_cache(maxsize=256)
def _judge(programs: tuple[bytes, ...]) -> tuple[frozenset[str], frozenset[str], tuple[str, ...], bool]:
    # Containers of one engine share a filter, so that a thousand of them cost as much as one.
    filters = [bpf.unpack(program) for program in programs]
    entries = syscalls.ACCEPTED.get(MACHINE, ())
    verdicts = {entry.name: _verdicts(filters, entry) for entry in entries}
    native = verdicts[entries[0].name] if entries else {}
    denied = {call for call, verdict in native.items() if call in DANGEROUS and verdict[0] == "denied"}
    return (
        frozenset(call for call, verdict in native.items() if verdict[0] == "allowed"),
        frozenset(call for call, verdict in native.items() if verdict[0] == "conditional"),
        tuple(
            [e.name for e in entries[1:] if any(verdicts[e.name].get(c, ("denied",))[0] != "denied" for c in denied)]
        ),
        any(verdict[1] for each in verdicts.values() for verdict in each.values()),
    )


def _verdicts(filters: list[bpf.Program], entry: syscalls.Architecture) -> dict[str, tuple[str, bool]]:
    foreign = entry.name != MACHINE
    calls = syscalls.numbers(entry.name)
    return {
        name: _verdict([_actions(program, number, entry.audit) for program in filters])
        for name, number in calls.items()
        if not foreign or name in DANGEROUS
    }


def _actions(program: bpf.Program, number: int, arch: int) -> frozenset[int]:
    return frozenset(value & _ACTION for value in bpf_explore.explore(program, number, arch).returns)


def _verdict(stacked: Iterable[frozenset[int]]) -> tuple[str, bool]:
    """Give "allowed", "conditional" or "denied", by the strictest filter, and whether a supervisor is asked."""
    passes = certain = True
    asks = False
    for actions in stacked:
        passes = passes and bool(actions & (_GOES_ON | _ASKS))
        certain = certain and actions <= _GOES_ON
        asks = asks or seccomp.RET_USER_NOTIF in actions
    return ("denied" if not passes else "allowed" if certain else "conditional"), asks
