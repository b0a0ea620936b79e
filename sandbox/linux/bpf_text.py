"""Seccomp programs as text, for humans."""

from __future__ import annotations

from stockade.sandbox.linux import bpf, seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.linux.bpf import Program

_JUMPS = {bpf.JEQ: "==", bpf.JGT: ">", bpf.JGE: ">=", bpf.JSET: "&"}
_ARITHMETIC = {0x00: "+", 0x10: "-", 0x20: "*", 0x30: "/", 0x40: "|", 0x50: "&", 0x60: "<<", 0x70: ">>", 0xA0: "^"}


def disassemble(program: Program) -> list[str]:
    """Give one line for each instruction: its position, what it does in C's operators, and where its jumps lead."""
    return [f"{pc:4} {_line(pc, *instruction)}" for pc, instruction in enumerate(program)]


def _line(pc: int, code: int, jt: int, jf: int, k: int) -> str:
    operand = "X" if code & bpf.SOURCE_X else f"{k:#x}"
    if code == bpf.JA:
        return f"goto {pc + 1 + k}"
    if code & 7 == 5:
        return f"if A {_JUMPS.get(code & 0xF7, '?')} {operand} goto {pc + 1 + jt} else {pc + 1 + jf}"
    if code == bpf.RET_K:
        return f"return {seccomp.describe(k)}"
    if code == bpf.RET_A:
        return "return A"
    if code == bpf.NEG:
        return "A = -A"
    if code & 7 == 4:
        return f"A = A {_ARITHMETIC.get(code & 0xF0, '?')} {operand}"
    moves = {bpf.TAX: "X = A", bpf.TXA: "A = X", bpf.ST: f"M[{k}] = A", bpf.STX: f"M[{k}] = X"}
    if code in moves:
        return moves[code]
    source = {bpf.LD_MEM: f"M[{k}]", bpf.LD_LEN: str(seccomp.DATA_SIZE), bpf.LD_IMM: f"{k:#x}"}
    register = "X" if code & 1 else "A"
    return f"{register} = {_field(k) if code == bpf.LD_ABS else source.get(code & 0xE0, '?')}"


def _field(offset: int) -> str:
    """Name the word of struct seccomp_data at this byte offset."""
    if offset == seccomp.NR_OFFSET:
        return "nr"
    if offset == seccomp.ARCH_OFFSET:
        return "arch"
    name = "ip" if offset < seccomp.ARGS_OFFSET else f"args[{(offset - seccomp.ARGS_OFFSET) // 8}]"
    return f"{name}.{'high' if offset // 4 % 2 == bpf.HIGH else 'low'}"


def architecture_name(audit: int) -> str:
    """Give the uname(2) name of an AUDIT_ARCH number, or the number in hexadecimal."""
    return next((each.name for each in syscalls.ALL if each.audit == audit), f"{audit:#x}")
