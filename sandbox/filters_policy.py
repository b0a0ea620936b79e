"""What an OCI seccomp configuration means, system call by system call: the reference that every program is held to.

Where the specification leaves room:

* Several rules that match: the most restrictive action wins, in the kernel's own order (seccomp(2): kill, trap, errno,
  notify, trace, log, allow), and of two of the same kind the one that stands first. libseccomp instead lets a rule
  without conditions replace the others of its call, whatever they forbid.
* Conditions of one entry must all hold. If two of them look at the same argument each one becomes a rule of its own,
  as in runc (libcontainer/seccomp, matchCall), on whose behaviour published profiles rely.
* MASKED_EQ: `value` is the mask, `valueTwo` what is compared, itself under the mask, as in libseccomp.
* Names that an architecture doesn't have are skipped, as in runc: one profile serves all architectures.
* The machine's own architecture is always included. Calls of one that isn't listed, x32 included, kill the process:
  runc kills the thread, which leaves a program that hangs. Number -1 is excepted (a tracer sets it to skip a call): it
  gets the default action.
"""

from __future__ import annotations

from stockade.errors import UsageError
from stockade.sandbox.linux import seccomp, syscalls
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from stockade.sandbox.oci.spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

    Condition: TypeAlias = tuple[int, str, int, int]
    Rules: TypeAlias = tuple["Rule", ...]

OPERATORS = ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")

_LIMIT = 1 << 64
_SKIP = 0xFFFFFFFF


class Rule(Record):
    """Return `value` when every condition (argument index, operator of OPERATORS, value, second value) holds."""

    value: int
    conditions: tuple[tuple[int, str, int, int], ...] = ()


class Table(Record):
    """The rules of one AUDIT_ARCH number by call number. `other` is for numbers with none, `x32` for those of x32.

    x32's numbers are those from X32_BIT on but for -1, as libseccomp has it; without x32, `x32` equals `other`.
    `ranges` are numbers without rules, (first, last, return value), that have an answer of their own.
    """

    audit: int
    bits: int
    calls: Mapping[int, tuple[Rule, ...]]
    other: int
    x32: int
    ranges: tuple[tuple[int, int, int], ...] = ()

    def default(self, nr: int) -> int:
        """Give the return value for a number that has no rules or none that matches."""
        for first, last, value in self.ranges:
            if first <= nr <= last:
                return value
        return self.x32 if nr >= syscalls.X32_BIT and nr != _SKIP else self.other


class Policy(Record):
    """A whole configuration: one table for each architecture, and the return value for all others."""

    tables: tuple[Table, ...]
    bad_arch: int
    flags: int = 0

    def decide(self, audit: int, nr: int, args: Sequence[int]) -> int:
        """Give the return value for one system call: this, and no program, is what the configuration says."""
        for table in self.tables:
            if table.audit == audit:
                return decide(table, nr, args)
        return self.bad_arch


def decide(table: Table, nr: int, args: Sequence[int]) -> int:
    """Give the return value for call `nr` (unsigned, 32 bits) with six unsigned 64-bit arguments."""
    best = None
    for rule in table.calls.get(nr, ()):
        if best is not None and rank(rule.value) >= rank(best):
            continue
        for condition in rule.conditions:
            if not holds(condition, args):
                break
        else:
            best = rule.value
    return table.default(nr) if best is None else best


def rank(value: int) -> int:
    """Give the position of a return value in the kernel's order of precedence; 0 is the most restrictive."""
    return seccomp.PRECEDENCE[value & 0xFFFF0000]


def holds(condition: Condition, args: Sequence[int]) -> bool:
    """Say whether a condition holds for these arguments."""
    index, operator, value, second = condition
    actual = args[index]
    if operator == "MASKED_EQ":
        return actual & value == second & value
    if operator == "EQ":
        return actual == value
    if operator == "NE":
        return actual != value
    if operator == "LT":
        return actual < value
    if operator == "LE":
        return actual <= value
    return actual > value if operator == "GT" else actual >= value


def policy(config: LinuxSeccomp, machine: str) -> Policy:
    """Make the policy of a configuration for a machine of this uname(2) name.

    Raises UsageError for an unknown action, operator or flag, and for a machine that has no table here.
    """
    accepted = syscalls.ACCEPTED.get(machine)
    if accepted is None:
        raise UsageError(f"seccomp: no system call table for the architecture {machine!r}")
    listed = [accepted[0]] + [each for each in accepted[1:] if each.oci in config.architectures]
    other = _return(config.default_action, config.default_errno_ret, "defaultAction")
    parsed = [(call, rules_of(call, number)) for number, call in enumerate(config.syscalls)]
    tables: dict[int, Table] = {}
    for each in listed:
        calls = _calls(parsed, syscalls.numbers(each.name))
        before = tables.get(each.audit)
        if before:
            tables[each.audit] = before.replace(calls={**before.calls, **calls}, x32=other)
        else:
            x32 = seccomp.RET_KILL_PROCESS if each.audit == syscalls.X32.audit else other
            tables[each.audit] = Table(each.audit, each.bits, calls, other, x32)
    return Policy(tuple(tables.values()), seccomp.RET_KILL_PROCESS, _flags(config.flags or ()))


def _calls(parsed: list[tuple[LinuxSyscall, Rules]], numbers: Mapping[str, int]) -> dict[int, Rules]:
    calls: dict[int, Rules] = {}
    for entry, rules in parsed:
        for name in entry.names:
            number = numbers.get(name)
            if number is not None:
                calls[number] = calls.get(number, ()) + rules
    return calls


def rules_of(call: LinuxSyscall, position: int) -> Rules:
    """Give the rules that entry number `position` of the configuration makes for each of its names."""
    where = f"syscalls[{position}]"
    value = _return(call.action, call.errno_ret, f"{where}.action")
    conditions = tuple([_condition(arg, f"{where}.args[{number}]") for number, arg in enumerate(call.args)])
    if len({condition[0] for condition in conditions}) < len(conditions):
        return tuple([Rule(value, (condition,)) for condition in conditions])
    return (Rule(value, conditions),)


def _condition(arg: LinuxSeccompArg, where: str) -> Condition:
    operator = arg.op.removeprefix("SCMP_CMP_")
    if operator not in OPERATORS:
        raise UsageError(f"seccomp: {where}.op: unknown operator {arg.op!r}")
    if not (0 <= arg.index <= 5 and 0 <= arg.value < _LIMIT and 0 <= arg.value_two < _LIMIT):
        raise UsageError(f"seccomp: {where}: index is 0 to 5, value and valueTwo are 64 bits without sign")
    return arg.index, operator, arg.value, arg.value_two


def _return(action: str, errno_ret: int | None, where: str) -> int:
    value = seccomp.ACTIONS.get(action)
    if value is None:
        raise UsageError(f"seccomp: {where}: unknown action {action!r}")
    if value not in (seccomp.RET_ERRNO, seccomp.RET_TRACE):
        return value
    data = 1 if errno_ret is None else errno_ret  # runtime-spec: the default is EPERM
    if not 0 <= data <= (seccomp.MAX_ERRNO if value == seccomp.RET_ERRNO else seccomp.RET_DATA):
        raise UsageError(f"seccomp: {where}: errnoRet {data} is out of range")
    return value | data


def _flags(names: Sequence[str]) -> int:
    flags = 0
    for name in names:
        if name not in seccomp.FLAGS:
            raise UsageError(f"seccomp: unknown flag {name!r}")
        flags |= seccomp.FLAGS[name]
    return flags
