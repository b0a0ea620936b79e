"""The seccomp program of a container from its `linux.seccomp`, which means what it means to runc and libseccomp.

Compiled by our range compiler and run against its meaning before use (see filters.py), and kept by the hash of the
section: a hit imports no compiler. Where the specification leaves room, runc 1.2 and libseccomp 2.5 have decided, and
engines' profiles rely on it:

* A rule that says what the default says is no rule, so that it doesn't stand against others of its call.
* A rule without conditions takes the place of all rules of its call with conditions; of several without, the first
  one counts. `stockade run` is stricter: there the most restrictive rule that matches wins.
* Of several rules with conditions that match, the most restrictive one wins. libseccomp refuses some of these
  ("File exists"), and orders the others by the shape of its tree.
* Calls with a higher number than any that the profile names fail with ENOSYS, unless the default allows, logs or traces
  or already is ENOSYS: programs then fall back to older calls where EPERM would stop them (runc, "-ENOSYS stub").
* Absent `flags` are SPEC_ALLOW, an empty list is none. TSYNC is taken and left out: there is one thread.
* An unlisted architecture kills the process, where runc kills the thread and so leaves a program that hangs.
* i386's socketcall(2) and ipc(2) have the rules of their own names only; libseccomp opens them along with `socket`.
"""

from __future__ import annotations

from stockade import __version__
from stockade.errors import UsageError
from stockade.sandbox import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stockade.sandbox.filters_policy import Policy, Rule, Table
    from stockade.sandbox.oci.spec import LinuxSeccomp

# Part of every key: raise it whenever a change here may change a program.
_VERSION = b"oci 1"
_NEW_LISTENER = 1 << 3  # SECCOMP_FILTER_FLAG_NEW_LISTENER, seccomp(2)
_ENOSYS = 38
_WORD = 0xFFFFFFFF

#: where a section stands that was taken out of its file
CONFIG, PATH = "config.json", "$.linux.seccomp"
#: SCMP_ACT_NOTIFY on these would stop whoever hands the listener over, as runc has it for write(2)
NOT_NOTIFIED = ("write",)


def program(section: LinuxSeccomp | Mapping[str, Any], arch: str = "") -> tuple[bytes, int, bool]:
    """Give the program (struct sock_filter array), the flags for seccomp(2) and whether it needs a listener.

    `section` is `linux.seccomp` as read or as decoded, `arch` a uname(2) machine, by default this one. The flags are
    without SECCOMP_FILTER_FLAG_NEW_LISTENER. Raises UsageError for what is no such section, StockadeError for one that
    can't be compiled.
    """
    machine = filters.machine_name(arch)
    parts = [_VERSION, __version__.encode(), machine.encode(), repr(section).encode("utf-8", "surrogatepass")]
    made = filters.cached(parts, lambda: _make(section, machine))
    return made.program, made.flags & ~_NEW_LISTENER, bool(made.flags & _NEW_LISTENER)


def filter_of(section: Mapping[str, Any] | None, arch: str) -> tuple[bytes, int]:
    """Give the program, empty for none, and all flags for seccomp(2), NEW_LISTENER where the filter needs one."""
    if section is None:
        return b"", 0
    made, flags, listener = program(section, arch)
    return made, flags | (_NEW_LISTENER if listener else 0)


def policy(config: LinuxSeccomp, machine: str) -> Policy:
    """Give what a section means for a machine of this uname(2) name; flags with NEW_LISTENER where it is needed."""
    from stockade.sandbox import filters_policy
    from stockade.sandbox.linux import seccomp

    plain = filters_policy.policy(config, machine)
    tables = tuple([_settled(table, config) for table in plain.tables])
    listener = any(
        rule.value == seccomp.RET_USER_NOTIF for table in tables for rules in table.calls.values() for rule in rules
    )
    return plain.replace(tables=tables, flags=_flags(config, plain.flags, listener=listener))


def _make(section: LinuxSeccomp | Mapping[str, Any], machine: str) -> filters.Filter:
    from stockade.sandbox import filters_range, filters_verify
    from stockade.sandbox.linux import bpf
    from stockade.sandbox.oci import read
    from stockade.sandbox.oci.spec import LinuxSeccomp

    config = section if isinstance(section, LinuxSeccomp) else read.read(LinuxSeccomp, section, CONFIG, PATH)
    _refuse_unhandled(config)
    meant = policy(config, machine)
    found = filters_range.compile_policy(meant)
    filters_verify.verify(found, meant)
    return filters.Filter(bpf.pack(found), meant.flags, "range")


def _refuse_unhandled(config: LinuxSeccomp) -> None:
    if config.default_action == "SCMP_ACT_NOTIFY":
        raise UsageError(f"{CONFIG}: {PATH}.defaultAction: SCMP_ACT_NOTIFY would stop the container's own start")
    for index, call in enumerate(config.syscalls):
        if call.action == "SCMP_ACT_NOTIFY":
            if not config.listener_path:  # each such call would fail with ENOSYS, seccomp_unotify(2)
                raise UsageError(f"{CONFIG}: {PATH}.listenerPath: missing, syscalls[{index}] has SCMP_ACT_NOTIFY")
            for name in NOT_NOTIFIED:
                if name in call.names:
                    where = f"{CONFIG}: {PATH}.syscalls[{index}]"
                    raise UsageError(f"{where}: SCMP_ACT_NOTIFY on {name} would stop the container's own start")


def _flags(config: LinuxSeccomp, given: int, *, listener: bool) -> int:
    from stockade.sandbox.linux import seccomp

    flags = given & ~seccomp.FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]
    if config.flags is None:
        flags |= seccomp.FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    if listener:
        return flags | _NEW_LISTENER
    # The kernel refuses it with EINVAL where there is nobody to wait for.
    return flags & ~seccomp.FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]


def _settled(table: Table, config: LinuxSeccomp) -> Table:
    calls = {}
    for number, rules in table.calls.items():
        left = _as_libseccomp(rules, table.other)
        if left:
            calls[number] = left
    return table.replace(calls=calls, ranges=_newer(table, config))


def _as_libseccomp(rules: tuple[Rule, ...], default: int) -> tuple[Rule, ...]:
    """Give the rules of one call that are left after libseccomp has taken them in their order."""
    counted = tuple([rule for rule in rules if rule.value != default])
    for rule in counted:
        if not rule.conditions:
            return (rule,)
    return counted


def _newer(table: Table, config: LinuxSeccomp) -> tuple[tuple[int, int, int], ...]:
    """Give the numbers above all that the profile names, as ranges that answer ENOSYS."""
    from stockade.sandbox.linux import seccomp, syscalls

    lenient = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
    if config.default_action in lenient or config.default_errno_ret == _ENOSYS:
        return ()
    ranges = []
    for each in syscalls.ALL:
        if each.audit == table.audit and each.oci in config.architectures:
            numbers = syscalls.numbers(each.name)
            last = max([numbers.get(name, 0) for call in config.syscalls for name in call.names], default=0)
            end = syscalls.X32_BIT - 1 if each.name == "x86_64" else _WORD - 1  # -1 is the default's, as everywhere
            if last:
                ranges.append((last + 1, end, seccomp.RET_ERRNO | _ENOSYS))
    return tuple(ranges)
