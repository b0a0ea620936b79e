from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.sandbox.linux import capabilities
from stockade.sandbox.linux.capabilities import Sets

masks = st.integers(0, (1 << 64) - 1)


def test_the_names_are_those_of_the_kernels_header() -> None:
    header = Path("/usr/include/linux/capability.h").read_text()
    defined = {
        int(number): name for name, number in re.findall(r"^#define\s+(CAP_[A-Z_]+)\s+(\d+)$", header, re.MULTILINE)
    }

    assert dict(enumerate(capabilities.NAMES)) == defined


def test_the_names_reach_up_to_the_last_capability_of_this_kernel() -> None:
    assert capabilities.last_cap() < len(capabilities.NAMES)
    assert capabilities.supported() & ~capabilities.ALL == 0


@pytest.mark.parametrize("spelling", ["CAP_SYS_ADMIN", "SYS_ADMIN", "sys_admin", "cap_sys_admin", "Cap_Sys_Admin"])
def test_a_capability_has_one_number_in_every_spelling(spelling: str) -> None:
    assert capabilities.number(spelling) == 21


@pytest.mark.parametrize(
    "spelling", ["", "CAP_", "ALL", "CAP_CAP_CHOWN", "CAP_41", "21", "CAP_SYS_ADMIN ", "\u017fetuid"]
)
def test_an_unknown_name_is_refused(spelling: str) -> None:
    with pytest.raises(ValueError, match="unknown capability"):
        capabilities.number(spelling)


@given(masks)
def test_a_mask_of_known_capabilities_survives_its_names(mask: int) -> None:
    assert capabilities.mask(capabilities.names(mask & capabilities.ALL)) == mask & capabilities.ALL


def test_a_capability_newer_than_the_table_is_shown_by_its_number() -> None:
    assert capabilities.names(1 << 41 | 1) == ("CAP_CHOWN", "CAP_41")


@given(st.builds(Sets, masks, masks, masks, masks, masks))
def test_the_sets_survive_the_kernels_way_of_printing_them(sets: Sets) -> None:
    status = (
        f"Name:\tx\nUid:\t0\t0\t0\t0\nCapInh:\t{sets.inheritable:016x}\nCapPrm:\t{sets.permitted:016x}\n"
        f"CapEff:\t{sets.effective:016x}\nCapBnd:\t{sets.bounding:016x}\nCapAmb:\t{sets.ambient:016x}\nNoNewPrivs:\t0\n"
    )

    assert capabilities.parse(status) == sets


def test_a_status_without_sets_is_no_empty_set() -> None:
    with pytest.raises(ValueError, match="CapBnd"):
        capabilities.parse("Name:\tx\nState:\tR (running)\n")


def test_a_process_cannot_forge_its_sets_by_its_name() -> None:
    program = (
        "import ctypes\n"
        "ctypes.CDLL(None).prctl(15, b'x\\nCapEff:\\t0', 0, 0, 0)\n"
        "from stockade.sandbox.linux import capabilities, process\n"
        "print(capabilities.own().effective, repr(process.status('self').name))\n"
    )

    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert told == f"{capabilities.own().effective} 'x\\nCapEff:\\t0'\n"


def test_the_sets_of_a_process_that_has_gone_are_a_lookup_error() -> None:
    with pytest.raises(ProcessLookupError):
        capabilities.of(0x7FFFFFF0)


@pytest.mark.parametrize("module", ["capabilities", "idmap", "process", "mountinfo", "namespaces", "paths", "procfs"])
def test_reading_the_kernel_imports_nothing_slow(module: str) -> None:
    slow = {"typing", "dataclasses", "json", "re", "enum", "pathlib", "socket", "subprocess", "ctypes", "threading"}
    program = f"import sys, stockade.sandbox.linux.{module}; print(*sys.modules)"
    root = Path(__file__).parents[2]

    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert not slow.intersection(loaded)
