"""From OCI resources to the values in a group's files, on both versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.errors import StockadeError
from stockade.sandbox.cgroup_limits import Write, matches, weight_of_shares, writes
from stockade.sandbox.linux.cgroup_bpf import ACCESS, KINDS, program
from stockade.sandbox.linux.cgroup_devices import DEFAULTS, Device, Policy, parse, policy
from stockade.sandbox.oci.spec import (
    LinuxBlockIO,
    LinuxCPU,
    LinuxDeviceCgroup,
    LinuxHugepageLimit,
    LinuxMemory,
    LinuxPids,
    LinuxResources,
    LinuxThrottleDevice,
)


def files(resources: LinuxResources, version: int) -> dict[str, str]:
    return {write.file: write.value for write in writes(resources, lambda _: version)}


EVERYTHING = LinuxResources(
    memory=LinuxMemory(limit=1 << 20, swap=3 << 20, reservation=1 << 19),
    cpu=LinuxCPU(shares=1024, quota=50000, period=100000, burst=1000, cpus="0-1", mems="0"),
    pids=LinuxPids(10),
    block_io=LinuxBlockIO(weight=100, throttle_read_bps_device=(LinuxThrottleDevice(8, 0, 1000),)),
    hugepage_limits=(LinuxHugepageLimit("2MB", 0),),
)


def test_each_limit_goes_to_its_v1_file() -> None:
    assert files(EVERYTHING, 1) == {
        "memory.limit_in_bytes": "1048576",
        "memory.memsw.limit_in_bytes": "3145728",
        "memory.soft_limit_in_bytes": "524288",
        "cpu.shares": "1024",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "cpu.cfs_burst_us": "1000",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "pids.max": "10",
        "blkio.bfq.weight": "100",
        "blkio.throttle.read_bps_device": "8:0 1000",
        "hugetlb.2MB.limit_in_bytes": "0",
        "hugetlb.2MB.rsvd.limit_in_bytes": "0",
    }


def test_each_limit_goes_to_its_v2_file_and_swap_counts_alone_there() -> None:
    assert files(EVERYTHING, 2) == {
        "memory.max": "1048576",
        "memory.swap.max": "2097152",
        "memory.low": "524288",
        "cpu.weight": "100",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "1000",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "pids.max": "10",
        "io.bfq.weight": "100",
        "io.max": "8:0 rbps=1000",
        "hugetlb.2MB.max": "0",
        "hugetlb.2MB.rsvd.max": "0",
    }


@pytest.mark.parametrize(
    ("memory", "v1", "v2"),
    [
        (LinuxMemory(limit=4096), "8192", "4096"),  # Docker: twice the memory
        (LinuxMemory(limit=4096, swap=0), "8192", "4096"),
        (LinuxMemory(limit=4096, swap=4096), "4096", "0"),  # no swap
        (LinuxMemory(limit=4096, swap=-1), "-1", "max"),
    ],
)
def test_memory_swap_means_what_docker_means(memory: LinuxMemory, v1: str, v2: str) -> None:
    assert files(LinuxResources(memory=memory), 1)["memory.memsw.limit_in_bytes"] == v1
    assert files(LinuxResources(memory=memory), 2)["memory.swap.max"] == v2


@pytest.mark.parametrize(
    "resources",
    [
        LinuxResources(memory=LinuxMemory(swap=4096)),
        LinuxResources(memory=LinuxMemory(limit=4096, swap=4095)),
        LinuxResources(cpu=LinuxCPU(shares=1)),
        LinuxResources(cpu=LinuxCPU(cpus="0-")),
        LinuxResources(cpu=LinuxCPU(mems="all")),
        LinuxResources(hugepage_limits=(LinuxHugepageLimit("../x", 0),)),
        LinuxResources(unified={"../memory.max": "1"}),
        LinuxResources(unified={"memory": "1"}),
    ],
)
def test_values_that_contradict_each_other_or_leave_the_group_are_refused(resources: LinuxResources) -> None:
    with pytest.raises(StockadeError):
        writes(resources, lambda _: 2)


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 100), (262144, 10000), (1 << 40, 10000)])
def test_the_ends_and_defaults_of_shares_and_weight_meet(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


def test_more_shares_never_weigh_less() -> None:
    weights = [weight_of_shares(shares) for shares in range(2, 262144, 97)]
    assert weights == sorted(weights)
    assert min(weights) >= 1


@pytest.mark.parametrize(
    ("check", "value", "text", "held"),
    [
        ("bytes", "65541", "65536\n", True),
        ("bytes", "65541", "61440\n", False),
        ("bytes", "65541", "max\n", False),
        ("bytes", "65541", "9223372036854771712\n", False),
        ("bytes", "-1", "9223372036854771712\n", True),
        ("bytes", "max", "max\n", True),
        ("same", "100000 100000", "100000  100000\n", True),
        ("same", "10", "100\n", False),
        ("list", "0,1,2", "0-2\n", True),
        ("list", "0-2", "0-1\n", False),
        ("line", "8:0 1000", "8:16 5\n8:0 1000\n", True),
        ("line", "8:0 1000", "8:0 10000\n", False),
        ("pairs", "8:0 rbps=1", "8:0 rbps=1 wbps=max\n", True),
        ("pairs", "8:0 rbps=1", "8:0 rbps=max wbps=1\n", False),
        ("prefix", "50000", "50000 100000\n", True),
        ("prefix", "5000", "50000 100000\n", False),
        ("key", "1", "oom_kill_disable 1\nunder_oom 0\n", True),
        ("key", "1", "oom_kill_disable 0\nunder_oom 1\n", False),
    ],
)
def test_what_the_kernel_gives_back_is_compared_by_its_meaning(
    check: str, value: str, text: str, *, held: bool
) -> None:
    assert matches(Write("memory", "memory", "file", value, check), text) is held


def rule(allow: bool, text: str) -> LinuxDeviceCgroup:  # noqa: FBT001 - reads as a line of OCI's list
    kind, numbers, access = text.split()
    major, minor = (None if part == "*" else int(part) for part in numbers.split(":"))
    return LinuxDeviceCgroup(allow, kind, major, minor, access)


DENY_ALL = LinuxDeviceCgroup(allow=False, access="rwm")


def test_a_container_has_ocis_default_devices_whatever_its_rules_say() -> None:
    found = policy([DENY_ALL])

    assert found == Policy(False, DEFAULTS)
    assert found.permits("c", 1, 3, "rwm")
    assert found.permits("c", 136, 17)
    assert not found.permits("b", 8, 0, "r")
    assert not found.permits("c", 10, 229, "m")


def test_later_rules_win_over_earlier_ones() -> None:
    rules = [DENY_ALL, rule(True, "c 10:229 rwm"), rule(False, "c 10:* w"), rule(True, "b *:* m")]

    found = policy(rules, ())

    assert found == Policy(False, (Device("c", 10, 229, "rm"), Device("b", None, None, "m")))
    assert policy([*rules, LinuxDeviceCgroup(allow=True, type="a")], ()) == Policy(True)


def test_a_rule_that_takes_back_a_part_of_a_wildcard_is_refused_instead_of_ignored() -> None:
    with pytest.raises(ValueError, match="takes back a part"):
        policy([DENY_ALL, rule(True, "c *:* rw"), rule(False, "c 1:1 w")], ())


def test_a_rule_for_all_kinds_with_numbers_does_not_open_everything() -> None:
    found = policy([DENY_ALL, rule(True, "a 7:* rw")], ())
    assert found.permits("b", 7, 0)
    assert found.permits("c", 7, 0)
    assert not found.permits("b", 8, 0)


@pytest.mark.parametrize("bad", ["p 1:3 r", "c 1:3 x"])
def test_malformed_device_rules_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="device"):
        policy([rule(True, bad)])


def test_a_list_of_v1_is_read_back_as_the_policy_that_was_written() -> None:
    found = policy([DENY_ALL, rule(True, "b 8:* r")])
    assert parse("".join(f"{device}\n" for device in found.exceptions)) == found
    assert parse("a *:* rwm\n") == Policy(True)
    assert parse("") == Policy(False)


def run(code: tuple[tuple[int, int, int, int, int], ...], kind: str, major: int, minor: int, access: str) -> bool:
    """Interpret the few instructions that the compiler emits, as the kernel would."""
    context = {0: sum(ACCESS[letter] for letter in access) << 16 | KINDS[kind], 4: major, 8: minor}
    registers = [0] * 11
    at = 0
    while True:
        opcode, dst, src, off, imm = code[at]
        at += 1
        if opcode == 0x61:
            assert src == 1
            registers[dst] = context[off]
        elif opcode == 0xB4:
            registers[dst] = imm
        elif opcode == 0xBC:
            registers[dst] = registers[src]
        elif opcode == 0x54:
            registers[dst] &= imm
        elif opcode == 0x74:
            registers[dst] >>= imm
        elif opcode == 0x55:
            at += off if registers[dst] != imm else 0
        elif opcode == 0x15:
            at += off if registers[dst] == imm else 0
        else:
            assert opcode == 0x95
            return registers[0] == 1


NUMBERS = st.integers(0, 3)
ACCESSES = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(x for x in "rwm" if x in letters))
DEVICES = st.builds(Device, st.sampled_from("bc"), st.none() | NUMBERS, st.none() | NUMBERS, ACCESSES)
POLICIES = st.builds(Policy, st.booleans(), st.lists(DEVICES, max_size=5).map(tuple))


@given(POLICIES, st.sampled_from("bc"), NUMBERS, NUMBERS, ACCESSES)
def test_the_compiled_program_decides_as_the_policy_does(
    chosen: Policy, kind: str, major: int, minor: int, access: str
) -> None:
    assert run(program(chosen), kind, major, minor, access) == chosen.permits(kind, major, minor, access)
