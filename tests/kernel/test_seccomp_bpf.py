"""Our reading of BPF against the kernel's: what it refuses, and what its interpreter computes."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockade.sandbox.linux import bpf, bpf_explore, calls, ptrace, seccomp, syscalls

pytestmark = pytest.mark.kernel

MACHINE = syscalls.architecture(os.uname().machine)
assert MACHINE is not None
AUDIT = MACHINE.audit
# A number that no kernel has, so that a filter that lets it through changes nothing.
UNUSED = 1000

LOADS = (bpf.LD_ABS, bpf.LD_IMM, bpf.LD_MEM, bpf.LD_LEN, bpf.LDX_IMM, bpf.LDX_MEM, bpf.LDX_LEN)
OTHERS = (bpf.ST, bpf.STX, bpf.TAX, bpf.TXA, bpf.NEG, bpf.JA)
OPERATIONS = (0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0xA4, 0x15, 0x25, 0x35, 0x45)
NOT_ALLOWED = (0x94, 0x9C, 0x28, 0x30, 0xB1, 0x40)  # remainders; loads of bytes, halves, and relative ones

codes = st.sampled_from((*LOADS, *OTHERS, *OPERATIONS, *[code | bpf.SOURCE_X for code in OPERATIONS], *NOT_ALLOWED))
constants = st.one_of(st.integers(0, 80), st.sampled_from((2**31, 2**32 - 1, AUDIT)))
instructions = st.tuples(codes, st.integers(0, 3), st.integers(0, 3), constants)
programs = st.lists(instructions, max_size=12)
# Whatever A is becomes an errno of 8 bits.
ENDING = ((bpf.AND, 0, 0, 0xFF), (0x44, 0, 0, seccomp.RET_ERRNO | 0x100), (bpf.RET_A, 0, 0, 0))


def outcome(program: bpf.Program, args: tuple[int, ...]) -> int | str:
    """Load a program in a child and make the unused call: its errno, "refused", or "killed"."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        calls.prctl(38, 1)
        try:
            calls.seccomp(1, 0, bpf.pack(program))
        except OSError as error:
            os._exit(1 if error.errno == errno.EINVAL else 2)
        # Nothing but this call and exit_group may be needed from here on: the filter answers every call alike.
        libc.syscall(ctypes.c_long(UNUSED), *[ctypes.c_ulong(value) for value in args])
        os.write(writer, str(ctypes.get_errno()).encode())
        os._exit(0)
    os.close(writer)
    text = os.read(reader, 16)
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return "refused" if os.WEXITSTATUS(status) == 1 else int(text)


def answered(value: int) -> int | str:
    """Give what the child sees of a return value."""
    result = seccomp.decode(value)
    if result.action == seccomp.RET_ERRNO:
        return min(result.data, seccomp.MAX_ERRNO)
    killing = (seccomp.RET_KILL_PROCESS, seccomp.RET_KILL_THREAD, seccomp.RET_TRAP)
    return "killed" if result.action in killing else errno.ENOSYS  # there is no such call, no tracer and no listener


def only_unused(program: list[bpf.Instruction]) -> bpf.Program:
    """Let a program see the unused call only, and allow the rest."""
    return (
        (bpf.LD_ABS, 0, 0, 0),
        (bpf.JEQ, 1, 0, UNUSED),
        (bpf.RET_K, 0, 0, seccomp.RET_ALLOW),
        *program,
        *ENDING,
    )


@settings(max_examples=250, deadline=None)
@given(programs, st.tuples(*[st.sampled_from((0, 7, 2**32 - 1, 2**32 + 7, 2**64 - 1))] * 6))
def test_random_programs_are_refused_or_computed_as_the_kernel_does(
    body: list[bpf.Instruction], args: tuple[int, ...]
) -> None:
    program = only_unused(body)
    # Words 2 and 3 are the instruction pointer, which only the kernel knows.
    if any(code == bpf.LD_ABS and k in (8, 12) for code, _, _, k in program):
        return
    expected: int | str = "refused"
    if not bpf.check(program):
        value = bpf.run(program, UNUSED, AUDIT, args)
        expected = answered(value)
        explored = bpf_explore.explore(program, UNUSED, AUDIT)
        assert value in explored.returns or not explored.exact

    assert outcome(program, args) == expected


def test_a_loaded_filter_reads_back_as_it_was_packed() -> None:
    program = only_unused([(bpf.LD_IMM, 0, 0, 5)])
    ready, tell = os.pipe()
    release, go = os.pipe()
    child = os.fork()
    if child == 0:
        calls.prctl(38, 1)
        calls.seccomp(1, 0, bpf.pack(program))
        os.write(tell, b"x")
        os.close(go)
        os.read(release, 1)
        os._exit(0)
    os.read(ready, 1)
    try:
        assert [bpf.unpack(each) for each in ptrace.seccomp_filters(child)] == [program]
    finally:
        for descriptor in (ready, tell, release, go):
            os.close(descriptor)
        os.waitpid(child, 0)
