"""Classic BPF as seccomp uses it: encode, check and run programs; seccomp(2), kernel/seccomp.c, net/core/filter.c.

A program is a tuple of instructions (code, jt, jf, k), struct sock_filter. The data that it reads is seen as sixteen
32-bit words in this machine's byte order: number, architecture, two of instruction pointer, and two for each argument;
on a little-endian machine the low one first.
"""

from __future__ import annotations

import sys
from struct import Struct

from stockade.sandbox.linux.seccomp import DATA_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    Instruction: TypeAlias = tuple[int, int, int, int]
    Program: TypeAlias = tuple[Instruction, ...]

MAX_LENGTH = 4096  # BPF_MAXINSNS
MEMORY = 16  # BPF_MEMWORDS

# code = class | size or operation | mode or source; only 32-bit words exist here
LD_ABS = 0x20
LD_IMM = 0x00
LD_MEM = 0x60
LD_LEN = 0x80
LDX_IMM = 0x01
LDX_MEM = 0x61
LDX_LEN = 0x81
ST = 0x02
STX = 0x03
JA = 0x05
JEQ = 0x15
JGT = 0x25
JGE = 0x35
JSET = 0x45
AND = 0x54
NEG = 0x84
RET_K = 0x06
RET_A = 0x16
TAX = 0x07
TXA = 0x87
SOURCE_X = 0x08  # on an arithmetic or a jump instruction: the operand is X and not k

# kernel/seccomp.c, seccomp_check_filter: there is no BPF_MOD and no load from anything but seccomp_data
_ARITHMETIC = (0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0xA4)  # ADD SUB MUL DIV OR AND LSH RSH XOR
_JUMPS = (JEQ, JGT, JGE, JSET)
_ALLOWED = frozenset(
    [LD_ABS, LD_IMM, LD_MEM, LD_LEN, LDX_IMM, LDX_MEM, LDX_LEN, ST, STX, JA, NEG, RET_K, RET_A, TAX, TXA]
    + [code | source for code in _ARITHMETIC + _JUMPS for source in (0, SOURCE_X)]
)

_FILTER = Struct("=HBBI")
_WORD = 0xFFFFFFFF
HIGH = 1 if sys.byteorder == "little" else 0  # which word of an argument is its high one
NO_ARGS = (0, 0, 0, 0, 0, 0)


def pack(program: Iterable[Instruction]) -> bytes:
    """Encode as an array of struct sock_filter, 8 bytes each, in native byte order."""
    return b"".join([_FILTER.pack(*instruction) for instruction in program])


def unpack(data: bytes) -> Program:
    """Decode an array of struct sock_filter. Raises ValueError when the length is no multiple of 8."""
    if len(data) % _FILTER.size:
        raise ValueError(f"a BPF program of {len(data)} bytes is no whole number of instructions")
    return tuple(_FILTER.iter_unpack(data))


def word(argument: int, *, high: bool = False) -> int:
    """Give the index, among the sixteen words, of one half of argument 0 to 5."""
    return 4 + 2 * argument + (HIGH if high else 1 - HIGH)


def words(nr: int, arch: int, args: Sequence[int] = NO_ARGS, ip: int = 0) -> list[int]:
    """Lay struct seccomp_data out as sixteen 32-bit words. Negative numbers are taken as two's complement."""
    data = [nr & _WORD, arch & _WORD]
    for value in (ip, *args):
        low, high = value & _WORD, value >> 32 & _WORD
        data += (low, high) if HIGH else (high, low)
    return data


def run(program: Program, nr: int, arch: int, args: Sequence[int] = NO_ARGS, ip: int = 0) -> int:
    """Run a checked program on one system call and give its return value, as __seccomp_filter does for one filter."""
    return run_words(program, words(nr, arch, args, ip))


def run_words(program: Program, data: Sequence[int], pc: int = 0) -> int:
    """Run a checked program from instruction `pc` on with A, X and M zero; `data` as `words` gives it."""
    a = x = 0
    memory = [0] * MEMORY
    while True:
        code, jt, jf, k = program[pc]
        pc += 1
        # Most frequent first: this is called some ten thousand times to verify one profile.
        if code == JEQ:
            pc += jt if a == k else jf
        elif code == JGE:
            pc += jt if a >= k else jf
        elif code == LD_ABS:
            a = data[k >> 2]
        elif code & 7 == 6:
            return k if code == RET_K else a
        elif code == JGT:
            pc += jt if a > k else jf
        elif code == JSET:
            pc += jt if a & k else jf
        elif code == AND:
            a &= k
        elif code == JA:
            pc += k
        elif code & 7 == 5:
            pc += jt if compare(code & ~SOURCE_X, a, x) else jf
        else:
            state = _step(code, k, a, x, memory)
            if state is None:
                return 0
            a, x = state


def _step(code: int, k: int, a: int, x: int, memory: list[int]) -> tuple[int, int] | None:
    """Give A and X after an instruction that neither jumps nor returns; None when it ends the program with 0 (kill)."""
    if code in (ST, STX):
        memory[k] = a if code == ST else x
        return a, x
    if code & 7 == 4:
        result = calculate(code & ~SOURCE_X, a, x if code & SOURCE_X else k)
        return None if result is None else (result, x)
    return _move(code, k, a, x, memory)


def _move(code: int, k: int, a: int, x: int, memory: list[int]) -> tuple[int, int]:
    if code == TAX:
        return a, a
    if code == TXA:
        return x, x
    value = memory[k] if code & 0xE0 == LD_MEM else DATA_SIZE if code & 0xE0 == LD_LEN else k
    return (a, value) if code & 1 else (value, x)


def compare(code: int, a: int, operand: int) -> bool:
    """Say whether the jump instruction `code` (JEQ, JGT, JGE, JSET) takes its first way."""
    if code == JEQ:
        return a == operand
    if code == JSET:
        return bool(a & operand)
    return a > operand if code == JGT else a >= operand


def calculate(code: int, a: int, operand: int) -> int | None:
    """Give A after an arithmetic instruction; None for a division by zero, which ends the program with 0 (kill)."""
    operation = code & 0xF0
    if operation == 0x30:
        return a // operand if operand else None
    if operation in (0x60, 0x70):
        # The kernel masks a variable shift as the machine does; a constant one is below 32 by the check.
        shift = operand & 31
        return (a << shift if operation == 0x60 else a >> shift) & _WORD
    result = {
        0x00: a + operand,
        0x10: a - operand,
        0x20: a * operand,
        0x40: a | operand,
        0x50: a & operand,
        0x80: -a,
        0xA0: a ^ operand,
    }[operation]
    return result & _WORD


def check(program: Program) -> str:
    """Say why the kernel would refuse the program with EINVAL, or "" when it would take it.

    As bpf_check_classic, check_load_and_stores (net/core/filter.c) and seccomp_check_filter (kernel/seccomp.c).
    """
    if not 0 < len(program) <= MAX_LENGTH:
        return f"it has {len(program)} instructions; 1 to {MAX_LENGTH} are allowed"
    for pc, instruction in enumerate(program):
        reason = _check_instruction(instruction, len(program) - pc - 1)
        if reason:
            return f"instruction {pc}: {reason}"
    if program[-1][0] not in (RET_K, RET_A):
        return "the last instruction is no return"
    return _check_memory(program)


def _check_instruction(instruction: Instruction, left: int) -> str:
    code, jt, jf, k = instruction
    if code not in _ALLOWED:
        return f"code {code:#x} is not allowed in a seccomp filter"
    if code == LD_ABS and (k >= DATA_SIZE or k & 3):
        return f"a load from offset {k} of seccomp_data"
    if code & 7 in (0, 1, 2, 3) and code in (LD_MEM, LDX_MEM, ST, STX) and k >= MEMORY:
        return f"memory word {k}; there are {MEMORY}"
    if (code == 0x34 and k == 0) or (code in (0x64, 0x74) and k >= 32):
        return "a division by zero or a shift by 32 and more"
    if code == JA and k >= left:
        return "a jump beyond the end"
    if code & 7 == 5 and code != JA and max(jt, jf) >= left:
        return "a jump beyond the end"
    return ""


def _check_memory(program: Program) -> str:
    """Refuse a read of a memory word that is not written on every way to it."""
    valid = [(1 << MEMORY) - 1] * (len(program) + 1)
    now = 0
    for pc, (code, jt, jf, k) in enumerate(program):
        now &= valid[pc]
        if code in (ST, STX):
            now |= 1 << k
        elif code in (LD_MEM, LDX_MEM) and not now >> k & 1:
            return f"instruction {pc}: memory word {k} is read before it is written"
        elif code & 7 == 5:
            for target in (k,) if code == JA else (jt, jf):
                valid[pc + 1 + target] &= now
            now = (1 << MEMORY) - 1
    return ""
