"""The other processes of a container are looked at once in an audit, and none is taken for another's."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from stockade.audit import facts
from stockade.audit.probe import Prober
from stockade.audit.targets import descriptors, members, snapshot
from stockade.audit.targets import host as hosts
from stockade.audit.targets.discovery import Group
from stockade.audit.targets.process import Collector
from stockade.audit.targets.shared import Cache, Options
from stockade.sandbox.linux import procfs, statx

if TYPE_CHECKING:
    from collections.abc import Generator

    from stockade.audit.facts import Target
    from stockade.audit.targets.host import HostView
    from stockade.audit.targets.snapshot import Entry


@contextmanager
def waiting(count: int) -> Generator[tuple[Entry, ...]]:
    """Fork processes that wait to be killed, with every descriptor that is open here."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        pids.append(pid)
    try:
        yield tuple([entry for pid in pids if (entry := snapshot.look(pid))])
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture(scope="module")
def host() -> HostView:
    return hosts.probe()


def audited(entries: tuple[Entry, ...], host: HostView, cache: Cache) -> list[Target]:
    """Audit each of the processes as `pid:N` does: each stands first in turn, with all others behind it."""
    found = []
    with Prober(()) as prober:
        for entry in entries:
            rest = [other for other in entries if other is not entry]
            group = Group(f"pid:{entry.pid}", f"pid {entry.pid}", "container", (entry, *rest))
            collector = Collector(group, host, cache, Options(probe=False), prober)
            collector.begin()
            found.append(collector.finish())
            collector.close()
    return found


def _count(patch: pytest.MonkeyPatch, seen: Counter[str]) -> None:
    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(path: Any, *rest: Any, **named: Any) -> Any:
            seen[str(path)] += 1
            return real(path, *rest, **named)

        patch.setattr(module, name, call)

    for name in ("open", "listdir", "readlink"):
        counted(os, name)
    counted(statx, "of")


def most_reads(count: int, host: HostView) -> dict[str, int]:
    """Give, by file below /proc/PID, how often it was read of the process of which it was read most."""
    with waiting(count) as entries, pytest.MonkeyPatch.context() as patch:
        seen: Counter[str] = Counter()
        _count(patch, seen)
        audited(entries, host, Cache())
        patch.undo()
        most: dict[str, int] = {}
        for entry in entries:
            own = f"/proc/{entry.pid}/"
            for path, times in seen.items():
                if path.startswith(own):
                    name = path.removeprefix(own)
                    most[name] = max(times, most.get(name, 0))
    return most


def test_a_process_is_read_as_often_among_nine_as_among_three(host: HostView) -> None:
    few, many = most_reads(3, host), most_reads(9, host)

    assert many == few
    assert few["status"] == 2  # once as the first, once as one of the others
    assert few["fd"] == 2
    assert few["exe"] >= 2


def test_every_target_tells_of_all_the_others(host: HostView) -> None:
    with waiting(4) as entries:
        targets = audited(entries, host, Cache())

    for entry, target in zip(entries, targets, strict=True):
        others = {each.pid for each in entries} - {entry.pid}
        assert {each.pid for each in target.all(facts.Process)} == others
        assert {each.pid for each in target.all(facts.Executable)} == others | {entry.pid}


def test_a_process_is_looked_at_again_for_a_container_that_stands_elsewhere(host: HostView) -> None:
    cache = Cache()
    text = procfs.read_text("self", "mountinfo")
    directory = os.open("/", os.O_RDONLY)
    with waiting(1) as (entry,):
        os.close(directory)
        here = cache.place(text, entry.inodes)
        # a container without any of these mounts, whose mount namespace the process does live in
        elsewhere = cache.place("", entry.inodes)
        inside = cache.member(entry, here, host)
        outside = cache.member(entry, elsewhere, host)
        again = cache.member(entry, cache.place(text, dict(entry.inodes)), host)

    def leaks(member: members.Member) -> set[bool | None]:
        return {
            fact.outside
            for fact in member.facts
            if isinstance(fact, facts.OpenDescriptor) and fact.fd == directory and fact.kind == "directory"
        }

    assert leaks(inside) == {False}
    assert leaks(outside) == {True}
    assert again is inside


def test_a_pid_that_is_another_processs_by_now_tells_nothing(host: HostView) -> None:
    cache = Cache()
    with waiting(1) as (entry,):
        place = cache.place(procfs.read_text("self", "mountinfo"), entry.inodes)
        before = replace(entry, start=entry.start - 1)

        assert cache.member(before, place, host) == members.Member()
        assert cache.member(entry, place, host).facts


def test_a_process_that_ended_tells_nothing(host: HostView) -> None:
    cache = Cache()
    with waiting(1) as (entry,):
        place = cache.place(procfs.read_text("self", "mountinfo"), entry.inodes)

    assert cache.member(entry, place, host) == members.Member()


def test_a_refused_process_is_a_gap_of_every_target_that_it_belongs_to(
    host: HostView, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = descriptors.look

    with waiting(3) as entries:

        def look(pid: int, *rest: Any) -> Any:
            if pid == entries[2].pid:
                raise PermissionError(13, "Permission denied")
            return real(pid, *rest)

        monkeypatch.setattr(descriptors, "look", look)
        targets = audited(entries, host, Cache())

    for target in targets[:2]:
        assert not target.knows(facts.OpenDescriptor)
        gap = target.gap(facts.OpenDescriptor)
        assert gap is not None
        assert gap.reason == f"process {entries[2].pid}: Permission denied"


def test_a_descriptor_that_cannot_be_told_hides_no_other(host: HostView, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache()
    first, second = os.open("/", os.O_RDONLY), os.open("/", os.O_RDONLY)
    real = statx.of

    def of(path: str, **named: Any) -> Any:
        if path.endswith(f"/fd/{first}"):
            raise OSError(116, "Stale file handle", path)
        return real(path, **named)

    with waiting(1) as (entry,):
        os.close(first)
        os.close(second)
        monkeypatch.setattr(statx, "of", of)
        held = descriptors.look(entry.pid, cache.place(procfs.read_text("self", "mountinfo"), entry.inodes), host)

    assert second in {fact.fd for fact in held.facts}
    assert held.gap == f"descriptor {first} of process {entry.pid}: Stale file handle"
