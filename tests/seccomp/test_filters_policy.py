"""What a configuration means, where the specification leaves it open."""

from __future__ import annotations

import pytest

from stockade.errors import UsageError
from stockade.sandbox import filters_policy, filters_profile
from stockade.sandbox.linux import seccomp, syscalls

X86_64, I386 = syscalls.X86_64.audit, syscalls.I386.audit
ALLOW, EPERM = seccomp.RET_ALLOW, seccomp.RET_ERRNO | 1


def policy(*entries: dict[str, object], default: str = "ERRNO", **more: object) -> filters_policy.Policy:
    config = {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(entries), **more}
    return filters_policy.policy(filters_profile.config(config), "x86_64")


def entry(
    action: str, *args: tuple[int, str, int] | tuple[int, str, int, int], name: str = "lseek"
) -> dict[str, object]:
    conditions = [
        {"index": each[0], "op": f"SCMP_CMP_{each[1]}", "value": each[2], "valueTwo": each[3] if len(each) > 3 else 0}
        for each in args
    ]
    return {"names": [name], "action": f"SCMP_ACT_{action}", "args": conditions}


def lseek(made: filters_policy.Policy, *args: int) -> int:
    return made.decide(X86_64, 8, (*args, *[0] * (6 - len(args))))


@pytest.mark.parametrize(
    ("operator", "matching", "failing"),
    [
        ("EQ", [2**32], [0, 1, 2**32 - 1, 2**33]),
        ("NE", [0, 2**33], [2**32]),
        ("LT", [0, 2**32 - 1], [2**32, 2**64 - 1]),
        ("LE", [2**32], [2**32 + 1]),
        ("GT", [2**32 + 1, 2**63], [2**32, 5]),
        ("GE", [2**32, 2**64 - 1], [2**32 - 1]),
    ],
)
def test_comparisons_are_of_64_bits_without_sign(operator: str, matching: list[int], failing: list[int]) -> None:
    made = policy(entry("ALLOW", (1, operator, 2**32)))

    assert [lseek(made, 0, value) for value in matching] == [ALLOW] * len(matching)
    assert [lseek(made, 0, value) for value in failing] == [EPERM] * len(failing)


def test_a_masked_comparison_masks_both_sides() -> None:
    made = policy(entry("ALLOW", (0, "MASKED_EQ", 0xFF, 0x1234)))

    assert lseek(made, 0xAB34) == ALLOW
    assert lseek(made, 0x35) == EPERM


def test_all_conditions_of_an_entry_must_hold_and_any_entry_may() -> None:
    made = policy(entry("ALLOW", (0, "EQ", 1), (1, "EQ", 2)), entry("ALLOW", (2, "EQ", 3)))

    assert (lseek(made, 1, 2), lseek(made, 9, 9, 3)) == (ALLOW, ALLOW)
    assert (lseek(made, 1, 9), lseek(made, 9, 2)) == (EPERM, EPERM)


def test_two_conditions_on_one_argument_are_alternatives_as_in_runc() -> None:
    made = policy(entry("ALLOW", (0, "EQ", 1), (0, "EQ", 2), (1, "EQ", 7)))

    assert [lseek(made, *args) for args in ((1, 0), (2, 0), (0, 7))] == [ALLOW] * 3
    assert lseek(made, 3, 0) == EPERM


@pytest.mark.parametrize("order", ["as written", "reversed"])
def test_the_most_restrictive_of_the_matching_rules_wins_in_any_order(order: str) -> None:
    entries = [entry("ALLOW"), entry("KILL_PROCESS", (0, "EQ", 1)), entry("LOG", (0, "GE", 1))]
    made = policy(*(reversed(entries) if order == "reversed" else entries))

    assert lseek(made, 0) == ALLOW
    assert lseek(made, 1) == seccomp.RET_KILL_PROCESS
    assert lseek(made, 2) == seccomp.RET_LOG


def test_of_two_errors_the_first_entry_counts() -> None:
    made = policy({**entry("ERRNO", (0, "GE", 1)), "errnoRet": 5}, {**entry("ERRNO"), "errnoRet": 7}, default="ALLOW")

    assert (lseek(made, 1), lseek(made, 0)) == (seccomp.RET_ERRNO | 5, seccomp.RET_ERRNO | 7)


def test_errnos_and_defaults() -> None:
    made = policy({**entry("TRACE"), "errnoRet": 9}, {**entry("ERRNO", name="read")}, defaultErrnoRet=38)

    assert lseek(made) == seccomp.RET_TRACE | 9
    assert made.decide(X86_64, 0, [0] * 6) == EPERM
    assert made.decide(X86_64, 9999, [0] * 6) == seccomp.RET_ERRNO | 38


def test_the_machines_own_architecture_is_always_in_and_others_are_killed() -> None:
    alone = policy(entry("ALLOW"), architectures=["SCMP_ARCH_AARCH64"])
    both = policy(entry("ALLOW"), architectures=["SCMP_ARCH_X86"])

    assert lseek(alone) == ALLOW
    assert alone.decide(I386, 19, [0] * 6) == seccomp.RET_KILL_PROCESS
    assert both.decide(I386, 19, [0] * 6) == ALLOW


def test_x32_is_an_architecture_of_its_own_and_minus_one_is_not_x32() -> None:
    without, listed = policy(entry("ALLOW")), policy(entry("ALLOW"), architectures=["SCMP_ARCH_X32"])
    number = syscalls.X32_BIT | 8

    assert without.decide(X86_64, number, [0] * 6) == seccomp.RET_KILL_PROCESS
    assert listed.decide(X86_64, number, [0] * 6) == ALLOW
    assert without.decide(X86_64, 0xFFFFFFFF, [0] * 6) == EPERM


def test_names_that_an_architecture_lacks_are_skipped() -> None:
    made = policy(
        entry("ALLOW", name="socketcall"), entry("ALLOW", name="no_such_call"), architectures=["SCMP_ARCH_X86"]
    )

    assert made.decide(I386, 102, [0] * 6) == ALLOW
    assert made.decide(X86_64, 102, [0] * 6) == EPERM


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "defaultAction: unknown action 'SCMP_ACT_MAYBE'"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}, "errnoRet 4096 is out of range"),
        ({"defaultAction": 1}, r"\$\.defaultAction: expected a string"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["FAST"]}, "unknown flag 'FAST'"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, r"\$\.syscalls: expected an array"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry("ALLOW", (6, "EQ", 0))]}, r"syscalls\[0\]\.args\[0\]"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry("ALLOW", (0, "EQ", -1))]}, "64 bits without sign"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry("ALLOW", (0, "IS", 0))]}, "unknown operator"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "read", "action": "SCMP_ACT_LOG"}]}, "names"),
    ],
)
def test_a_wrong_configuration_is_refused_and_the_place_named(config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        filters_policy.policy(filters_profile.config(config), "x86_64")


def test_a_machine_without_a_table_is_refused() -> None:
    with pytest.raises(UsageError, match="no system call table for the architecture 'vax'"):
        filters_policy.policy(filters_profile.config({"defaultAction": "SCMP_ACT_ALLOW"}), "vax")
