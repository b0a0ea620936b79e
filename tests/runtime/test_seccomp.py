"""The filter of a bundle: what it means beside libseccomp itself, and that a hit of the cache compiles nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyseccomp
import pytest
from hypothesis import HealthCheck, given, settings

from stockade.errors import UsageError
from stockade.sandbox import cache, filters_profile, filters_range, filters_verify
from stockade.sandbox.linux import bpf, seccomp, syscalls
from stockade.sandbox.oci import read
from stockade.sandbox.oci.spec import LinuxSeccomp
from stockade.sandbox.runtime.seccomp import policy, program
from tests.seccomp import profiles

PODMAN = Path("/usr/share/containers/seccomp.json")
X86_64, I386 = syscalls.X86_64.audit, syscalls.I386.audit
ALLOW, EPERM, ENOSYS = seccomp.RET_ALLOW, seccomp.RET_ERRNO | 1, seccomp.RET_ERRNO | 38
FEW = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT")
MANY = (*FEW, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_AUDIT_WRITE", "CAP_BPF", "CAP_SYS_TIME")
LSEEK = 8


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "directory", lambda: str(tmp_path / "cache"))


def podmans(held: tuple[str, ...]) -> dict[str, Any]:
    """Give the section that Podman writes for these capabilities: its profile, resolved."""
    return filters_profile.resolve(json.loads(PODMAN.read_text()), held, "x86_64")


def dockers(held: tuple[str, ...]) -> dict[str, Any]:
    """Give a section as Docker writes it: all that isn't named fails with EPERM."""
    return podmans(held) | {"defaultErrnoRet": 1}


def rule(action: str, *conditions: tuple[int, str, int], names: str = "lseek", **more: object) -> dict[str, Any]:
    args = [{"index": index, "op": "SCMP_CMP_" + op, "value": value} for index, op, value in conditions]
    return {"names": names.split(), "action": "SCMP_ACT_" + action, "args": args} | more


def section(*rules: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules)} | more


def compiled(config: dict[str, Any], arch: str = "x86_64") -> bpf.Program:
    return bpf.unpack(program(config, arch)[0])


def of_libseccomp(config: dict[str, Any]) -> bpf.Program:
    """Compile as runc does, rule by rule in libcontainer's order, without its stub for newer calls."""
    read_as = read.read(LinuxSeccomp, config, "section")
    default = value(read_as.default_action, read_as.default_errno_ret)
    made = pyseccomp.SyscallFilter(default)
    for name in read_as.architectures:
        short = name.removeprefix("SCMP_ARCH_")
        if short != "X86_64":
            made.add_arch(getattr(pyseccomp.Arch, short))
    for call in read_as.syscalls:
        action = value(call.action, call.errno_ret)
        conditions = [
            pyseccomp.Arg(each.index, getattr(pyseccomp, each.op.removeprefix("SCMP_CMP_")), each.value, each.value_two)
            for each in call.args
        ]
        for name in call.names:
            number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            if action == default or number == -1:
                continue
            one_each = len({each.index for each in call.args}) < len(call.args)
            for together in [[each] for each in conditions] if one_each else [conditions]:
                made.add_rule(action, number, *together)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return bpf.unpack(file.read())


def value(action: str, errno_ret: int | None) -> int:
    base = seccomp.ACTIONS[action]
    return base | (1 if errno_ret is None else errno_ret) if action in {"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"} else base


def tried(config: dict[str, Any]) -> list[tuple[int, ...]]:
    """Give arguments at and beside each value that the section compares with."""
    found: set[tuple[int, ...]] = {(0,) * 6}
    for call in config["syscalls"]:
        for arg in call.get("args") or ():
            for number in (arg["value"], arg.get("valueTwo", 0)):
                for near in (number - 1, number, number + 1, number | 1 << 32, ~number):
                    each = [0] * 6
                    each[arg["index"]] = near & (1 << 64) - 1
                    found.add(tuple(each))
                    other = [7] * 6
                    other[arg["index"]] = near & (1 << 64) - 1
                    found.add(tuple(other))
    return sorted(found)


def expected(config: dict[str, Any], theirs: bpf.Program, name: str, number: int, args: list[int]) -> int:
    """Give libseccomp's answer behind runc's stub, which gives ENOSYS to all that is newer than the profile."""
    table = syscalls.numbers(name)
    last = max(table.get(each, 0) for call in config["syscalls"] for each in call["names"])
    if number > last and config.get("defaultErrnoRet") != 38:
        return ENOSYS
    return bpf.run(theirs, number, I386 if name == "i386" else X86_64, args)


@pytest.mark.parametrize("held", [FEW, MANY])
@pytest.mark.parametrize("made", [podmans, dockers])
def test_an_engines_profile_decides_every_call_as_runc_does_with_libseccomp(made: Any, held: tuple[str, ...]) -> None:
    config = made(held)
    ours, theirs = compiled(config), of_libseccomp(config)
    arguments = tried(config)
    conditional = {name for entry in config["syscalls"] if entry.get("args") for name in entry["names"]}
    differing = {}
    count = 0

    for audit, name in ((X86_64, "x86_64"), (X86_64, "x32"), (I386, "i386")):
        for number, call in sorted(syscalls.names(name).items()):
            for wide in arguments if call in conditional else arguments[::20]:
                # libseccomp doesn't look at the high half of an x32 call's arguments; we do
                args = list(wide) if name == "x86_64" else [each & 0xFFFFFFFF for each in wide]
                got, want = bpf.run(ours, number, audit, args), expected(config, theirs, name, number, args)
                count += 1
                if got != want:
                    differing[name, call] = (args, seccomp.describe(got), seccomp.describe(want))

    assert differing == {}
    assert count > 2_500


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(profiles.configurations)
def test_every_section_is_compiled_to_what_it_means(config: LinuxSeccomp) -> None:
    meant = policy(config, "x86_64")

    assert filters_verify.verify(filters_range.compile_policy(meant), meant) > 700


@pytest.mark.parametrize(
    ("rules", "answers"),
    [
        # of several rules without conditions the first one counts
        ((rule("ALLOW"), rule("ERRNO", errnoRet=5)), {0: "ALLOW"}),
        ((rule("ERRNO", errnoRet=5), rule("ALLOW")), {0: "ERRNO EIO"}),
        # one without conditions takes the place of those with, whatever stands first
        ((rule("ERRNO", (1, "EQ", 3), errnoRet=5), rule("ALLOW")), {0: "ALLOW", 3: "ALLOW"}),
        ((rule("ALLOW"), rule("ERRNO", (1, "EQ", 3), errnoRet=5)), {0: "ALLOW", 3: "ALLOW"}),
        # a rule that says what the default says is none
        ((rule("ERRNO"), rule("ALLOW", (1, "EQ", 3))), {0: "ERRNO EPERM", 3: "ALLOW"}),
        ((rule("ERRNO", (1, "EQ", 3)), rule("ALLOW")), {0: "ALLOW", 3: "ALLOW"}),
        # of several with conditions the most restrictive one counts
        ((rule("ALLOW", (1, "GE", 3)), rule("ERRNO", (1, "EQ", 3), errnoRet=5)), {3: "ERRNO EIO", 4: "ALLOW"}),
        ((rule("ERRNO", (1, "EQ", 3), errnoRet=5), rule("ALLOW", (1, "GE", 3))), {3: "ERRNO EIO", 4: "ALLOW"}),
        # two conditions on one argument are two rules, runc's matchCall
        ((rule("ALLOW", (1, "EQ", 3), (1, "EQ", 5)),), {3: "ALLOW", 4: "ERRNO EPERM", 5: "ALLOW"}),
        ((rule("ALLOW", (1, "EQ", 3), (2, "EQ", 0)),), {3: "ALLOW", 4: "ERRNO EPERM"}),
        ((rule("TRACE", errnoRet=7),), {0: "TRACE 7"}),
        ((rule("TRACE"),), {0: "TRACE 1"}),
        ((rule("KILL"),), {0: "KILL_THREAD"}),
        ((rule("KILL_PROCESS"),), {0: "KILL_PROCESS"}),
        ((rule("LOG"),), {0: "LOG"}),
        ((rule("TRAP"),), {0: "TRAP"}),
    ],
)
def test_rules_on_one_call_are_settled_as_libseccomp_settles_them(
    rules: tuple[dict[str, Any], ...], answers: dict[int, str]
) -> None:
    config = section(*rules)
    ours, theirs = compiled(config), of_libseccomp(config)

    for offset, answer in answers.items():
        args = (0, offset, 0, 0, 0, 0)
        assert seccomp.describe(bpf.run(ours, LSEEK, X86_64, args)) in {answer, answer.replace("KILL_THREAD", "KILL")}
        assert bpf.run(ours, LSEEK, X86_64, args) == bpf.run(theirs, LSEEK, X86_64, args)


def test_names_that_no_architecture_has_are_ignored() -> None:
    assert compiled(section(rule("ALLOW", names="lseek no_such_call"))) == compiled(section(rule("ALLOW")))


def test_calls_newer_than_the_profile_fail_with_enosys_on_each_architecture_by_itself() -> None:
    config = section(
        rule("ALLOW", names="read openat2"), architectures=[f"SCMP_ARCH_{name}" for name in ("X86_64", "X86", "X32")]
    )
    made = compiled(config)

    for audit, last in ((X86_64, 437), (I386, 437), (X86_64, syscalls.X32_BIT | 437)):
        assert bpf.run(made, last, audit) == ALLOW
        assert bpf.run(made, last - 1, audit) == EPERM
        assert bpf.run(made, last + 1, audit) == ENOSYS
        assert bpf.run(made, last + 1000, audit) == ENOSYS
    assert bpf.run(made, 0xFFFFFFFF, X86_64) == EPERM  # a tracer's -1: no call is made


def test_a_number_of_x32_is_not_taken_for_a_new_one() -> None:
    made = compiled(section(rule("ALLOW", names="write"), architectures=["SCMP_ARCH_X86_64"]))

    assert bpf.run(made, 2, X86_64) == ENOSYS
    assert bpf.run(made, syscalls.X32_BIT, X86_64) == seccomp.RET_KILL_PROCESS


@pytest.mark.parametrize(
    "more",
    [
        {"defaultErrnoRet": 38},
        {"defaultAction": "SCMP_ACT_ALLOW"},
        {"defaultAction": "SCMP_ACT_LOG"},
        {"defaultAction": "SCMP_ACT_TRACE"},
    ],
)
def test_a_default_that_is_lenient_or_enosys_answers_new_calls_itself(more: dict[str, Any]) -> None:
    config = section(rule("KILL", names="read"), architectures=["SCMP_ARCH_X86_64"], **more)
    made = compiled(config)

    assert bpf.run(made, 400, X86_64) == value(config["defaultAction"], config.get("defaultErrnoRet"))


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (None, ("SPEC_ALLOW",)),
        ([], ()),
        (["LOG"], ("LOG",)),
        (["LOG", "SPEC_ALLOW"], ("LOG", "SPEC_ALLOW")),
        (["TSYNC"], ()),
        (["WAIT_KILLABLE_RECV"], ()),  # there is nobody to wait for
    ],
)
def test_absent_flags_have_runcs_default_and_an_empty_list_has_none(
    flags: list[str] | None, wanted: tuple[str, ...]
) -> None:
    config = section(rule("ALLOW"))
    if flags is not None:
        config["flags"] = [f"SECCOMP_FILTER_FLAG_{name}" for name in flags]

    assert program(config)[1] == sum(seccomp.FLAGS[f"SECCOMP_FILTER_FLAG_{name}"] for name in wanted)


def test_a_call_that_is_notified_needs_a_listener_and_keeps_its_flag() -> None:
    config = section(
        rule("NOTIFY", names="mkdir"), listenerPath="/agent", flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    )

    made, flags, listener = program(config)

    assert (flags, listener) == (1 << 5, True)
    assert bpf.run(bpf.unpack(made), 83, X86_64) == seccomp.RET_USER_NOTIF
    assert program(config) == (made, flags, listener)
    assert program(section(rule("ALLOW")))[2] is False


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config.json: $.linux.seccomp.defaultAction: missing"),
        ([], "config.json: $.linux.seccomp: expected an object, not an array"),
        (section(rule("ALLOW", (6, "EQ", 1))), "config.json: $.linux.seccomp.syscalls[0].args[0].index: expected"),
        (section(defaultAction="SCMP_ACT_NOTIFY"), "config.json: $.linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would"),
        (
            section(rule("NOTIFY", names="mkdir")),
            "config.json: $.linux.seccomp.listenerPath: missing, syscalls[0] has SCMP_ACT_NOTIFY",
        ),
        (
            section(rule("NOTIFY", names="read write"), listenerPath="/agent"),
            "config.json: $.linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY on write would stop",
        ),
    ],
)
def test_a_section_that_cannot_be_enforced_is_refused_with_its_path(config: Any, message: str) -> None:
    for _ in range(2):  # nothing of it is kept either
        with pytest.raises(UsageError) as error:
            program(config)
        assert error.value.message.startswith(message)


def test_a_record_and_its_json_mean_the_same() -> None:
    config = podmans(FEW)

    assert program(read.read(LinuxSeccomp, config, "section")) == program(config)


def test_any_change_of_the_section_or_the_machine_is_another_program() -> None:
    config = section(rule("ALLOW"), rule("ALLOW", names="read"))
    made = {program(config)[0], program(config, "aarch64")[0]}
    changed = section(rule("ALLOW"), rule("ALLOW", names="write"))

    made.add(program(changed)[0])

    assert len(made) == 3


def test_a_hit_imports_no_compiler_and_takes_less_than_a_millisecond(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
sys.path = {sys.path}
from stockade.sandbox import cache
cache.directory = lambda: {str(tmp_path / "cache")!r}
from stockade.sandbox.runtime import seccomp
section = {podmans(FEW)!r}
seccomp.program(section)
best = 1.0
for _ in range(20):
    started = time.perf_counter()
    seccomp.program(section)
    best = min(best, time.perf_counter() - started)
print(best, *sys.modules)
"""
    command = [sys.executable, "-I", "-S", "-c", script]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # compiles
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    best, *loaded = done.stdout.split()

    assert float(best) < 0.001
    assert "stockade.sandbox.filters" in loaded
    heavy = {"json", "re", "functools", "typing", "stockade.sandbox.filters_range", "stockade.sandbox.filters_policy"}
    assert heavy & set(loaded) == set()
    assert "stockade.sandbox.linux.syscalls_tables" not in loaded


def test_a_miss_takes_a_second_at_most() -> None:
    started = time.process_time()

    program(dockers(MANY))

    assert time.process_time() - started < 1
