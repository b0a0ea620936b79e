from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.sandbox.linux import process, procfs
from stockade.sandbox.linux.process import CgroupLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# gVisor prints neither NoNewPrivs nor NSpid.
GVISOR = """\
Name:\tsleep
State:\tS (sleeping)
Tgid:\t7
Pid:\t7
PPid:\t1
TracerPid:\t0
Uid:\t1000\t1000\t1000\t1000
Gid:\t1000\t1000\t1000\t1000
FDSize:\t4
Groups:\t10 20 
VmSize:\t1 kB
Threads:\t1
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t00000000a80425fb
Seccomp:\t0
"""  # noqa: W291 - the kernel ends Groups with a blank


@pytest.fixture
def cat() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        ["cat", "-"],
        env={"SECRET": "a=b", "EMPTY": ""},
        cwd="/usr",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"x")
    child.stdout.read(1)  # it has been started and waits for more
    yield child
    child.kill()
    child.communicate()


def test_the_status_of_a_child_is_what_its_parent_made(cat: subprocess.Popen[bytes]) -> None:
    status = process.status(cat.pid)

    assert (status.name, status.pid, status.tgid, status.ppid) == ("cat", cat.pid, cat.pid, os.getpid())
    assert status.uids == (os.getuid(), os.geteuid(), *os.getresuid()[2:], os.geteuid())
    assert status.gids[:3] == os.getresgid()
    assert sorted(status.groups) == sorted(os.getgroups())
    assert status.pids == (cat.pid,)
    assert status.threads == 1
    assert status.no_new_privs is False
    assert status.seccomp == 0


def test_what_a_child_was_started_with_is_read(cat: subprocess.Popen[bytes]) -> None:
    pid = cat.pid

    assert process.cmdline(pid) == ("cat", "-")
    assert process.environ(pid) == ("SECRET=a=b", "EMPTY=")
    assert os.path.basename(process.exe(pid)) == "cat"
    assert (process.cwd(pid), process.root(pid)) == ("/usr", "/")


def test_the_descriptors_of_a_child_are_read(cat: subprocess.Popen[bytes]) -> None:
    found = {descriptor.number: descriptor for descriptor in process.descriptors(cat.pid)}

    assert process.fds(cat.pid) == {number: descriptor.target for number, descriptor in found.items()}
    assert found[0].target.startswith("pipe:")
    assert found[0].flags & os.O_ACCMODE == os.O_RDONLY
    assert found[1].flags & os.O_ACCMODE == os.O_WRONLY
    with pytest.raises(FileNotFoundError):
        process.fdinfo(cat.pid, 999)


def test_a_descriptor_tells_its_flags_position_and_inode(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.lseek(descriptor, 3, os.SEEK_SET)
        told = process.fdinfo("self", descriptor)
    finally:
        os.close(descriptor)

    assert (told.position, told.inode) == (3, (tmp_path / "file").stat().st_ino)
    assert told.flags & (os.O_RDWR | os.O_APPEND | os.O_CLOEXEC) == os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


def test_the_limits_are_those_of_getrlimit() -> None:
    def told(number: int) -> tuple[int | None, int | None]:
        soft, hard = [None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(number)]
        return soft, hard

    limits = process.limits("self")

    assert limits["Max open files"] == told(resource.RLIMIT_NOFILE)
    assert limits["Max core file size"] == told(resource.RLIMIT_CORE)
    assert limits["Max realtime timeout"] == told(resource.RLIMIT_RTTIME)
    assert len(limits) == 16


def test_the_start_time_stays_and_differs_from_the_parents(cat: subprocess.Popen[bytes]) -> None:
    started = process.start_time(cat.pid)

    assert started == process.start_time(cat.pid)
    assert started >= process.start_time(os.getpid())


def test_a_name_with_brackets_and_blanks_does_not_move_the_start_time() -> None:
    stat = "7 (a) b) R 1 2 3) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1\n"

    assert process.parse_start_time(stat) == 4242


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("0::/user.slice/a b", CgroupLine(0, (), "/user.slice/a b")),
        ("4:cpu,cpuacct:/docker/x", CgroupLine(4, ("cpu", "cpuacct"), "/docker/x")),
        ("1:name=systemd:/a:b\\040", CgroupLine(1, ("name=systemd",), "/a:b\\040")),
    ],
)
def test_a_line_of_cgroups_is_read(line: str, parsed: CgroupLine) -> None:
    assert process.parse_cgroup(line + "\n") == (parsed,)


def test_what_a_kernel_does_not_say_is_unknown_and_not_zero() -> None:
    status = process.parse_status(GVISOR)

    assert (status.no_new_privs, status.seccomp, status.seccomp_filters, status.umask) == (None, 0, None, None)
    assert (status.pids, status.groups, status.caps.bounding) == ((7,), (10, 20), 0xA80425FB)


def test_a_status_that_lacks_its_ids_is_refused() -> None:
    with pytest.raises(ValueError, match="no Uid"):
        process.parse_status(GVISOR.replace("Uid:", "Xid:"))


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\0" not in b)))
def test_arguments_survive_whatever_bytes_they_hold(arguments: list[bytes]) -> None:
    read = process.strings(b"".join(argument + b"\0" for argument in arguments))

    assert [os.fsencode(argument) for argument in read] == arguments


READERS: list[Callable[[int], object]] = [
    process.status,
    process.cmdline,
    process.environ,
    process.exe,
    process.cwd,
    process.root,
    process.fds,
    process.descriptors,
    process.limits,
    process.cgroup,
    process.start_time,
    process.threads,
    process.lsm_label,
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_process_that_has_gone_is_a_lookup_error_in_every_reader(reader: Callable[[int], object]) -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    with pytest.raises(ProcessLookupError):
        reader(child.pid)


def test_a_process_that_goes_between_open_and_read_is_a_lookup_error() -> None:
    child = subprocess.Popen(["sleep", "60"])
    descriptor = os.open(f"/proc/{child.pid}/status", os.O_RDONLY)
    child.kill()
    child.wait()

    with pytest.raises(ProcessLookupError):
        os.read(descriptor, 1)
    os.close(descriptor)


def test_a_zombie_has_a_status_and_no_program(cat: subprocess.Popen[bytes]) -> None:
    cat.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, cat.pid, os.WEXITED | os.WNOWAIT)

    assert process.status(cat.pid).state == "Z"
    assert process.cmdline(cat.pid) == process.environ(cat.pid) == ()
    with pytest.raises(FileNotFoundError):
        process.exe(cat.pid)


def test_a_thread_is_read_by_its_own_name() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id in process.threads("self")
        assert process.status(f"self/task/{thread.native_id}").tgid == os.getpid()
        assert process.status("self").threads >= 2
    finally:
        done.set()
        thread.join()


def test_all_processes_are_listed(cat: subprocess.Popen[bytes]) -> None:
    pids = process.list_pids()

    assert {1, os.getpid(), cat.pid} <= set(pids)
    assert list(pids) == sorted(pids)


def test_a_file_that_this_kernel_lacks_is_missing_and_the_process_is_not() -> None:
    with pytest.raises(FileNotFoundError):
        procfs.read("self", "no-such-file")


def test_reading_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 100_000)

    assert len(procfs.read_path(str(tmp_path / "big"))) == 100_000
    with pytest.raises(OSError, match="too large"):
        procfs.read_path(str(tmp_path / "big"), limit=99_999)


def test_a_status_is_read_in_less_than_seventy_microseconds() -> None:
    pid = os.getpid()

    def once() -> float:
        started = time.perf_counter()
        process.status(pid)
        return time.perf_counter() - started

    # The minimum: other work on the machine can only add to it.
    assert min(once() for _ in range(500)) < 70e-6
