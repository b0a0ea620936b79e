"""A seccomp section is judged as the program that the runtime makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from stockade.audit import seccomp_facts
from stockade.audit.facts import SeccompFilter, SeccompState, Where
from stockade.sandbox.linux import syscalls
from stockade.sandbox.runtime.seccomp import program
from tests.audit.static.oci_help import config, only


def judged(**section: Any) -> SeccompFilter:
    return only(config(linux__seccomp=section), SeccompFilter)


def call(action: str, *names: str, args: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", "args": args or []}


def test_without_a_section_there_is_no_filter() -> None:
    assert only(config(), SeccompState).mode == "disabled"
    assert config().one(SeccompFilter) is None


def test_a_list_of_what_is_allowed_denies_the_rest() -> None:
    found = judged(defaultAction="SCMP_ACT_ERRNO", syscalls=[call("ALLOW", "read", "write")])

    assert found.allowed == {"read", "write"}
    assert not found.conditional


def test_a_list_of_what_is_denied_allows_the_rest() -> None:
    found = judged(defaultAction="SCMP_ACT_ALLOW", syscalls=[call("ERRNO", "mount")])

    assert "mount" not in found.allowed
    assert {"bpf", "unshare"} <= found.allowed


def test_arguments_make_a_call_conditional() -> None:
    argument = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    found = judged(defaultAction="SCMP_ACT_ERRNO", syscalls=[call("ALLOW", "personality", args=argument)])

    assert (found.allowed, found.conditional) == (frozenset(), frozenset({"personality"}))


@pytest.mark.parametrize("action", ["NOTIFY", "TRACE"])
def test_a_call_that_another_process_judges_may_go_through(action: str) -> None:
    found = judged(defaultAction="SCMP_ACT_ERRNO", syscalls=[call(action, "mount")])

    assert "mount" in found.conditional
    assert found.notifies is (action == "NOTIFY")


def test_logged_calls_go_through() -> None:
    assert "mount" in judged(defaultAction="SCMP_ACT_LOG").allowed


_EQUAL = [{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}]
SECTIONS = [
    {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [call("ERRNO", "mount", "bpf"), call("ERRNO", "clone", args=_EQUAL)],
    },
    {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [call("ALLOW", "read"), call("ERRNO", "read", args=_EQUAL)]},
    {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [call("ERRNO", "read"), call("ALLOW", "read")]},
    {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "syscalls": [call("ERRNO", "setns"), call("ALLOW", "setns"), call("ALLOW", "reboot"), call("ERRNO", "reboot")],
    },
    {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call("ALLOW", "read"), call("LOG", "write"), call("TRACE", "bpf")]},
    {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [call("ALLOW", "ptrace", args=_EQUAL)] * 2},
]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_section_is_judged_as_its_compiled_program_is(section: dict[str, Any]) -> None:
    told = judged(**section)
    real = seccomp_facts.facts_of((program(section)[0],), Where("/proc/1"))
    known = set(syscalls.numbers("x86_64"))

    assert told.allowed & known == real.allowed
    assert told.conditional & known == real.conditional
    assert told.foreign == real.foreign == ()
