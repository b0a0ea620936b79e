from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.sandbox.linux import bpf, bpf_explore, bpf_text, seccomp

X86_64 = 0xC000003E
ALLOW = (bpf.RET_K, 0, 0, seccomp.RET_ALLOW)
EPERM = (bpf.RET_K, 0, 0, seccomp.RET_ERRNO | 1)


def test_a_program_survives_the_kernels_encoding() -> None:
    program = ((bpf.LD_ABS, 0, 0, 4), (bpf.JEQ, 1, 0, X86_64), EPERM, ALLOW)

    assert bpf.unpack(bpf.pack(program)) == program
    assert len(bpf.pack(program)) == 32
    with pytest.raises(ValueError, match="no whole number"):
        bpf.unpack(bytes(9))


def test_words_lie_where_the_kernel_puts_them() -> None:
    data = bpf.words(-1, X86_64, (0x1122334455667788, 0, 0, 0, 0, -1), ip=5)

    assert data[0] == 0xFFFFFFFF
    assert data[bpf.word(0)] == 0x55667788
    assert data[bpf.word(0, high=True)] == 0x11223344
    assert data[bpf.word(5, high=True)] == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ((), "0 instructions"),
        ((ALLOW,) * 4097, "4097 instructions"),
        (((bpf.LD_ABS, 0, 0, 64), ALLOW), "offset 64"),
        (((bpf.LD_ABS, 0, 0, 2), ALLOW), "offset 2"),
        (((0x28, 0, 0, 0), ALLOW), "code 0x28"),
        (((0x94, 0, 0, 3), ALLOW), "code 0x94"),  # BPF_MOD
        (((bpf.JA, 0, 0, 1), ALLOW), "beyond the end"),
        (((bpf.JEQ, 0, 1, 1), ALLOW), "beyond the end"),
        (((bpf.LD_IMM, 0, 0, 1),), "no return"),
        (((0x34, 0, 0, 0), ALLOW), "division by zero"),
        (((0x64, 0, 0, 32), ALLOW), "shift by 32"),
        (((bpf.ST, 0, 0, 16), ALLOW), "memory word 16"),
        (((bpf.LD_MEM, 0, 0, 3), ALLOW), "before it is written"),
        (((bpf.JEQ, 1, 0, 0), (bpf.ST, 0, 0, 3), (bpf.LD_MEM, 0, 0, 3), ALLOW), "before it is written"),
    ],
)
def test_what_the_kernel_refuses_is_refused_with_the_reason(program: bpf.Program, reason: str) -> None:
    assert reason in bpf.check(program)


def test_a_good_program_passes_the_check() -> None:
    program = (
        (bpf.ST, 0, 0, 3),
        (bpf.LD_MEM, 0, 0, 3),
        (bpf.LDX_LEN, 0, 0, 0),
        (bpf.TXA, 0, 0, 0),
        (bpf.RET_A, 0, 0, 0),
    )

    assert bpf.check(program) == ""
    assert bpf.run(program, 0, X86_64) == seccomp.DATA_SIZE


def test_dividing_by_x_of_zero_kills() -> None:
    assert bpf.run(((0x3C, 0, 0, 0), ALLOW), 0, X86_64) == 0


@given(st.sampled_from([0x04, 0x14, 0x24, 0x44, 0x54, 0x64, 0x74, 0xA4]), st.integers(0, 2**32 - 1), st.integers(0, 31))
def test_arithmetic_stays_within_32_bits(code: int, a: int, k: int) -> None:
    program = ((bpf.LD_IMM, 0, 0, a), (code, 0, 0, k), (bpf.RET_A, 0, 0, 0))
    expected = {
        0x04: a + k,
        0x14: a - k,
        0x24: a * k,
        0x44: a | k,
        0x54: a & k,
        0x64: a << k,
        0x74: a >> k,
        0xA4: a ^ k,
    }[code]

    assert bpf.run(program, 0, X86_64) == expected & 0xFFFFFFFF


def test_exploring_finds_every_answer_and_what_it_turns_on() -> None:
    low = 4 * bpf.word(1)
    program = (
        (bpf.LD_ABS, 0, 0, 0),
        (bpf.JEQ, 0, 4, 16),
        (bpf.LD_ABS, 0, 0, low),
        (bpf.AND, 0, 0, 0xFFFF),
        (bpf.JEQ, 0, 1, 0x5412),
        EPERM,
        ALLOW,
    )

    ioctl = bpf_explore.explore(program, 16, X86_64)

    assert ioctl.returns == {EPERM[3], ALLOW[3]}
    assert ioctl.tests == {(low // 4, 0xFFFF, 0x5412, False)}
    assert ioctl.exact
    assert bpf_explore.explore(program, 1, X86_64).returns == {ALLOW[3]}


def test_exploring_admits_what_it_does_not_follow() -> None:
    program = ((bpf.LD_ABS, 0, 0, 16), (0x04, 0, 0, 1), (bpf.JEQ, 0, 1, 7), EPERM, ALLOW)

    outcome = bpf_explore.explore(program, 1, X86_64)

    assert not outcome.exact
    assert {EPERM[3], ALLOW[3]} <= outcome.returns


def test_a_program_reads_as_text() -> None:
    program = (
        (bpf.LD_ABS, 0, 0, 4),
        (bpf.JEQ, 0, 1, X86_64),
        EPERM,
        (bpf.LD_ABS, 0, 0, 20),
        (bpf.AND, 0, 0, 255),
        ALLOW,
    )
    lines = bpf_text.disassemble(program)

    assert lines[0] == "   0 A = arch"
    assert lines[1] == "   1 if A == 0xc000003e goto 2 else 3"
    assert lines[2] == "   2 return ERRNO EPERM"
    assert lines[3] == "   3 A = args[0].high"
    assert lines[4:] == ["   4 A = A & 0xff", "   5 return ALLOW"]


def test_the_strictest_of_stacked_filters_counts() -> None:
    values = [seccomp.RET_ALLOW, seccomp.RET_ERRNO | 1, seccomp.RET_LOG]

    assert seccomp.strictest(values) == seccomp.RET_ERRNO | 1
    assert seccomp.strictest([*values, seccomp.RET_KILL_PROCESS, 0]) == seccomp.RET_KILL_PROCESS
    assert seccomp.describe(0x12340000) == "KILL_PROCESS"
