"""What the default profile answers, read out of its compiled program; tests/kernel/test_seccomp_default.py tries it."""

from __future__ import annotations

import errno
import functools
import json
from pathlib import Path

import pytest

from stockade.sandbox import filters, filters_policy, filters_profile, filters_range
from stockade.sandbox.linux import bpf, bpf_explore, capabilities, seccomp, syscalls

MACHINES = ("x86_64", "aarch64", "riscv64")
ALLOW = seccomp.RET_ALLOW
NONE: tuple[str, ...] = ()


@functools.cache
def program(held: tuple[str, ...], machine: str = "x86_64") -> bpf.Program:
    """Compile afresh: what lies in the user's cache may be older than the compiler."""
    return filters_range.compile_policy(filters_policy.policy(filters.default_profile(held, machine), machine))


def answer(name: str, *args: int, held: tuple[str, ...] = NONE, architecture: str = "x86_64") -> str:
    machine = {"i386": "x86_64", "x32": "x86_64", "arm": "aarch64"}.get(architecture, architecture)
    found = syscalls.architecture(architecture)
    assert found is not None
    number = syscalls.numbers(architecture)[name]
    result = bpf.run(program(held, machine), number, found.audit, (*args, *[0] * (6 - len(args))))
    return seccomp.describe(result)


NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
)  # fmt: skip
THREAD = 0x3D0F00  # what a C library passes for a thread


CLOSED = """
mount umount2 pivot_root move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick mount_setattr setns
sethostname setdomainname add_key request_key keyctl bpf perf_event_open userfaultfd io_uring_setup io_uring_enter
io_uring_register open_by_handle_at kexec_file_load init_module finit_module delete_module quotactl reboot acct swapon
swapoff settimeofday clock_settime chroot syslog vhangup kcmp pidfd_getfd
"""


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64", "arm", "riscv64"])
class TestEveryArchitecture:
    @pytest.mark.parametrize("flag", [NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET])
    def test_no_namespace_can_be_made(self, architecture: str, flag: int) -> None:
        for also in (0, 17, THREAD, NEWUSER):
            assert answer("clone", flag | also, architecture=architecture) == "ERRNO EPERM"
            assert answer("unshare", flag | also, architecture=architecture) == "ERRNO EPERM"

    def test_threads_and_processes_can_be_made(self, architecture: str) -> None:
        for flags in (17, THREAD, 0x4111):
            assert answer("clone", flags, architecture=architecture) == "ALLOW"
        assert answer("unshare", 0x600, architecture=architecture) == "ALLOW"

    def test_clone3_and_unknown_calls_do_not_exist(self, architecture: str) -> None:
        assert answer("clone3", architecture=architecture) == "ERRNO ENOSYS"
        machine = {"i386": "x86_64", "arm": "aarch64"}.get(architecture, architecture)
        found = syscalls.architecture(architecture)
        assert found is not None
        for number in (470, 600, 5000, 0xFFFFFFFF):
            assert bpf.run(program(NONE, machine), number, found.audit) == seccomp.RET_ERRNO | errno.ENOSYS

    def test_typing_into_the_terminal_is_refused_whatever_the_high_word_says(self, architecture: str) -> None:
        highs = (0,) if architecture in ("i386", "arm") else (0, 1, 2**31, 2**32 - 1)
        for high in highs:
            for command in (0x5412, 0x541C):
                assert answer("ioctl", 0, high << 32 | command, architecture=architecture) == "ERRNO EPERM"
            for bit in range(32):
                changed = 0x5412 ^ 1 << bit
                assert answer("ioctl", 0, high << 32 | changed, architecture=architecture) == "ALLOW"
            for command in range(0x5400, 0x5480):
                if command not in (0x5412, 0x541C):
                    assert answer("ioctl", 0, high << 32 | command, architecture=architecture) == "ALLOW"

    def test_only_four_families_of_sockets_are_open(self, architecture: str) -> None:
        found = [family for family in range(64) if answer("socket", family, architecture=architecture) == "ALLOW"]

        assert found == [1, 2, 10, 16]
        assert answer("socket", 38, architecture=architecture) == "ERRNO EAFNOSUPPORT"  # AF_ALG
        assert answer("socket", 40, architecture=architecture) == "ERRNO EAFNOSUPPORT"  # AF_VSOCK
        assert answer("socket", 17, architecture=architecture) == "ERRNO EPERM"  # AF_PACKET

    def test_the_machines_own_switches_are_closed(self, architecture: str) -> None:
        for name in CLOSED.split():
            if name in syscalls.numbers(architecture):
                assert answer(name, architecture=architecture) == "ERRNO EPERM", name

    def test_a_personality_is_one_of_the_known(self, architecture: str) -> None:
        for value in (0, 8, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF):
            assert answer("personality", value, architecture=architecture) == "ALLOW"
        for value in (0x400000, 0x40008, 1, 0x1000000):  # READ_IMPLIES_EXEC, …
            assert answer("personality", value, architecture=architecture) == "ERRNO ENOSYS"


def test_i386s_multiplexer_opens_no_socket() -> None:
    assert answer("socketcall", 1, architecture="i386") == "ERRNO EPERM"
    assert answer("socketcall", 3, architecture="i386") == "ALLOW"


def test_x32_and_foreign_architectures_are_killed() -> None:
    made = program(NONE)
    for nr in syscalls.names("x32"):
        assert bpf.run(made, nr, syscalls.X32.audit) == seccomp.RET_KILL_PROCESS
    for architecture in (syscalls.AARCH64, syscalls.RISCV64, syscalls.ARM):
        assert bpf_explore.explore(made, 0, architecture.audit).returns == {seccomp.RET_KILL_PROCESS}


@pytest.mark.parametrize(
    ("capability", "calls"),
    [
        (
            "CAP_SYS_ADMIN",
            "mount setns clone3 pivot_root io_uring_setup open_tree_attr fanotify_init quotactl",
        ),
        ("CAP_SYS_PTRACE", "kcmp pidfd_getfd userfaultfd"),
        ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_RAWIO", "iopl ioperm"),
        ("CAP_SYS_TIME", "settimeofday clock_settime clock_adjtime"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
        ("CAP_SYS_NICE", "mbind set_mempolicy move_pages"),
    ],
)
def test_a_capability_opens_its_calls_and_no_other_does(capability: str, calls: str) -> None:
    others = tuple(name for name in capabilities.NAMES if name not in (capability, "CAP_SYS_ADMIN"))
    for name in calls.split():
        assert answer(name, held=(capability,)) == "ALLOW", name
        assert answer(name, held=others) in ("ERRNO EPERM", "ERRNO ENOSYS"), name


def test_af_packet_takes_cap_net_raw_and_clone_with_namespaces_cap_sys_admin() -> None:
    assert answer("socket", 17, held=("CAP_NET_RAW",)) == "ALLOW"
    assert answer("clone", NEWUSER | NEWNET, held=("CAP_SYS_ADMIN",)) == "ALLOW"
    assert answer("socket", 38, held=capabilities.NAMES) == "ERRNO EAFNOSUPPORT"
    assert answer("keyctl", held=capabilities.NAMES) == "ERRNO EPERM"


@pytest.mark.parametrize("held", [NONE, ("CAP_SYS_ADMIN",), capabilities.NAMES])
def test_no_two_rules_of_a_call_overlap(held: tuple[str, ...]) -> None:
    """Where rules overlap runtimes differ (filters_policy); a printed configuration would mean another thing there."""
    made = filters_policy.policy(filters.default_profile(held), "x86_64")

    for table in made.tables:
        for nr, rules in table.calls.items():
            values = {0, 0xFFFFFFFF} | {
                other for rule in rules for _, _, value, other in rule.conditions for value in (value,)
            }
            values |= {value ^ 1 << bit for value in tuple(values) for bit in range(32)}
            for value in values:
                matching = {
                    rule.value
                    for rule in rules
                    if all(filters_policy.holds(each, (value,) * 6) for each in rule.conditions)
                }
                assert len(matching) <= 1, (syscalls.names("x86_64").get(nr), hex(value))


def test_every_name_in_the_profile_is_a_system_call() -> None:
    known = {name for architecture in syscalls.ALL for name in syscalls.numbers(architecture.name)}
    profile = json.loads(Path(filters.profile_path("default")).read_text())

    assert [name for call in profile["syscalls"] for name in call["names"] if name not in known] == []


def test_old_kernels_get_no_ptrace() -> None:
    """Before 4.8 a tracer could change a call after the filter had passed it."""
    for kernel, allowed in (((4, 7), False), ((4, 8), True), ((6, 18), True)):
        config = filters_profile.config(filters.resolve("default", (), "x86_64", kernel))
        decided = filters_policy.policy(config, "x86_64").decide(syscalls.X86_64.audit, 101, [0] * 6)
        assert (decided == ALLOW) is allowed


def test_resolving_a_plain_oci_object_changes_nothing() -> None:
    plain = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
        ],
    }

    assert filters.resolve(plain, ("CAP_CHOWN",)) == plain
