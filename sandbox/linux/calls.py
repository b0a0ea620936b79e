"""System calls that Python's os module lacks: one function a call, with the kernel's name and argument order.

The manual has each in section 2. Each checks the result and raises OSError, with the path where there is one. Those
about mounts are written in calls_mount, the constants in calls_constants; all of them are names of this module.
Importing it loads ctypes (2 ms), which reading /proc does not need. ctypes lets go of the interpreter lock while a
call runs.
"""

from __future__ import annotations

import ctypes
import os

from stockade.sandbox.linux.calls_base import checked, fspath, libc, word
from stockade.sandbox.linux.calls_base import syscall as syscall  # noqa: PLC0414 - a name of this module too
from stockade.sandbox.linux.calls_constants import *  # noqa: F403 - constants are names of this module too
from stockade.sandbox.linux.calls_constants import (
    LINUX_CAPABILITY_VERSION_3,
    PR_CAP_AMBIENT,
    PR_CAPBSET_READ,
    SECCOMP_SET_MODE_FILTER,
)
from stockade.sandbox.linux.calls_mount import *  # noqa: F403 - and so are the calls about mounts


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open with limits on how the path is resolved. O_CLOEXEC is always set. Gives the descriptor.

    Raises OSError: EXDEV or ELOOP where `resolve` forbids the way, EAGAIN after a race with a rename.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return syscall("openat2", dirfd, fspath(path), how, ctypes.sizeof(how), path=path)


def setns(fd: int, nstype: int) -> None:
    """Join the namespace of a descriptor, or with a pidfd those of `nstype` of a process."""
    checked(libc.setns(ctypes.c_int(fd), ctypes.c_int(nstype)))


def unshare(flags: int) -> None:
    """Leave the shared namespaces named by CLONE_* flags."""
    checked(libc.unshare(ctypes.c_int(flags)))


def pidfd_open(pid: int, flags: int = 0) -> int:
    """Give a descriptor for a process; close-on-exec. Raises ProcessLookupError."""
    return syscall("pidfd_open", pid, flags)


def pidfd_send_signal(pidfd: int, sig: int, info: None = None, flags: int = 0) -> None:
    """Signal exactly the process of the descriptor. Raises ProcessLookupError when it is gone."""
    syscall("pidfd_send_signal", pidfd, sig, info, flags)


def pidfd_getfd(pidfd: int, targetfd: int, flags: int = 0) -> int:
    """Give a duplicate of another process's descriptor; close-on-exec. Needs ptrace access."""
    return syscall("pidfd_getfd", pidfd, targetfd, flags)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Close descriptors, or with CLOSE_RANGE_CLOEXEC mark them."""
    syscall("close_range", first, last, flags)


def prctl(option: int, arg2: int | bytes = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Change or ask for an attribute of the calling thread. Gives the result, which some options return as a value."""
    words = [word(argument) for argument in (arg2, arg3, arg4, arg5)]
    return checked(libc.prctl(ctypes.c_int(option), *words))


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def capget(pid: int = 0) -> tuple[int, int, int]:
    """Give the effective, permitted and inheritable masks of a thread, by default of the calling one."""
    header = _CapHeader(LINUX_CAPABILITY_VERSION_3, pid)
    data = (ctypes.c_uint32 * 6)()
    checked(libc.capget(ctypes.byref(header), ctypes.byref(data)))
    low = list(data)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set three of the five masks of the calling thread. Raises PermissionError for what is not permitted."""
    header = _CapHeader(LINUX_CAPABILITY_VERSION_3, 0)
    masks = (effective, permitted, inheritable)
    data = (ctypes.c_uint32 * 6)(*[m & 0xFFFFFFFF for m in masks], *[m >> 32 for m in masks])
    checked(libc.capset(ctypes.byref(header), ctypes.byref(data)))


def cap_ambient(operation: int, capability: int = 0) -> int:
    """Act on the ambient set: PR_CAP_AMBIENT_IS_SET, _RAISE, _LOWER with one capability, or _CLEAR_ALL."""
    return prctl(PR_CAP_AMBIENT, operation, capability)


def last_cap() -> int:
    """Give the highest capability of the running kernel by asking for each: PR_CAPBSET_READ says EINVAL above it."""
    capability = 0
    while capability < 63:
        try:
            prctl(PR_CAPBSET_READ, capability + 1)
        except OSError:
            break
        capability += 1
    return capability


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def seccomp(operation: int, flags: int, args: bytes | None = None) -> int:
    """Load a filter into the calling thread, or ask what the kernel knows.

    For SECCOMP_SET_MODE_FILTER `args` is the program, 8 bytes an instruction as struct sock_filter has them. Gives 0, a
    listener's descriptor, or with SECCOMP_FILTER_FLAG_TSYNC the id of a thread that could not follow.
    """
    if operation != SECCOMP_SET_MODE_FILTER or args is None:
        return syscall("seccomp", operation, flags, args)
    if not args or len(args) % 8 or len(args) // 8 > 4096:
        raise ValueError(f"a filter has 1 to 4096 instructions of 8 bytes, not {len(args)} bytes")
    return syscall("seccomp", operation, flags, _SockFprog(len(args) // 8, args))


def keyctl(operation: int, arg2: int | bytes | None = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Act on a keyring. Gives the result, for KEYCTL_JOIN_SESSION_KEYRING the keyring's id."""
    return syscall("keyctl", operation, arg2, arg3, arg4, arg5)


def bpf(command: int, attributes: bytes, size: int | None = None) -> tuple[int, bytes]:
    """Give the result and `attributes`, a packed union bpf_attr, as the kernel changed them."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = syscall("bpf", command, buffer, len(attributes) if size is None else size)
    return result, buffer.raw
