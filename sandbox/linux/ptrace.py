"""Reading the seccomp programs of a running thread, ptrace(2).

PTRACE_SEIZE does not stop the tracee by itself and leaves no SIGSTOP behind, unlike PTRACE_ATTACH.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

from stockade.sandbox.linux.calls_base import MACHINE, syscall

PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_SECCOMP_GET_FILTER = 0x420C
PTRACE_EVENT_STOP = 128

_WALL = 0x40000000
_NUMBER = 101 if MACHINE == "x86_64" else 117


def ptrace(request: int, pid: int, addr: int = 0, data: object = 0) -> int:
    """Make the call as it stands. Raises OSError."""
    return syscall(_NUMBER, request, pid, addr, data, path=f"/proc/{pid}")


def seccomp_filters(tid: int, *, timeout: float = 1.0) -> tuple[bytes, ...]:
    """Give the programs stacked on a thread, first loaded first, as arrays of struct sock_filter.

    The thread stands still meanwhile, about 0.2 ms. Raises PermissionError without CAP_SYS_ADMIN in the initial
    user namespace or when the caller has a filter itself, ProcessLookupError, and TimeoutError for a thread that
    does not stop (it sleeps in the kernel); then it stays seized until it stops or the caller ends.
    """
    ptrace(PTRACE_SEIZE, tid)
    try:
        ptrace(PTRACE_INTERRUPT, tid)
        signal = _wait(tid, timeout)
    except TimeoutError:
        _abandon(tid)
        raise
    try:
        return tuple(_programs(tid))
    finally:
        # A signal that was about to be delivered when the thread stopped is handed on, not swallowed.
        ptrace(PTRACE_DETACH, tid, 0, signal)


def _wait(tid: int, timeout: float) -> int:
    """Wait for the stop; give the signal that PTRACE_DETACH has to deliver, or 0."""
    end = time.monotonic() + timeout
    while True:
        pid, status = os.waitpid(tid, _WALL | os.WNOHANG)
        if pid and os.WIFSTOPPED(status):
            return 0 if status >> 16 == PTRACE_EVENT_STOP else os.WSTOPSIG(status)
        if pid:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"/proc/{tid}")
        if time.monotonic() > end:
            raise TimeoutError(errno.ETIMEDOUT, "does not stop", f"/proc/{tid}")
        time.sleep(0.00002)


def _abandon(tid: int) -> None:
    # Only a stopped thread can be detached; the kernel does it for the others when the tracer ends.
    try:
        ptrace(PTRACE_DETACH, tid)
    except OSError:
        pass


def _programs(tid: int) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            length = ptrace(PTRACE_SECCOMP_GET_FILTER, tid, len(found), None)
        except OSError as error:
            # ENOENT: no filter of that index; EINVAL: the thread has none at all.
            if error.errno == errno.ENOENT or (error.errno == errno.EINVAL and not found):
                return found
            raise
        buffer = ctypes.create_string_buffer(length * 8)
        ptrace(PTRACE_SECCOMP_GET_FILTER, tid, len(found), buffer)
        found.append(buffer.raw)
