"""Both compilers, and the verifier that stands over them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stockade.errors import StockadeError
from stockade.sandbox import (
    cache,
    filters,
    filters_libseccomp,
    filters_policy,
    filters_profile,
    filters_range,
    filters_verify,
)
from stockade.sandbox.linux import bpf, seccomp
from stockade.sandbox.oci.spec import LinuxSeccomp
from tests.seccomp import profiles

if TYPE_CHECKING:
    from stockade.sandbox.oci.spec import LinuxSyscall

X86_64 = 0xC000003E

# lseek(fd, offset, whence): offset below 5 or from 2**32 + 1 on. libseccomp 2.5.4 lets 5 and 6 through as well.
MISCOMPILED = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [
        {"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "op": "SCMP_CMP_LT", "value": 5}]},
        {
            "names": ["lseek"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 1, "op": "SCMP_CMP_GE", "value": 2**32 + 1}],
        },
    ],
}

arguments = st.lists(st.one_of(st.sampled_from(profiles.VALUES), st.integers(0, 2**64 - 1)), min_size=6, max_size=6)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def policy(config: LinuxSeccomp) -> filters_policy.Policy:
    return filters_policy.policy(config, "x86_64")


@quick
@given(profiles.configurations)
def test_the_range_compiler_is_right_for_every_profile(config: LinuxSeccomp) -> None:
    made = policy(config)

    assert filters_verify.verify(filters_range.compile_policy(made), made) > 700


@quick
@given(profiles.configurations, st.lists(arguments, min_size=20, max_size=20))
def test_the_range_compiler_is_right_for_arguments_of_any_kind(config: LinuxSeccomp, tried: list[list[int]]) -> None:
    """The verifier chooses its arguments; these it did not choose."""
    made = policy(config)
    program = filters_range.compile_policy(made)

    for table in made.tables:
        for nr in table.calls:
            for wide in tried:
                args = [value & (1 << table.bits) - 1 for value in wide]
                assert bpf.run(program, nr, table.audit, args) == made.decide(table.audit, nr, args)


@quick
@given(profiles.configurations, st.data())
def test_the_verifier_refuses_a_changed_program_unless_it_means_the_same(
    config: LinuxSeccomp, data: st.DataObject
) -> None:
    made = policy(config)
    program = list(filters_range.compile_policy(made))
    at = data.draw(st.integers(0, len(program) - 1))
    code, jt, jf, k = program[at]
    changes = [
        (code, jt, jf, k ^ 1 << data.draw(st.integers(0, 31))),
        (code, jf, jt, k),
        (code, jt, jf, k + 1 & 0xFFFFFFFF),
    ]
    program[at] = data.draw(st.sampled_from(changes))
    changed = tuple(program)
    drawn = data.draw(st.lists(arguments, max_size=8))
    different = bool(bpf.check(changed)) or any(
        bpf.run(changed, nr, table.audit, args) != made.decide(table.audit, nr, args)
        for table in made.tables
        for nr in (*table.calls, 0, 1, 9999, 0x40000000, 0xFFFFFFFF)
        for args in ([value & (1 << table.bits) - 1 for value in wide] for wide in drawn)
    )

    try:
        filters_verify.verify(changed, made)
    except filters_verify.Mismatch:
        return
    assert not different


def test_the_known_miscompilation_is_found_and_compiled_right_by_ranges() -> None:
    config = filters_profile.config(MISCOMPILED)
    made = policy(config)
    wrong = filters_libseccomp.compile_config(config, "x86_64")

    with pytest.raises(
        filters_verify.Mismatch, match=r"lseek \(x86_64\) with arguments .* by ALLOW; the profile says ERRNO"
    ):
        filters_verify.verify(wrong, made)
    right = filters_range.compile_policy(made)
    assert filters_verify.verify(right, made)
    for offset, answer in ((4, seccomp.RET_ALLOW), (5, seccomp.RET_ERRNO | 1), (2**32 + 1, seccomp.RET_ALLOW)):
        assert bpf.run(right, 8, X86_64, (0, offset, 0, 0, 0, 0)) == answer


def test_asking_for_libseccomp_gives_our_own_program_where_its_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "get", lambda _kind, _key: None)

    made = filters.compile_filter(MISCOMPILED, "x86_64", compiler="libseccomp")

    assert made.compiler == "range"
    assert "the profile says ERRNO EPERM" in made.note


@pytest.mark.parametrize("capabilities", [(), ("CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_SYS_PTRACE")])
def test_libseccomp_compiles_the_default_profile_of_one_architecture_right(capabilities: tuple[str, ...]) -> None:
    config = filters.default_profile(capabilities, "x86_64").replace(architectures=())

    program = filters_libseccomp.compile_config(config, "x86_64")

    assert filters_verify.verify(program, policy(config)) > 2000
    assert len(filters_range.compile_policy(policy(config))) < len(program) / 3


def test_libseccomp_opens_socketcall_along_with_socket_and_is_refused() -> None:
    """An i386 program could open any family through the multiplexer, whose arguments are in memory."""
    socket = {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}
    config = filters_profile.config(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [socket]}],
        }
    )

    with pytest.raises(filters_verify.Mismatch, match=r"socketcall \(i386\)"):
        filters_verify.verify(filters_libseccomp.compile_config(config, "x86_64"), policy(config))


@settings(max_examples=15, deadline=None)
@given(st.lists(profiles.entries(("ALLOW",), most_conditions=1), min_size=1, max_size=3))
def test_libseccomp_is_either_right_or_refused(entries: list[LinuxSyscall]) -> None:
    config = LinuxSeccomp(default_action="SCMP_ACT_ERRNO", syscalls=tuple(entries))
    made = policy(config)
    try:
        program = filters_libseccomp.compile_config(config, "x86_64", time_limit=3)
        filters_verify.verify(program, made)
    except StockadeError:
        return
    for offset in profiles.VALUES:
        assert bpf.run(program, 8, X86_64, (0, offset, 0, 0, 0, 0)) == made.decide(X86_64, 8, (0, offset, 0, 0, 0, 0))


def test_a_compilation_that_does_not_end_is_given_up() -> None:
    config = filters.default_profile((), "x86_64")
    started = time.monotonic()

    with pytest.raises(StockadeError, match=r"did not finish within 0\.001 seconds"):
        filters_libseccomp.compile_config(config, "x86_64", time_limit=0.001)

    assert time.monotonic() - started < 2


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64", "i386", "arm"])
def test_the_default_profile_is_compiled_and_verified_within_a_second_on_each_architecture(machine: str) -> None:
    config = filters.default_profile(("CAP_CHOWN",), machine)
    started = time.process_time()
    made = filters_policy.policy(config, machine)

    program = filters_range.compile_policy(made)
    tried = filters_verify.verify(program, made)

    assert time.process_time() - started < 1
    assert tried > 1500
    assert len(program) < 300


def test_a_filter_too_long_for_the_kernel_is_refused() -> None:
    rule = filters_policy.Rule(seccomp.RET_ALLOW, tuple((index, "EQ", 7, 0) for index in range(6)))
    calls = dict.fromkeys(range(0, 900, 2), (rule,))
    table = filters_policy.Table(X86_64, 64, calls, 0x50001, seccomp.RET_KILL_PROCESS)

    with pytest.raises(StockadeError, match="instructions, the kernel takes 4096"):
        filters_range.compile_policy(filters_policy.Policy((table,), seccomp.RET_KILL_PROCESS))


def test_far_jumps_lead_where_they_should() -> None:
    calls = {
        nr: tuple(
            filters_policy.Rule(seccomp.RET_ERRNO | nr, ((index, "GT", nr << 32, 0), (3, "NE", 5, 0)))
            for index in (0, 1)
        )
        for nr in range(1, 200, 2)
    }
    table = filters_policy.Table(X86_64, 64, calls, 0x50001, seccomp.RET_KILL_PROCESS)
    made = filters_policy.Policy((table,), seccomp.RET_KILL_PROCESS)

    program = filters_range.compile_policy(made)

    assert len(program) > 1000
    assert filters_verify.verify(program, made)
