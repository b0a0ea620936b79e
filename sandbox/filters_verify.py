"""The check that a compiled program answers every system call as the policy says, before it may be used.

For each architecture, listed or not, the numbers tried are all that the tables know, all that the program or the policy
compares with and their neighbours, with and without x32's bit. For a number whose answer depends on arguments, the
values tried for each word of each argument are those that the program or the policy compares with, their neighbours,
and each bit of a mask turned over. A comparison can only turn at these values, so that trying all combinations of them
is trying all arguments; where there are too many, every pair of arguments takes all of its combinations while the
others keep to values that let a rule match.

libseccomp needs this: several rules on one call with NE, LT, LE, GT or GE can compile to a program that lets calls
through which no rule allows.
"""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox import filters_policy
from stockade.sandbox.linux import bpf, seccomp, syscalls
from stockade.sandbox.linux.bpf_explore import explore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from stockade.sandbox.filters_policy import Condition, Policy, Table
    from stockade.sandbox.linux.bpf_explore import Outcome

    Test: TypeAlias = tuple[int, int, bool]

_WORD = 0xFFFFFFFF
_ALL_COMBINATIONS = 20_000  # of argument values for one call; beyond it pairs of arguments are tried
_BUDGET = 3_000_000  # evaluations for one program, some ten seconds


class Mismatch(StockadeError):
    """A program that doesn't do what the configuration says; the message names a call that shows it."""


def verify(program: bpf.Program, policy: Policy) -> int:
    """Give the number of system calls tried, all with the right answer. Raises Mismatch at the first wrong one."""
    reason = bpf.check(program)
    if reason:
        raise Mismatch(f"seccomp: the kernel would refuse the compiled filter: {reason}")
    numbers = _numbers(program, policy)
    count = 0
    for table in policy.tables:
        for nr in numbers:
            try:
                outcome = explore(program, nr, table.audit)
            except ValueError as error:
                raise Mismatch(f"seccomp: the compiled filter can't be verified: {error}") from None
            count += _verify_call(program, table, nr, outcome)
            if count > _BUDGET:
                raise Mismatch("seccomp: the filter has too many conditions to be verified")
    return count + _verify_unlisted(program, policy)


def _numbers(program: bpf.Program, policy: Policy) -> list[int]:
    known = {nr for table in policy.tables for nr in table.calls}
    for table in policy.tables:
        known.update(number for first, last, _ in table.ranges for number in (first, last))
        for architecture in syscalls.ALL:
            if architecture.audit == table.audit:
                known.update(syscalls.names(architecture.name))
    known.update(instruction[3] for instruction in program if instruction[0] & 7 == 5)
    numbers = {0, 0x7FFFFFFF, 0x80000000, _WORD - 1, _WORD}
    for nr in known:
        numbers.update((max(nr - 1, 0), nr, min(nr + 1, _WORD), nr ^ syscalls.X32_BIT))
    return sorted(numbers)


def _verify_call(program: bpf.Program, table: Table, nr: int, outcome: Outcome) -> int:
    rules = table.calls.get(nr, ())
    conditions = {condition for rule in rules for condition in rule.conditions}
    if not conditions and len(outcome.returns) == 1 and outcome.exact:
        want = filters_policy.decide(table, nr, bpf.NO_ARGS)
        if want not in outcome.returns:
            raise _mismatch(table, nr, bpf.NO_ARGS, min(outcome.returns), want)
        return 1
    count = 0
    data = bpf.words(nr, table.audit)
    for args in _arguments(_values(conditions, outcome, table.bits), conditions):
        data[4:] = bpf.words(0, 0, args)[4:]
        got = bpf.run_words(program, data, outcome.start)
        want = filters_policy.decide(table, nr, args)
        if got != want:
            raise _mismatch(table, nr, args, got, want)
        count += 1
    return count


def _verify_unlisted(program: bpf.Program, policy: Policy) -> int:
    listed = {table.audit for table in policy.tables}
    audits = {each.audit for each in syscalls.ALL} | {0, _WORD}
    for audit in listed:
        audits.update((audit - 1, audit + 1, audit ^ 0x80000000, audit ^ 0x40000000))
    count = 0
    for audit in audits - listed:
        for nr in (0, 1, 11, 59, 221, syscalls.X32_BIT, _WORD):
            outcome = explore(program, nr, audit)
            if outcome.returns != {policy.bad_arch}:
                raise Mismatch(f"seccomp: the filter lets call {nr} of the unlisted architecture {audit:#x} through")
            count += 1
    return count


def _values(conditions: set[Condition], outcome: Outcome, bits: int) -> dict[int, list[int]]:
    """Give, for each argument that matters, the values to try."""
    tests: dict[int, set[Test]] = {}
    for place, mask, constant, only_bits in outcome.tests:
        tests.setdefault(place, set()).add((mask & constant, 0, True) if only_bits else (mask, constant, False))
    for index, operator, value, second in conditions:
        for high in (True, False):
            word = value >> 32 if high else value & _WORD
            test: Test = (_WORD, word, False)
            if operator == "MASKED_EQ":
                test = (word, (second >> 32 if high else second) & word, True)
            tests.setdefault(bpf.word(index, high=high), set()).add(test)
    values = {}
    for index in range(6):
        below, above = tests.get(bpf.word(index)), tests.get(bpf.word(index, high=True))
        if below or above:
            highs = _classes(above or set()) if bits == 64 else [0]
            values[index] = [upper << 32 | lower for upper in highs for lower in _classes(below or set())]
    return values


def _classes(tests: set[Test]) -> list[int]:
    """Give values of a word so that any word gives the same answers to all tests as one of them.

    A test (mask, constant, only equality) asks how `word & mask` compares with the constant. Of values that give the
    same answers one is enough. That each class has a value here is certain for tests without a mask; with overlapping
    masks it holds for those that differ from a constant in one bit.
    """
    values = {0, _WORD}
    for mask, constant, _ in tests:
        values |= {constant, constant | ~mask & _WORD}
        if mask == _WORD:
            values |= {max(constant - 1, 0), min(constant + 1, _WORD)}
        else:
            values |= {constant ^ 1 << bit for bit in range(32)} | {
                (constant | ~mask & _WORD) ^ 1 << bit for bit in range(32)
            }
    known: dict[tuple[int, ...], int] = {}
    order = sorted(tests)
    for value in sorted(values):
        answers = []
        for mask, constant, equality in order:
            masked = value & mask
            answers.append(0 if masked == constant else 1 if equality or masked > constant else 2)
        known.setdefault(tuple(answers), value)
    # Two values at least: a word that nobody looks at must make no difference.
    return list(known.values()) if len(known) > 1 else [0, _WORD]


def _arguments(values: dict[int, list[int]], conditions: set[Condition]) -> Iterator[list[int]]:
    total = 1
    for each in values.values():
        total *= len(each)
    bases: list[list[int]] = [[0] * 6]
    if total <= _ALL_COMBINATIONS:
        yield from _product(bases[0], list(values), values)
        return
    bases.append(_matching(values, conditions))
    indexes = list(values)
    for base in bases:
        for number, first in enumerate(indexes):
            for second in indexes[number + 1 :] or ([] if len(indexes) > 1 else [first]):
                yield from _product(base, [first, second] if first != second else [first], values)


def _product(base: list[int], indexes: list[int], values: dict[int, list[int]]) -> Iterator[list[int]]:
    if not indexes:
        yield base
        return
    for value in values[indexes[0]]:
        args = base.copy()
        args[indexes[0]] = value
        yield from _product(args, indexes[1:], values)


def _matching(values: dict[int, list[int]], conditions: set[Condition]) -> list[int]:
    """Give arguments under which as many conditions as possible hold, argument by argument."""
    args = [0] * 6
    for index, tried in values.items():
        own = [condition for condition in conditions if condition[0] == index]

        def score(value: int, own: list[Condition] = own, index: int = index) -> int:
            probe = [0] * 6
            probe[index] = value
            return sum([filters_policy.holds(condition, probe) for condition in own])

        args[index] = max(tried, key=score)
    return args


def _mismatch(table: Table, nr: int, args: list[int] | tuple[int, ...], got: int, want: int) -> Mismatch:
    name = f"call {nr:#x}"
    for architecture in syscalls.ALL:
        if architecture.audit == table.audit:
            name = f"{syscalls.names(architecture.name).get(nr, name)} ({architecture.name})"
            break
    shown = ", ".join([f"{value:#x}" for value in args])
    return Mismatch(
        f"seccomp: the compiled filter answers {name} with arguments {shown} by {seccomp.describe(got)}; "
        f"the profile says {seccomp.describe(want)}"
    )
