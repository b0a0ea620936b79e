"""Threads have rights of their own: what one kept, or escapes the eye with, is told."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from stockade.audit import engine, facts
from stockade.audit.targets import host as hosts
from stockade.audit.targets import live, snapshot, threads
from stockade.sandbox.linux import bpf, calls, process
from stockade.sandbox.linux.seccomp import RET_ALLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from stockade.audit.facts import Target

pytestmark = pytest.mark.kernel

ALLOW_ALL = bpf.pack([(bpf.RET_K, 0, 0, RET_ALLOW)])
RULE = "process_exceeds_first"


@contextmanager
def running(after: Callable[[], object], before: Callable[[], object] = lambda: None) -> Generator[int]:
    """Fork a process that does `before`, starts a thread that waits, and does `after` in its first; give its pid."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            calls.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            before()
            started = threading.Event()

            def work() -> None:
                started.set()
                time.sleep(600)

            threading.Thread(target=work).start()
            started.wait()
            os.write(writer, b"r")
            after()
            os.write(writer, b"eady")
            time.sleep(600)
        except BaseException as error:  # noqa: BLE001 - told by the parent
            os.write(writer, repr(error).encode())
        finally:
            os._exit(1)
    os.close(writer)
    try:
        told = os.read(reader, 1)
        if after is not ends:
            while len(told) < 5 and (more := os.read(reader, 4096)):
                told += more
            assert told == b"ready", told
        yield pid
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def ends() -> None:
    """End the calling thread alone: exit(2), which libc's exit is not."""
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)


def audited(pid: int) -> Target:
    (target,) = live.audit_targets([f"pid:{pid}"]).targets
    return target


def findings(target: Target) -> list[tuple[str, ...]]:
    return [finding.evidence for finding in engine.evaluate(target).findings if finding.rule == RULE]


def second(pid: int) -> int:
    (tid,) = set(process.threads(pid)) - {pid}
    return tid


def test_a_thread_that_kept_what_the_first_gave_away_is_a_finding() -> None:
    with running(lambda: calls.capset(0, 0, 0)) as pid:
        target, tid = audited(pid), second(pid)

    (thread,) = target.all(facts.Process)
    assert (thread.pid, thread.threads, thread.where.path) == (pid, (tid,), f"/proc/{pid}/task/{tid}/status")
    assert thread.capabilities
    ((evidence,),) = findings(target)
    assert f"1 of the threads of pid {pid}" in evidence
    assert "more capabilities" in evidence


def test_threads_with_the_rights_of_the_first_are_no_fact_of_their_own() -> None:
    with running(lambda: None, before=lambda: calls.capset(0, 0, 0)) as pid:
        target = audited(pid)

    assert target.all(facts.Process) == ()
    assert target.knows(facts.Process)
    assert findings(target) == []


def test_a_thread_with_less_than_the_first_is_a_fact_and_no_finding() -> None:
    told = threading.Event()

    def work() -> None:
        calls.capset(0, 0, 0)
        told.set()
        time.sleep(600)

    def less() -> None:
        threading.Thread(target=work).start()
        assert told.wait(10)

    with running(less) as pid:
        target = audited(pid)

    (thread,) = target.all(facts.Process)
    assert thread.capabilities == 0
    assert findings(target) == []


def test_a_filter_that_was_loaded_for_the_first_thread_alone_is_told() -> None:
    def load() -> None:
        calls.prctl(38, 1)
        calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, 0, ALLOW_ALL)

    with running(load) as pid:
        ((*without,),) = findings(audited(pid))
    with running(load, before=load) as pid:
        ((*fewer,),) = findings(audited(pid))

    assert [line.rpartition(": ")[2] for line in without] == ["no no_new_privs", "no system call filter"]
    assert [line.rpartition(": ")[2] for line in fewer] == ["1 system call filters instead of 2"]


def test_a_filter_of_all_threads_is_no_finding() -> None:
    def load() -> None:
        calls.prctl(38, 1)
        calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, 1, ALLOW_ALL)  # SECCOMP_FILTER_FLAG_TSYNC, no_new_privs with it

    with running(load) as pid:
        target = audited(pid)

    assert target.all(facts.Process) == ()
    assert findings(target) == []


def test_threads_with_the_same_rights_are_one_fact() -> None:
    def more() -> None:
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(600,)).start()
        calls.capset(0, 0, 0)

    with running(more) as pid:
        target, tids = audited(pid), process.threads(pid)

    (thread,) = target.all(facts.Process)
    assert set(thread.threads) == set(tids) - {pid}
    assert len(thread.threads) == 4


def test_threads_beyond_the_most_that_are_looked_at_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST", 0)
    with running(lambda: calls.capset(0, 0, 0)) as pid:
        target = audited(pid)
        assert threads.differing(pid, hosts.probe()).gap == f"1 threads of process {pid} were not looked at"

    assert not target.knows(facts.Process)
    assert RULE in {unknown.rule for unknown in engine.evaluate(target).unknown}


def test_a_process_goes_on_without_its_first_thread_and_is_looked_at() -> None:
    with running(ends, before=lambda: calls.unshare(calls.CLONE_NEWNET)) as pid:
        deadline = time.monotonic() + 10
        while process.status(pid).state != "Z" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.status(pid).state == "Z"
        target, tid = audited(pid), second(pid)
        net, listed = os.stat(f"/proc/{tid}/ns/net").st_ino, snapshot.take().entries[pid]

    assert listed.pid == tid  # so that `audit all` finds its container
    assert target.id == f"pid:{pid}"
    assert net in {space.inode for space in target.all(facts.Namespace)}
    gap = target.gap(facts.ControlFile)
    # before Linux 6.9 no pidfd holds such a thread, which has to be told
    assert target.all(facts.ControlFile) or (gap and "the probe can't start" in gap.reason)
    assert target.gap(facts.OpenDescriptor) is None
