"""Device policies on cgroup2: a BPF program of type BPF_PROG_TYPE_CGROUP_DEVICE on the group, bpf(2).

The kernel runs it for each open(2) and mknod(2) of a device, with `struct bpf_cgroup_dev_ctx`: access_type (what is
done in the upper 16 bits, kind in the lower), major, minor. It allows by returning 1; all programs up to the root must.
"""

from __future__ import annotations

import ctypes
import os
import struct

from stockade.sandbox.linux import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.linux.cgroup_devices import Policy

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_F_QUERY_EFFECTIVE = 1

KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE

# Opcodes of linux/bpf.h that the program is made of; dst and src are registers 0 to 10.
_LOAD = 0x61  # BPF_LDX | BPF_MEM | BPF_W: dst = *(u32 *)(src + off)
_SET = 0xB4  # BPF_ALU | BPF_MOV | BPF_K: dst = imm
_COPY = 0xBC  # BPF_ALU | BPF_MOV | BPF_X: dst = src
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K: dst &= imm
_SHIFT = 0x74  # BPF_ALU | BPF_RSH | BPF_K: dst >>= imm
_UNEQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K: if dst != imm, skip off instructions
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT

_RESULT, _CONTEXT, _KIND, _WHAT, _MAJOR, _MINOR = range(6)

#: (code, dst, src, off, imm) as in struct bpf_insn
Instruction = tuple[int, int, int, int, int]


def program(policy: Policy) -> tuple[Instruction, ...]:
    """Compile a policy; the first exception that applies decides, else the default."""
    code: list[Instruction] = [
        (_LOAD, _KIND, _CONTEXT, 0, 0),
        (_COPY, _WHAT, _KIND, 0, 0),
        (_AND, _KIND, 0, 0, 0xFFFF),
        (_SHIFT, _WHAT, 0, 0, 16),
        (_LOAD, _MAJOR, _CONTEXT, 4, 0),
        (_LOAD, _MINOR, _CONTEXT, 8, 0),
    ]
    for device in policy.exceptions:
        mask = sum(ACCESS[letter] for letter in device.access)
        tests: list[Instruction] = [(_UNEQUAL, _KIND, 0, 0, KINDS[device.type])]
        for register, number in ((_MAJOR, device.major), (_MINOR, device.minor)):
            if number is not None:
                tests.append((_UNEQUAL, register, 0, 0, number))
        tests.append((_COPY, _CONTEXT, _WHAT, 0, 0))
        if policy.allow:  # any forbidden access denies
            tests += [(_AND, _CONTEXT, 0, 0, mask), (_EQUAL, _CONTEXT, 0, 0, 0)]
        else:  # nothing but permitted access allows
            tests += [(_AND, _CONTEXT, 0, 0, 7 & ~mask), (_UNEQUAL, _CONTEXT, 0, 0, 0)]
        end = len(tests) + 2
        for index, (opcode, dst, src, _, imm) in enumerate(tests):
            jump = end - index - 1 if opcode in {_UNEQUAL, _EQUAL} else 0
            code.append((opcode, dst, src, jump, imm))
        code += [(_SET, _RESULT, 0, 0, int(not policy.allow)), (_EXIT, 0, 0, 0, 0)]
    return (*code, (_SET, _RESULT, 0, 0, int(policy.allow)), (_EXIT, 0, 0, 0, 0))


def pack(code: tuple[Instruction, ...]) -> bytes:
    """Encode instructions as struct bpf_insn of this machine's byte order."""
    little = struct.pack("=H", 1) == b"\x01\0"
    shift_dst, shift_src = (0, 4) if little else (4, 0)
    return b"".join(
        [
            struct.pack("=BBhi", opcode, dst << shift_dst | src << shift_src, off, imm)
            for opcode, dst, src, off, imm in code
        ]
    )


def load(code: bytes) -> int:
    """Load a program and give its descriptor; OSError, EPERM without CAP_BPF and CAP_NET_ADMIN on the host."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license_name = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQII16s",
        BPF_PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_name),
        *(0, 0, 0),  # no log of the verifier
        *(0, 0),
        b"stockade_device",
    )
    fd, _ = calls.bpf(BPF_PROG_LOAD, attributes)  # the kernel makes it O_CLOEXEC
    return fd


def attach(group: int, program_fd: int) -> None:
    """Put a program on a group beside those that are there."""
    calls.bpf(BPF_PROG_ATTACH, struct.pack("=IIII", group, program_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI))


def query(group: int, flags: int = 0) -> tuple[int, ...]:
    """Give the kernel's numbers of the programs on a group, with BPF_F_QUERY_EFFECTIVE those of its ancestors too."""
    room = 64
    while True:
        numbers = (ctypes.c_uint32 * room)()
        attributes = struct.pack("=IIIIQI4x", group, BPF_CGROUP_DEVICE, flags, 0, ctypes.addressof(numbers), room)
        try:
            _, back = calls.bpf(BPF_PROG_QUERY, attributes)
        except OSError as error:
            if error.errno == 28 and room < 4096:  # ENOSPC
                room *= 8
                continue
            raise
        return tuple(numbers[: struct.unpack_from("=I", back, 24)[0]])


def effective(directory: str) -> tuple[int, ...]:
    """Give the programs in effect for a group by its directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return query(fd, BPF_F_QUERY_EFFECTIVE)
    finally:
        os.close(fd)


def open_program(number: int) -> int:
    """Open a loaded program by the kernel's number; OSError, EPERM without CAP_SYS_ADMIN on the host."""
    fd, _ = calls.bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
    return fd


def replace(group: int, program_fd: int) -> None:
    """Put a program on a group in place of those there, the new one first: for a moment both hold, never none."""
    before = query(group)
    attach(group, program_fd)
    for number in before:
        old = open_program(number)
        try:
            calls.bpf(BPF_PROG_DETACH, struct.pack("=IIII", group, old, BPF_CGROUP_DEVICE, 0))
        finally:
            os.close(old)
