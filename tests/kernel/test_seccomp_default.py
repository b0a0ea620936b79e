"""The default filter in the kernel: each forbidden call is tried with the filter, which refuses it, and without.

Every call has arguments that the kernel itself would refuse or that change nothing but the child, so that the answer
without the filter differs: that is the proof that the filter, and not the machine, refuses.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox import filters, filters_policy, filters_range
from stockade.sandbox.linux import calls, seccomp, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.kernel

EPERM, ENOSYS, EAFNOSUPPORT = errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT
NEWNS, NEWUTS, NEWUSER, NEWNET = 0x20000, 0x4000000, 0x10000000, 0x40000000
CLONE_FS = 0x200
NOWHERE = 2**64 - 1  # as a descriptor -1, as a pointer EFAULT

machine_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="int 0x80 and x32 exist on x86-64 only")


def load(*held: str) -> None:
    """Put the default filter for these capabilities on the calling thread."""
    install(filters.program_for("default", held).program)


def install(program: bytes) -> None:
    calls.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    assert calls.seccomp(1, 0, program) == 0  # SECCOMP_SET_MODE_FILTER


def call(number: int, *args: int) -> int:
    """Make a system call and give 0, or its errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(value) for value in args])
    return ctypes.get_errno() if result == -1 else 0


def attempt(name: str, *args: int, held: tuple[str, ...] | None = None) -> int:
    """Give the errno of a call of this name, under the filter for `held`, or with None under none."""
    if held is not None:
        load(*held)
    return call(syscalls.numbers(os.uname().machine)[name], *args)


@pytest.mark.parametrize(
    ("name", "args", "refusal"),
    [
        ("unshare", (NEWUSER,), EPERM),
        ("unshare", (NEWUTS,), EPERM),
        ("unshare", (1 << 63 | NEWUTS,), EPERM),
        ("clone", (NEWUSER | CLONE_FS,), EPERM),  # EINVAL from the kernel itself, as with all of the following
        ("clone", (1 << 63 | NEWUSER | CLONE_FS,), EPERM),
        ("clone", (NEWNS | CLONE_FS,), EPERM),
        ("clone3", (0, 0), ENOSYS),
        ("setns", (NOWHERE, 0), EPERM),
        ("mount", (0, 0, 0, 0, 0), EPERM),
        ("umount2", (0, 0), EPERM),
        ("pivot_root", (0, 0), EPERM),
        ("open_tree", (NOWHERE, 0, 0), EPERM),
        ("move_mount", (NOWHERE, 0, NOWHERE, 0, 0), EPERM),
        ("fsopen", (0, 0), EPERM),
        ("mount_setattr", (NOWHERE, 0, 0, 0, 0), EPERM),
        ("open_tree_attr", (NOWHERE, 0, 0, 0, 0), EPERM),
        ("keyctl", (0, NOWHERE - 2, 0), EPERM),  # KEYCTL_GET_KEYRING_ID of the session
        ("add_key", (0, 0, 0, 0, 0), EPERM),
        ("request_key", (0, 0, 0, 0), EPERM),
        ("io_uring_setup", (0, 0), EPERM),
        ("io_uring_enter", (NOWHERE, 0, 0, 0, 0, 0), EPERM),
        ("userfaultfd", (NOWHERE,), EPERM),
        ("bpf", (9999, 0, 0), EPERM),
        ("perf_event_open", (0, 0, 0, 0, 0), EPERM),
        ("open_by_handle_at", (NOWHERE, 0, 0), EPERM),
        ("quotactl", (0, 0, 0, 0), EPERM),
        ("personality", (0x400000,), ENOSYS),  # READ_IMPLIES_EXEC
        ("personality", (1 << 32 | 0x400000,), ENOSYS),
        ("socket", (17, 3, 0), EPERM),  # AF_PACKET
        ("socket", (1 << 32 | 17, 3, 0), EPERM),
        ("get_mempolicy", (0, 0, 0, 0, 0), ENOSYS),
        ("chroot", (0,), EPERM),
        ("sethostname", (0, NOWHERE), EPERM),
        ("kcmp", (0, 0, 0, 0, 0), EPERM),
    ],
)
def test_a_forbidden_call_is_refused_by_the_filter_and_not_without_it(
    forked: Forked, name: str, args: tuple[int, ...], refusal: int
) -> None:
    assert forked(lambda: attempt(name, *args, held=())) == refusal
    assert forked(lambda: attempt(name, *args)) != refusal


@pytest.mark.parametrize("family", [17, 31, 38, 40, 44])
def test_a_family_of_sockets_that_is_closed_cannot_be_opened(forked: Forked, family: int) -> None:
    assert forked(lambda: attempt("socket", family, 3, 0, held=())) in (EPERM, EAFNOSUPPORT)


def test_af_packet_can_be_opened_with_its_capability(forked: Forked) -> None:
    assert forked(lambda: attempt("socket", 17, 3, 0, held=("CAP_NET_RAW",))) == 0


@pytest.mark.parametrize("high", [0, 1 << 32, NOWHERE & ~0xFFFFFFFF])
def test_nothing_can_be_typed_into_the_terminal(forked: Forked, high: int) -> None:
    def typed(*, filtered: bool) -> int:
        _, terminal = pty.openpty()
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        if filtered:
            load()
        letter = ctypes.create_string_buffer(b"x")
        return call(syscalls.numbers(os.uname().machine)["ioctl"], terminal, high | 0x5412, ctypes.addressof(letter))

    assert forked(lambda: typed(filtered=True)) == EPERM
    assert forked(lambda: typed(filtered=False)) == 0


def test_a_comparison_of_all_64_bits_would_let_tiocsti_through(forked: Forked) -> None:
    """CVE-2019-10063: the kernel takes the command as 32 bits, a filter sees 64."""
    rules = (filters_policy.Rule(seccomp.RET_ERRNO | EPERM, ((1, "EQ", 0x5412, 0),)),)
    number = syscalls.numbers(os.uname().machine)["ioctl"]
    machine = syscalls.architecture(os.uname().machine)
    assert machine is not None
    table = filters_policy.Table(machine.audit, 64, {number: rules}, seccomp.RET_ALLOW, seccomp.RET_ALLOW)
    weak = filters_range.compile_policy(filters_policy.Policy((table,), seccomp.RET_ALLOW))

    def typed(high: int) -> int:
        install(b"".join(struct.pack("=HBBI", *each) for each in weak))
        return call(number, NOWHERE, high | 0x5412, 0)

    assert forked(lambda: typed(0)) == EPERM
    assert forked(lambda: typed(1 << 32)) == errno.EBADF


def int80(number: int, *args: int) -> int:
    """Make an i386 system call from 64-bit code and give its errno or 0."""
    # push rbx; mov eax,edi; mov ebx,esi; mov r10d,ecx; mov ecx,edx; mov edx,r10d; mov esi,r8d; mov edi,r9d;
    # int 0x80; pop rbx; ret
    code = bytes.fromhex("53 89f8 89f3 4189ca 89d1 4489d2 4489c6 4489cf cd80 5b c3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_ulong] * 6)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    result = int(function(number, *args, *[0] * (5 - len(args))))
    return -result if -4096 < result < 0 else 0


@machine_only
@pytest.mark.parametrize(
    ("name", "args", "refusal"),
    [
        ("unshare", (NEWUTS,), EPERM),
        ("clone", (NEWUSER | CLONE_FS,), EPERM),
        ("clone3", (0, 0), ENOSYS),
        ("mount", (0, 0, 0, 0, 0), EPERM),
        ("keyctl", (0, 2**32 - 3, 0), EPERM),
        ("socket", (17, 3, 0), EPERM),
        ("socketcall", (1, 0), EPERM),
        ("bpf", (9999, 0, 0), EPERM),
        ("personality", (0x400000,), ENOSYS),
        ("ioctl", (2**32 - 1, 0x5412, 0), EPERM),
    ],
)
def test_the_i386_entry_is_no_way_round_the_filter(
    forked: Forked, name: str, args: tuple[int, ...], refusal: int
) -> None:
    number = syscalls.numbers("i386")[name]

    def filtered() -> int:
        load()
        return int80(number, *args)

    assert forked(filtered) == refusal
    assert forked(lambda: int80(number, *args)) != refusal


def killed_by(function: Callable[[], object]) -> int:
    """Give the signal that ends a child which calls the function, 0 when it ends by itself."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@machine_only
def test_a_call_of_the_x32_abi_kills_the_process() -> None:
    getpid = syscalls.X32_BIT | 39

    def filtered() -> None:
        load()
        call(getpid)

    assert killed_by(filtered) == signal.SIGSYS
    assert killed_by(lambda: call(getpid)) == 0


@machine_only
def test_a_profile_that_lists_one_architecture_kills_calls_of_the_other() -> None:
    config = filters.default_profile(()).replace(architectures=("SCMP_ARCH_X86_64",))
    program = filters.compile_filter(config).program
    getpid = 20

    def alone() -> None:
        install(program)
        int80(getpid)

    def both() -> None:
        load()
        int80(getpid)

    assert killed_by(alone) == signal.SIGSYS
    assert killed_by(both) == 0


ORDINARY = """
import asyncio, ctypes, mmap, multiprocessing, os, select, signal, socket, subprocess, tempfile, threading, time
threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert subprocess.run(["/bin/sh", "-c", "echo $((1 + 1)) | cat"], capture_output=True).stdout == b"2\\n"
assert multiprocessing.get_context("fork").Pool(2).map(abs, [-1, -2]) == [1, 2]
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname()); c.close(); s.close()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(); socket.getaddrinfo("localhost", 80)
async def main():
    p = await asyncio.create_subprocess_exec("/bin/true"); assert await p.wait() == 0
asyncio.run(main())
with tempfile.TemporaryFile() as f:
    f.write(b"x" * 9000); f.flush(); mmap.mmap(f.fileno(), 0)[:]; os.posix_fallocate(f.fileno(), 0, 99999)
os.memfd_create("x"); os.eventfd(0); os.pidfd_open(os.getpid()); os.sched_getaffinity(0); os.getrandom(8)
os.openpty(); signal.setitimer(signal.ITIMER_REAL, 9); select.epoll(); os.statvfs("/"); os.nice(0)
print("fine")
"""


SHELL = "trap 'echo got' USR1; kill -USR1 $$; ulimit -n >/dev/null; (echo a; echo b) | sort -r | tail -1"
PERL = 'my $p = fork // die; exit 0 unless $p; wait; print "ok\\n"'


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ([sys.executable, "-I", "-c", ORDINARY], "fine"),
        (["/bin/bash", "-c", SHELL], "got\na"),
        (["/usr/bin/perl", "-e", PERL], "ok"),
        (["/usr/bin/apt-cache", "policy", "dpkg"], "dpkg:"),
    ],
)
def test_ordinary_programs_run_under_the_filter(command: list[str], output: str) -> None:
    done = subprocess.run(command, preexec_fn=load, capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().startswith(output)


def test_a_tracer_works_inside(forked: Forked) -> None:
    """Debuggers, strace and leak checkers need ptrace of their own children."""

    def traced() -> int:
        load()
        child = os.fork()
        if child == 0:
            call(syscalls.numbers(os.uname().machine)["ptrace"], 0, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        stopped = os.WIFSTOPPED(os.waitpid(child, 0)[1])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return stopped

    assert forked(traced) is True
