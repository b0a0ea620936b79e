"""Follow a seccomp program for one system call without knowing its arguments.

This says what a real filter can answer to a call (the auditor's question), and on which values of which argument words
its answer turns (the verifier's question).
"""

from __future__ import annotations

from stockade.sandbox.linux import bpf, seccomp
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from stockade.sandbox.linux.bpf import Program

    # What is known of a register: a number, a masked word of the data (index, mask), or nothing.
    Known: TypeAlias = int | tuple[int, int] | None
    State: TypeAlias = tuple[int, Known, Known, tuple[Known, ...]]
    Test: TypeAlias = tuple[int, int, int, bool]

_WORD = 0xFFFFFFFF
_MAX_STATES = 1 << 16


class Outcome(Record):
    """What a program can answer to one system call.

    `returns` are the possible return values over all arguments: none is missing, one may need arguments that contradict
    each other. `tests` are the comparisons of argument words on the way: (word index, mask, constant, is a JSET), for
    `data[word] & mask`. `exact` is False when the program computes with arguments in other ways as well. `start` is the
    instruction from which on the answer depends on arguments, when nothing but A is set before it, else 0.
    """

    returns: frozenset[int]
    tests: frozenset[tuple[int, int, int, bool]] = frozenset()
    exact: bool = True
    start: int = 0


def explore(program: Program, nr: int, arch: int) -> Outcome:
    """Follow every way that a checked program can take for call `nr` on the architecture with this AUDIT_ARCH number.

    Raises ValueError for a program with more than some ten thousand different ways.
    """
    pc, value = _known_part(program, (nr & _WORD, arch & _WORD))
    if value is not None:
        return Outcome(frozenset((value,)))
    explorer = _Explorer(program, (nr & _WORD, arch & _WORD))
    explorer.follow()
    return Outcome(frozenset(explorer.returns), frozenset(explorer.tests), explorer.exact, pc)


def _known_part(program: Program, known: tuple[int, int]) -> tuple[int, int | None]:
    """Run up to the first load of an argument: where that is, and the return value if the program ends before."""
    a = pc = 0
    while True:
        code, jt, jf, k = program[pc]
        if code == bpf.LD_ABS:
            if k > 4:
                return pc, None
            a = known[k >> 2]
        elif code == bpf.JEQ:
            pc += jt if a == k else jf
        elif code == bpf.JGE:
            pc += jt if a >= k else jf
        elif code == bpf.JGT:
            pc += jt if a > k else jf
        elif code == bpf.RET_K:
            return pc, k
        elif code == bpf.JSET:
            pc += jt if a & k else jf
        elif code == bpf.JA:
            pc += k
        elif code == bpf.AND:
            a &= k
        else:
            return 0, None
        pc += 1


class _Explorer:
    """The state of one `explore`."""

    def __init__(self, program: Program, known: tuple[int, int]) -> None:
        self.program = program
        self.known = known
        self.returns: set[int] = set()
        self.tests: set[Test] = set()
        self.exact = True

    def follow(self) -> None:
        todo: list[State] = [(0, 0, 0, (0,) * bpf.MEMORY)]
        seen = set(todo)
        while todo:
            for state in self.next(*todo.pop()):
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
            if len(seen) > _MAX_STATES:
                raise ValueError("the program has too many ways to follow")

    def next(self, pc: int, a: Known, x: Known, memory: tuple[Known, ...]) -> tuple[State, ...]:
        """Give the states after instruction `pc`, none after a return."""
        code, jt, jf, k = self.program[pc]
        pc += 1
        if code == bpf.LD_ABS:
            return ((pc, self.known[k >> 2] if k < 8 else (k >> 2, _WORD), x, memory),)
        if code == bpf.JA:
            return ((pc + k, a, x, memory),)
        if code & 7 == 5:
            taken = self.test(code & ~bpf.SOURCE_X, a, x if code & bpf.SOURCE_X else k)
            return tuple([(pc + (jt if each else jf), a, x, memory) for each in taken])
        if code in (bpf.RET_K, bpf.RET_A):
            value = k if code == bpf.RET_K else a
            self.returns.add(value if isinstance(value, int) else 0)
            self.exact = self.exact and isinstance(value, int)
            return ()
        if code & 7 == 4:
            a = self.arithmetic(code, a, x if code & bpf.SOURCE_X else k)
            return ((pc, a, x, memory),)
        return ((pc, *_move(code, k, a, x, memory)),)

    def test(self, code: int, a: Known, operand: Known) -> tuple[bool, ...]:
        """Give the ways that a jump can take."""
        if isinstance(a, int) and isinstance(operand, int):
            return (bpf.compare(code, a, operand),)
        if isinstance(a, tuple) and isinstance(operand, int):
            # a > k turns between k and k + 1, as a >= k + 1 does.
            self.tests.add((*a, min(operand + (code == bpf.JGT), _WORD), code == bpf.JSET))
        else:
            self.exact = False
        return (True, False)

    def arithmetic(self, code: int, a: Known, operand: Known) -> Known:
        if code == bpf.AND and isinstance(a, tuple) and isinstance(operand, int):
            return a[0], a[1] & operand
        if isinstance(a, int) and isinstance(operand, int):
            result = bpf.calculate(code & ~bpf.SOURCE_X, a, operand)
            if result is not None:
                return result
        self.exact = False
        self.returns.add(0)  # a division by zero kills
        return None


def _move(code: int, k: int, a: Known, x: Known, memory: tuple[Known, ...]) -> tuple[Known, Known, tuple[Known, ...]]:
    if code in (bpf.ST, bpf.STX):
        return a, x, (*memory[:k], a if code == bpf.ST else x, *memory[k + 1 :])
    if code in (bpf.TAX, bpf.TXA):
        return (a, a, memory) if code == bpf.TAX else (x, x, memory)
    value: Known = k
    if code & 0xE0 == bpf.LD_MEM:
        value = memory[k]
    elif code & 0xE0 == bpf.LD_LEN:
        value = seccomp.DATA_SIZE
    return (a, value, memory) if code & 1 else (value, x, memory)
