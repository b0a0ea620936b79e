"""A seccomp section is judged as the program that the runtime makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from stockade.audit.facts import SeccompFilter, SeccompState
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
