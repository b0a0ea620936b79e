"""The tables against the headers of this machine, and against the running kernel for newer calls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stockade.sandbox.linux import syscalls

HEADERS = next(Path("/usr/include").glob("*/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")).parent


def numbers_in(header: Path) -> dict[str, int]:
    found = {}
    for name, value in re.findall(r"#define __NR_(\w+)\s+(.+)", header.read_text()):
        digits = value.replace("__X32_SYSCALL_BIT", str(syscalls.X32_BIT)).strip("() ")
        found[name] = sum(int(part) for part in digits.split("+"))
    return found


@pytest.mark.parametrize(
    ("architecture", "header"), [("x86_64", "unistd_64.h"), ("i386", "unistd_32.h"), ("x32", "unistd_x32.h")]
)
def test_every_call_of_the_kernels_header_has_its_number(architecture: str, header: str) -> None:
    known = numbers_in(HEADERS / header)

    assert len(known) > 300
    assert {name: syscalls.numbers(architecture).get(name) for name in known} == known


def test_the_generic_table_agrees_with_its_header() -> None:
    text = Path("/usr/include/asm-generic/unistd.h").read_text()
    known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", text, re.MULTILINE)}
    only_32_bits = {
        name for name in known if name.endswith("time64") or (name.endswith("64") and int(known[name]) >= 403)
    }
    others = only_32_bits | {"arch_specific_syscall", "syscalls", "sync_file_range2"}  # 84 under its other name

    table = syscalls.numbers("aarch64")

    assert {name: table.get(name) for name in known if name not in others} == {
        name: number for name, number in known.items() if name not in others
    }


@pytest.mark.parametrize("architecture", syscalls.ALL)
def test_no_two_calls_share_a_number(architecture: syscalls.Architecture) -> None:
    table = syscalls.numbers(architecture.name)

    assert len(set(table.values())) == len(table)
    assert syscalls.names(architecture.name)[table["execve"]] == "execve"


def test_calls_newer_than_the_headers_are_known_everywhere() -> None:
    for architecture in ("x86_64", "i386", "aarch64", "arm", "riscv64"):
        table = syscalls.numbers(architecture)
        assert (table["mseal"], table["open_tree_attr"], table["file_setattr"]) == (462, 467, 469)
    assert syscalls.numbers("x86_64")["uretprobe"] == 335
    assert syscalls.numbers("x32")["ioctl"] == syscalls.X32_BIT | 514


def test_an_architecture_goes_by_the_names_of_uname_of_oci_and_of_go() -> None:
    found = {syscalls.architecture(name) for name in ("x86_64", "SCMP_ARCH_X86_64", "amd64")}

    assert found == {syscalls.X86_64}
    assert syscalls.architecture("vax") is None
