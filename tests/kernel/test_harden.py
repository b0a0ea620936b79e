"""harden() as root; tests/test_harden.py has what an unprivileged process can ask of it."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from stockade.errors import StockadeError
from stockade.sandbox.harden import harden
from stockade.sandbox.linux import calls, capabilities, process
from stockade.sandbox.linux.capabilities import Sets, mask

if TYPE_CHECKING:
    from collections.abc import Callable

    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.kernel

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.ENOTUNIQ, 0x80000000
X86_64 = os.uname().machine == "x86_64"
GETPPID, PREAD64 = (110, 17) if X86_64 else (173, 67)


def filter_of(number: int, action: int) -> bytes:
    """Give a filter that answers one system call with `action` and allows the rest."""
    instructions = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, action), (0x06, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


def tried(function: Callable[[], object]) -> str:
    try:
        function()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def test_nothing_is_left_in_any_of_the_five_sets(forked: Forked) -> None:
    def child() -> tuple[Sets, Sets, bool | None]:
        status = harden()
        return status.caps, capabilities.own(), status.no_new_privs

    assert forked(child) == (capabilities.NONE, capabilities.NONE, True)


def test_a_process_that_was_hardened_cannot_do_what_it_could(forked: Forked, tmp_path: Any) -> None:
    def attempts() -> list[str]:
        return [
            tried(lambda: os.mknod(tmp_path / f"null{time.monotonic_ns()}", 0o20600, os.makedev(1, 3))),
            tried(lambda: calls.unshare(calls.CLONE_NEWUTS)),
            tried(lambda: os.chroot("/")),
            tried(lambda: os.setuid(1000)),
            tried(lambda: calls.prctl(calls.PR_SET_SECUREBITS, 0)),
        ]

    def child() -> list[str]:
        harden()
        return attempts()

    assert forked(attempts) == ["done", "done", "done", "done", "EPERM"]
    assert set(forked(child)) == {"EPERM"}


def test_root_gains_nothing_by_executing_a_program(forked: Forked) -> None:
    def child() -> list[str]:
        harden(no_new_privs=False)
        told = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        return [line.split()[1] for line in told.splitlines() if line.startswith("Cap")]

    assert set(forked(child)) == {"0000000000000000"}


def test_kept_capabilities_stay_here_and_end_at_exec(forked: Forked) -> None:
    keep = mask(["NET_BIND_SERVICE", "CAP_KILL"])

    def child() -> tuple[Sets, int]:
        status = harden(keep=["net_bind_service", "CAP_KILL"])
        told = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        return status.caps, capabilities.parse(told).permitted

    assert forked(child) == (Sets(keep, keep, 0, keep, 0), 0)


def test_ambient_capabilities_outlive_exec(forked: Forked) -> None:
    keep = mask(["CAP_CHECKPOINT_RESTORE", "CAP_NET_RAW"])

    def child() -> Sets:
        harden(keep=["CAP_CHECKPOINT_RESTORE", "CAP_NET_RAW"], ambient=True)
        harden(keep=["CAP_CHECKPOINT_RESTORE", "CAP_NET_RAW"], ambient=True)
        told = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        return capabilities.parse(told)

    assert forked(child) == Sets(keep, keep, keep, keep, keep)


def test_hardening_again_takes_more(forked: Forked) -> None:
    def child() -> tuple[Sets, Sets]:
        first = harden(keep=["CAP_KILL", "CAP_CHOWN"], ambient=True).caps
        return first, harden(keep=["CAP_KILL"]).caps

    kill, both = mask(["CAP_KILL"]), mask(["CAP_KILL", "CAP_CHOWN"])
    first, second = forked(child)

    assert first == Sets(both, both, both, both, both)
    # CAP_SETPCAP went the first time, so the bounding set stays what it was; no_new_privs makes it worth nothing.
    assert second == Sets(both, kill, 0, kill, 0)


def test_capabilities_can_be_left_alone(forked: Forked) -> None:
    def child() -> tuple[Sets, Sets, bool | None]:
        before = capabilities.own()
        after = harden(keep=None)
        return before, after.caps, after.no_new_privs

    before, after, no_new_privs = forked(child)

    assert before == after
    assert no_new_privs is True


def test_a_capability_that_is_not_there_cannot_be_kept(forked: Forked) -> None:
    def child() -> tuple[str, Sets]:
        harden(keep=["CAP_KILL"])
        with pytest.raises(StockadeError, match="does not have CAP_CHOWN") as error:
            harden(keep=["CAP_KILL", "CAP_CHOWN"])
        return error.value.hint, capabilities.own()

    hint, sets = forked(child)

    assert "leave them out" in hint
    assert sets.permitted == mask(["CAP_KILL"])


def test_a_bounding_set_that_cannot_shrink_is_refused_where_it_would_count(forked: Forked) -> None:
    def child() -> str:
        own = capabilities.own()
        without = own.permitted & ~mask(["CAP_SETPCAP"])
        calls.capset(without, without, 0)
        with pytest.raises(StockadeError, match="CAP_SETPCAP"):
            harden(no_new_privs=False)
        status = harden()
        return f"{status.caps.permitted} {status.caps.bounding == own.bounding} {status.no_new_privs}"

    assert forked(child) == "0 True True"


def test_a_filter_is_loaded_last_and_holds(forked: Forked) -> None:
    def child() -> tuple[str, int | None, int | None]:
        status = harden(seccomp=filter_of(GETPPID, REFUSE))
        return tried(lambda: calls.syscall(GETPPID)), status.seccomp, process.status("self").seccomp_filters

    assert forked(child) == ("ENOTUNIQ", 2, 1)


@pytest.mark.parametrize("action", [REFUSE, KILL])
def test_a_filter_that_forbids_reading_it_back_is_loaded_without(action: int, forked: Forked) -> None:
    def child() -> tuple[int | None, int | None, int | None]:
        status = harden(seccomp=filter_of(PREAD64, action))
        return status.seccomp, status.seccomp_filters, process.status("self").seccomp

    assert forked(child) == (2, 1, 2)


@pytest.mark.parametrize(
    "program", [b"", b"1234567", struct.pack("HBBI", 0x20, 0, 0, 0), struct.pack("HBBI", 0xFF, 0, 0, 0)]
)
def test_what_is_no_filter_is_refused_before_anything_is_lost(program: bytes, forked: Forked) -> None:
    def child() -> bool:
        before = process.status("self")
        with pytest.raises(StockadeError, match="load the filter"):
            harden(seccomp=program)
        return process.status("self").caps == before.caps and process.status("self").no_new_privs is False

    assert forked(child)


def test_a_process_with_threads_is_refused_before_anything_is_lost(forked: Forked) -> None:
    def child() -> bool:
        before = process.status("self")
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        with pytest.raises(StockadeError, match="2 threads") as error:
            harden()
        assert "before the first thread" in error.value.hint
        with pytest.raises(StockadeError, match="2 threads"):
            harden(keep=None)
        done.set()
        thread.join()
        return process.status("self").caps == before.caps and process.status("self").no_new_privs is False

    assert forked(child)


def test_a_filter_reaches_every_thread(forked: Forked) -> None:
    def child() -> list[tuple[int | None, bool | None]]:
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        harden(keep=None, seccomp=filter_of(GETPPID, REFUSE))
        found = [process.status(f"self/task/{thread}") for thread in process.threads("self")]
        done.set()
        thread.join()
        return [(status.seccomp, status.no_new_privs) for status in found]

    assert forked(child) == [(2, True), (2, True)]


def test_threads_that_have_nothing_to_lose_are_no_obstacle(forked: Forked) -> None:
    def child() -> int | None:
        harden()
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        status = harden(seccomp=filter_of(GETPPID, REFUSE))
        done.set()
        thread.join()
        return status.seccomp

    assert forked(child) == 2


def test_a_thread_with_a_filter_of_its_own_is_a_failure_and_not_an_omission(forked: Forked) -> None:
    def child() -> str:
        ready, done = threading.Event(), threading.Event()

        def diverge() -> None:
            calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1)
            calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, 0, filter_of(GETPPID, REFUSE))
            ready.set()
            done.wait()

        thread = threading.Thread(target=diverge)
        thread.start()
        ready.wait()
        with pytest.raises(StockadeError, match="can't follow") as error:
            harden(keep=None, seccomp=filter_of(GETPPID, REFUSE))
        done.set()
        thread.join()
        return error.value.message

    assert "thread" in forked(child)


def test_the_parents_death_ends_the_process() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            if os.fork() == 0:
                harden(death_signal=signal.SIGKILL)
                os.write(writer, b"%d\n" % os.getpid())
            else:
                os.close(writer)
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(writer)
    child = int(os.read(reader, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)

    # The end of the pipe comes when its last writer is dead.
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert not os.path.exists(f"/proc/{child}/exe")  # gone, or a zombie that nobody has waited for


def test_an_undumpable_process_cannot_be_looked_into_by_its_own_user(forked: Forked, unprivileged: Any) -> None:
    def child() -> tuple[str, str]:
        os.setgid(unprivileged.pw_gid)
        os.setuid(unprivileged.pw_uid)
        calls.prctl(calls.PR_SET_DUMPABLE, 1)
        ready, done = os.pipe(), os.pipe()
        target = os.fork()
        if target == 0:
            os.read(done[0], 1)
            harden()
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            os._exit(0)
        before = tried(lambda: process.environ(target))
        os.write(done[1], b"x")
        os.read(ready[0], 1)
        after = tried(lambda: process.environ(target))
        os.write(done[1], b"x")
        os.waitpid(target, 0)
        return before, after

    assert forked(child) == ("done", "EACCES")
