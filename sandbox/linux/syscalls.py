"""The architectures that a filter can tell apart, and the numbers of their system calls; syscalls(2), seccomp(2)."""

from __future__ import annotations

from stockade.sandbox.linux.record import Record

#: bit 30 of a number marks a call of the x32 ABI, which otherwise looks like x86-64 to a filter; seccomp(2), "x32"
X32_BIT = 0x40000000


class Architecture(Record):
    """A calling convention: `name` as uname(2) has it, `oci` as config.json has it, `audit` as a filter sees it.

    `bits` is the width of an argument as seccomp_data shows it: those of a 32-bit call have a high half of zero. x32
    has 64-bit registers and shows them whole.
    """

    name: str
    oci: str
    audit: int
    bits: int = 64


# include/uapi/linux/audit.h: the ELF machine number, bit 31 for 64 bits and bit 30 for little endian
X86_64 = Architecture("x86_64", "SCMP_ARCH_X86_64", 0xC000003E)
X32 = Architecture("x32", "SCMP_ARCH_X32", 0xC000003E)
I386 = Architecture("i386", "SCMP_ARCH_X86", 0x40000003, 32)
AARCH64 = Architecture("aarch64", "SCMP_ARCH_AARCH64", 0xC00000B7)
ARM = Architecture("arm", "SCMP_ARCH_ARM", 0x40000028, 32)
RISCV64 = Architecture("riscv64", "SCMP_ARCH_RISCV64", 0xC00000F3)

#: every architecture whose numbers are known here
ALL = (X86_64, I386, X32, AARCH64, ARM, RISCV64)

#: the conventions that a kernel of this machine may accept, its own first
ACCEPTED = {
    "x86_64": (X86_64, I386, X32),
    "i386": (I386,),
    "aarch64": (AARCH64, ARM),
    "arm": (ARM,),
    "riscv64": (RISCV64,),
}

#: other names of the same machines: Go's, Debian's, and uname(2)'s finer ones
ALIASES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "i486": "i386",
    "i586": "i386",
    "i686": "i386",
}

_numbers: dict[str, dict[str, int]] = {}
_names: dict[str, dict[int, str]] = {}


def architecture(name: str) -> Architecture | None:
    """Give the architecture of a uname(2) machine, an OCI name or a Go name, or None: x86_64, SCMP_ARCH_X86, arm64."""
    name = ALIASES.get(name, name)
    for each in ALL:
        if name in (each.name, each.oci):
            return each
    return None


def numbers(name: str) -> dict[str, int]:
    """Give name → number for the architecture of this uname(2) name. Raises KeyError for one that is unknown here."""
    table = _numbers.get(name)
    if table is None:
        table = _numbers[name] = _table(name)
    return table


def names(name: str) -> dict[int, str]:
    """Give number → name, as `numbers` does the other way round."""
    table = _names.get(name)
    if table is None:
        table = _names[name] = {number: call for call, number in numbers(name).items()}
    return table


def _table(name: str) -> dict[str, int]:
    from stockade.sandbox.linux import syscalls_tables as tables

    if name == "x32":
        gone = set(tables.X32_WITHOUT.split())
        shared = {call: number for call, number in numbers("x86_64").items() if call not in gone}
        return {call: X32_BIT | number for call, number in (shared | _parse(tables.X32_OWN)).items()}
    own = {
        "x86_64": (tables.X86_64,),
        "i386": (tables.I386,),
        "arm": (tables.ARM,),
        "aarch64": (tables.GENERIC, tables.AARCH64_OWN),
        "riscv64": (tables.GENERIC, tables.RISCV64_OWN),
    }[name]
    return {call: number for text in (*own, tables.COMMON) for call, number in _parse(text).items()}


def _parse(text: str) -> dict[str, int]:
    table = {}
    number = 0
    for token in text.split():
        if token.isdigit():
            number = int(token)
        else:
            table[token] = number
            number += 1
    return table
