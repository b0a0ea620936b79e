"""The filter of a bundle in the kernel: it is loaded with its flags and refuses what the profile does not allow."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stockade.sandbox import filters_profile
from stockade.sandbox.linux import calls, syscalls
from stockade.sandbox.runtime.seccomp import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers in here are of x86-64"),
]

PODMAN = Path("/usr/share/containers/seccomp.json")
DEFAULT = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_SYS_CHROOT"
NOWHERE = 2**64 - 1  # as a descriptor -1
NEW_LISTENER = 1 << 3
EPERM, ENOSYS = errno.EPERM, errno.ENOSYS
UNKNOWN = 1000  # a number above all that Linux has


def section(**more: object) -> dict[str, Any]:
    """Give the section that Podman writes for a container without options."""
    return filters_profile.resolve(json.loads(PODMAN.read_text()), DEFAULT.split(), "x86_64") | more


def load(config: dict[str, Any], more: int = 0) -> int:
    made, flags, _ = program(config)
    calls.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    return calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, flags | more, made)


def call(name: str | int, *args: int) -> int:
    """Make a system call and give 0, or its errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    number = name if isinstance(name, int) else syscalls.numbers("x86_64")[name]
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(value) for value in args])
    return ctypes.get_errno() if result == -1 else 0


@pytest.mark.parametrize(
    ("name", "args", "refusal"),
    [
        ("bpf", (9999, 0, 0), EPERM),
        ("perf_event_open", (0, 0, 0, 0, 0), EPERM),
        ("open_by_handle_at", (NOWHERE, 0, 0), EPERM),
        ("socket", (16, 3, 9), errno.EINVAL),  # AF_NETLINK, NETLINK_AUDIT
        ("personality", (0x400000,), ENOSYS),  # with a condition that doesn't hold
        ("mseal", (1, 1, 0), ENOSYS),  # newer than the profile
    ],
)
def test_what_an_engines_profile_forbids_fails_with_its_errno(
    forked: Forked, name: str, args: tuple[int, ...], refusal: int
) -> None:
    def filtered() -> int:
        load(section())
        return call(name, *args)

    assert forked(filtered) == refusal
    assert forked(lambda: call(name, *args)) != refusal


def test_what_the_profile_allows_works(forked: Forked) -> None:
    def filtered() -> tuple[int, int, bytes]:
        load(section())
        return call("getpid"), call("personality", 0), Path("/proc/self/status").read_bytes()

    pid, personality, status = forked(filtered)

    assert (pid, personality) == (0, 0)
    assert b"\nSeccomp:\t2\n" in status


@pytest.mark.parametrize("errno_ret", [38, 1])
def test_a_call_that_is_newer_than_the_profile_looks_as_on_an_older_kernel(forked: Forked, errno_ret: int) -> None:
    def filtered() -> int:
        load(section(defaultErrnoRet=errno_ret))
        return call(UNKNOWN)

    assert forked(filtered) == ENOSYS


@pytest.mark.parametrize(
    "flags", [None, [], ["LOG"], ["SPEC_ALLOW"], ["TSYNC", "LOG"], ["WAIT_KILLABLE_RECV"], ["TSYNC"]]
)
def test_the_kernel_takes_each_set_of_flags(forked: Forked, flags: list[str] | None) -> None:
    config = section() if flags is None else section(flags=[f"SECCOMP_FILTER_FLAG_{name}" for name in flags])

    assert forked(lambda: load(config)) == 0


def test_a_listener_answers_the_calls_that_are_notified(forked: Forked) -> None:
    """seccomp_unotify(2), with the supervisor as a thread that was there before the filter."""
    config = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/agent",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    assert program(config)[2]

    def notified() -> tuple[int, int]:
        ready, descriptors, seen = threading.Event(), list[int](), list[int]()

        def supervise() -> None:
            ready.wait()
            # SECCOMP_IOCTL_NOTIF_RECV, struct seccomp_notif: id, pid, flags, data
            notification = bytearray(80)
            fcntl.ioctl(descriptors[0], 0xC0502100, notification)
            identity, _, _, number = struct.unpack_from("=QIIi", notification)
            seen.append(number)
            # SECCOMP_IOCTL_NOTIF_SEND, struct seccomp_notif_resp: id, val, error, flags
            fcntl.ioctl(descriptors[0], 0xC0182101, struct.pack("=QqiI", identity, 0, -errno.EDQUOT, 0))

        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        descriptors.append(load(config, NEW_LISTENER))
        ready.set()
        result = call("mkdir", 0, 0)
        supervisor.join()
        return result, seen[0]

    assert forked(notified) == (errno.EDQUOT, syscalls.numbers("x86_64")["mkdir"])
