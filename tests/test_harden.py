from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

import pytest

from stockade.errors import StockadeError
from stockade.sandbox.harden import harden
from stockade.sandbox.linux import process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Forked = Callable[[Callable[[], Any]], Any]


def test_set_user_id_gives_nothing_any_more(forked: Forked) -> None:
    assert forked(lambda: harden().no_new_privs) is True
    assert process.status("self").no_new_privs is False


def test_core_dumps_are_off_and_limits_are_set(forked: Forked) -> None:
    def child() -> list[tuple[int, int]]:
        harden(limits={"nofile": 64, "nproc": 5})
        return [
            resource.getrlimit(number)
            for number in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
        ]

    assert forked(child) == [(0, 0), (64, 64), (5, 5)]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"moon": 1}, "no such limit"),
        ({"NOFILE": 1}, "no such limit"),
        ({"nofile": 10**9}, "is what the process has"),
        ({"nofile": -1}, "is what the process has"),
    ],
)
def test_a_limit_that_is_unknown_or_higher_is_refused(limits: dict[str, int], reason: str, forked: Forked) -> None:
    def child() -> bool | None:
        with pytest.raises(StockadeError, match=reason):
            harden(limits=limits)
        return process.status("self").no_new_privs

    assert forked(child) is False


def test_descriptors_above_two_are_closed_but_for_the_kept(forked: Forked, tmp_path: Path) -> None:
    def child() -> tuple[bool, bool, list[int]]:
        secret = os.open(tmp_path, os.O_RDONLY)
        kept = os.dup2(secret, 100)
        others = [number for number in process.fds("self") if number > 2 and number not in (secret, kept)]
        # The pipe to the test is among the others: it has to live.
        harden(close_descriptors=True, keep_descriptors=[kept, 0, *others])
        found = process.fds("/proc/self".removeprefix("/proc/"))
        return secret in found, kept in found, sorted(number for number in (0, 1, 2) if number in found)

    assert forked(child) == (False, True, [0, 1, 2])


@pytest.mark.parametrize("name", ["CAP_MOON", "ALL", ""])
def test_an_unknown_capability_is_refused(name: str, forked: Forked) -> None:
    def child() -> bool | None:
        with pytest.raises(StockadeError, match="unknown capability"):
            harden(keep=[name])
        return process.status("self").no_new_privs

    assert forked(child) is False


def test_a_filter_without_no_new_privs_is_refused(forked: Forked) -> None:
    def child() -> bool:
        with pytest.raises(StockadeError, match="no_new_privs"):
            harden(keep=None, no_new_privs=False, seccomp=bytes.fromhex("060000000000ff7f"))
        return True

    assert forked(child)
