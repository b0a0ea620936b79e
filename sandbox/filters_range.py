"""The range compiler: a policy as a seccomp program that searches call numbers as a binary tree of ranges.

Most calls lie in long runs that have the same answer, so a tree over runs needs some hundred instructions where one
comparison for each call needs six hundred; the kernel translates each to machine code at every launch. The program is
built backwards: a jump only goes forward, so that its targets are known when it is written.
"""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox.filters_policy import rank
from stockade.sandbox.linux import bpf, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from stockade.sandbox.filters_policy import Condition, Policy, Rule, Table

    # A place to go on: an instruction written already (counted from the end), or ~value for "return value".
    Target: TypeAlias = int
    Interval: TypeAlias = tuple[int, int]
    # First values of ranges in ascending order, the first one 0, each with where its values go.
    Ranges: TypeAlias = list[tuple[int, Target]]

_WORD = 0xFFFFFFFF
_FAR = 255  # a conditional jump has eight bits
# When a filter is loaded the kernel runs it on every call number that exists, to note which ones are always allowed
# (seccomp_cache_prepare): a tree whose long ranges lie near its root saves it steps. Beyond this number there are none.
_HOT = 512


def compile_policy(policy: Policy) -> bpf.Program:
    """Give a program that answers as the policy does. Raises StockadeError when it would be too long for the kernel."""
    out = _Assembler()
    target: Target = ~policy.bad_arch
    for table in reversed(policy.tables):
        numbers = out.load(seccomp.NR_OFFSET, out.tree(_number_ranges(out, table)))
        target = out.jump(bpf.JEQ, table.audit, numbers, target)
    if target < 0:
        out.then(target)  # one answer to everything: the return stands alone
    out.load(seccomp.ARCH_OFFSET, target)
    program = tuple(reversed(out.code))
    if len(program) > bpf.MAX_LENGTH:
        raise StockadeError(
            f"seccomp: the filter needs {len(program)} instructions, the kernel takes {bpf.MAX_LENGTH}",
            hint="use fewer conditions on arguments",
        )
    return program


def _number_ranges(out: _Assembler, table: Table) -> Ranges:
    turns = {0}
    if table.x32 != table.other:
        turns |= {0x40000000, _WORD}
    for first, last, _ in table.ranges:
        turns |= {first, min(last + 1, _WORD)}
    starts: dict[int, Target] = {number: ~table.default(number) for number in turns}
    answers = {}
    for nr in sorted(table.calls, reverse=True):
        answers[nr] = _Rules(out, table, nr).target()
    for nr in sorted(answers):
        starts[nr] = answers[nr]
        if nr < _WORD:
            starts.setdefault(nr + 1, ~table.default(nr + 1))
    return _merged(sorted(starts.items()))


def _merged(ranges: Ranges) -> Ranges:
    """Join neighbours that have the same target."""
    return [pair for number, pair in enumerate(ranges) if number == 0 or pair[1] != ranges[number - 1][1]]


class _Assembler:
    """Instructions in reverse order, and the ways to write the next one."""

    def __init__(self) -> None:
        self.code: list[bpf.Instruction] = []
        self._returns: dict[int, int] = {}

    def emit(self, code: int, jt: int, jf: int, k: int) -> Target:
        self.code.append((code, jt, jf, k))
        return len(self.code) - 1

    def near(self, target: Target, room: int = 0) -> int:
        """Give a written instruction that leads to the target and which the next jump reaches.

        `room` is how many instructions may still come between.
        """
        place = self._returns.get(~target, -1) if target < 0 else target
        if place >= 0 and len(self.code) + room - place - 1 <= _FAR:
            return place
        if target < 0:
            self._returns[~target] = self.emit(bpf.RET_K, 0, 0, ~target)
            return len(self.code) - 1
        return self.emit(bpf.JA, 0, 0, len(self.code) - target - 1)

    def jump(self, code: int, k: int, yes: Target, no: Target) -> Target:
        """Write a conditional jump."""
        if yes == no:
            return yes
        first = self.near(yes, room=1)
        second = self.near(no)
        here = len(self.code)
        return self.emit(code, here - first - 1, here - second - 1, k)

    def then(self, target: Target) -> None:
        """See to it that the instruction written next goes on at the target."""
        if target < 0:
            self._returns[~target] = self.emit(bpf.RET_K, 0, 0, ~target)
        elif target != len(self.code) - 1:
            self.emit(bpf.JA, 0, 0, len(self.code) - target - 1)

    def load(self, offset: int, target: Target) -> Target:
        """Write a load of the word at this byte offset."""
        if target < 0:
            return target
        self.then(target)
        return self.emit(bpf.LD_ABS, 0, 0, offset)

    def tree(self, ranges: Ranges) -> Target:
        """Write a search for A among ranges."""
        units = _units(ranges)
        ends = [unit[0][0] for unit in units[1:]] + [_WORD]
        return self._search(
            units, [min(end, _HOT) - min(unit[0][0], _HOT) + 1 for unit, end in zip(units, ends, strict=True)]
        )

    def _search(self, units: list[Ranges], weights: list[int]) -> Target:
        if len(units) > 1:
            middle = _middle(weights)
            above = self._search(units[middle:], weights[middle:])
            below = self._search(units[:middle], weights[:middle])
            return self.jump(bpf.JGE, units[middle][0][0], above, below)
        background = units[0][0][1]
        target = background
        for value, other in reversed(units[0][1:]):
            if other != background:
                target = self.jump(bpf.JEQ, value, other, target)
        return target


def _middle(weights: list[int]) -> int:
    """Give the cut, between 1 and the length less 1, at which both sides weigh most alike."""
    total = sum(weights)
    best, least, before = 1, total + 1, 0
    for number, weight in enumerate(weights[:-1], 1):
        before += weight
        if abs(total - 2 * before) < least:
            best, least = number, abs(total - 2 * before)
    return best


def _units(ranges: Ranges) -> list[Ranges]:
    """Cut into pieces in which a few single values stand out of one background: a comparison each, instead of two."""
    units: list[Ranges] = []
    at = 0
    while at < len(ranges):
        unit = [ranges[at]]
        while (
            len(unit) < 5
            and at + len(unit) + 1 < len(ranges)
            and ranges[at + len(unit) + 1][0] == ranges[at + len(unit)][0] + 1
            and ranges[at + len(unit) + 1][1] == ranges[at][1]
        ):
            unit += ranges[at + len(unit) : at + len(unit) + 2]
        units.append(unit)
        at += len(unit)
    return units


class _Rules:
    """Writes the rules of one call."""

    def __init__(self, out: _Assembler, table: Table, nr: int) -> None:
        self.out = out
        self.wide = table.bits == 64
        self.default = table.default(nr)
        self.rules = table.calls[nr]

    def target(self) -> Target:
        """Write the rules so that the first one that matches, in the order of precedence, decides."""
        target = ~self.default
        groups: list[list[Rule]] = []
        for rule in sorted(self.rules, key=lambda rule: rank(rule.value)):
            if not rule.conditions:
                target = ~rule.value
                break
            if groups and groups[-1][0].value == rule.value:
                groups[-1].append(rule)
            else:
                groups.append([rule])
        for group in reversed(groups):
            if target != ~group[0].value:
                target = self.any(group, target)
        return target

    def any(self, rules: list[Rule], fail: Target) -> Target:
        """Write: if one of the rules matches return their value, else go on at `fail`."""
        yes = ~rules[0].value
        target = fail
        for rule in reversed(rules):
            if len(rule.conditions) > 1:
                target = self.all(rule.conditions, yes, target)
        for index in range(5, -1, -1):
            single = [
                rule.conditions[0] for rule in rules if len(rule.conditions) == 1 and rule.conditions[0][0] == index
            ]
            if single:
                target = self.argument(index, single, yes, target)
        return target

    def all(self, conditions: Iterable[Condition], yes: Target, no: Target) -> Target:
        """Write: if all conditions hold go to `yes`, else to `no`."""
        target = yes
        for condition in reversed(tuple(conditions)):
            target = self.argument(condition[0], [condition], target, no)
        return target

    def argument(self, index: int, conditions: Sequence[Condition], yes: Target, no: Target) -> Target:
        """Write: if one of the conditions, all on one argument, holds go to `yes`, else to `no`."""
        limit = (1 << 64 if self.wide else 1 << 32) - 1
        intervals: list[Interval] = []
        low: list[Interval] = []
        masks: list[tuple[int, int]] = []
        for _, operator, value, second in conditions:
            if operator != "MASKED_EQ":
                intervals += _intervals(operator, value, limit)
            elif second & value > limit:
                continue  # an argument of 32 bits has no high half to compare
            elif value & limit == _WORD:
                low.append((second & _WORD, second & _WORD))
            else:
                masks.append((value & limit, second & value & limit))
        target = no
        if intervals:
            target = self.member(index, _union(intervals), yes, target)
        return self.masked(index, masks, _union(low), yes, target)

    def member(self, index: int, intervals: list[Interval], yes: Target, no: Target) -> Target:
        """Write: if the argument lies in one of these 64-bit intervals go to `yes`, else to `no`."""
        cuts = {0}
        for first, last in intervals:
            cuts |= {first >> 32, (first >> 32) + 1, last >> 32, (last >> 32) + 1}
        ranges: Ranges = []
        written: dict[tuple[Interval, ...], Target] = {}
        for cut in sorted(cuts):
            if cut > _WORD or (cut and not self.wide):
                continue
            inside = tuple(
                [
                    (max(first - (cut << 32), 0), min(last - (cut << 32), _WORD))
                    for first, last in intervals
                    if first >> 32 <= cut <= last >> 32
                ]
            )
            if inside not in written:
                written[inside] = self.out.load(4 * bpf.word(index), self.out.tree(_membership(inside, yes, no)))
            ranges.append((cut, written[inside]))
        ranges = _merged(ranges)
        if len(ranges) == 1:
            return ranges[0][1]
        return self.out.load(4 * bpf.word(index, high=True), self.out.tree(ranges))

    def masked(
        self, index: int, masks: Sequence[tuple[int, int]], low: list[Interval], yes: Target, no: Target
    ) -> Target:
        """Write: if the argument under one of the masks is its value, or its low word is in `low`, go to `yes`."""
        any_set = [mask for mask, value in masks if mask == value and mask.bit_count() == 1]
        any_clear = [mask for mask, value in masks if value == 0 and mask.bit_count() == 1]
        target = no
        for mask, value in reversed(masks):
            if mask.bit_count() != 1:
                target = self.both_words(index, mask, value, yes, target)
        for high in (True, False):
            shift = 32 if high else 0
            set_bits = sum({mask >> shift & _WORD for mask in any_set})
            clear_bits = sum({mask >> shift & _WORD for mask in any_clear})
            inner = target
            if clear_bits:
                inner = self.out.jump(bpf.JEQ, clear_bits, target, yes)
                self.out.then(inner)
                inner = self.out.emit(bpf.AND, 0, 0, clear_bits)
            if low and not high:
                inner = self.out.tree(_membership(low, yes, inner))
            if set_bits:
                inner = self.out.jump(bpf.JSET, set_bits, yes, inner)
            if inner != target:
                target = self.out.load(4 * bpf.word(index, high=high), inner)
        return target

    def both_words(self, index: int, mask: int, value: int, yes: Target, no: Target) -> Target:
        """Write: if the masked 64-bit argument is the value go to `yes`, else to `no`."""
        target = self.word(index, mask >> 32, value >> 32, yes, no, high=True)
        return self.word(index, mask & _WORD, value & _WORD, target, no, high=False)

    def word(self, index: int, mask: int, value: int, yes: Target, no: Target, *, high: bool) -> Target:
        if mask == 0:
            return yes
        if value == 0:
            target = self.out.jump(bpf.JSET, mask, no, yes)
        elif mask.bit_count() == 1:
            target = self.out.jump(bpf.JSET, mask, yes, no)
        else:
            target = self.out.jump(bpf.JEQ, value, yes, no)
            if mask != _WORD and target >= 0:
                self.out.then(target)
                target = self.out.emit(bpf.AND, 0, 0, mask)
        return self.out.load(4 * bpf.word(index, high=high), target)


def _intervals(operator: str, value: int, limit: int) -> list[Interval]:
    """Give the closed intervals of [0, limit] in which the comparison holds."""
    pairs = {
        "EQ": [(value, value)],
        "NE": [(0, value - 1), (value + 1, limit)],
        "LT": [(0, value - 1)],
        "LE": [(0, value)],
        "GT": [(value + 1, limit)],
        "GE": [(value, limit)],
    }[operator]
    return [(first, min(last, limit)) for first, last in pairs if first <= min(last, limit)]


def _union(intervals: list[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for first, last in sorted(intervals):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def _membership(intervals: Iterable[Interval], yes: Target, no: Target) -> Ranges:
    """Give the ranges of a word that say whether it lies in one of these disjoint, ascending intervals."""
    starts: dict[int, Target] = {0: no}
    for first, last in intervals:
        starts[first] = yes
        if last < _WORD:
            starts[last + 1] = no
    return _merged(sorted(starts.items()))
