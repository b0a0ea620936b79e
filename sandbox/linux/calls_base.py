"""How a system call is made through ctypes: by number, checked, with the path in the error."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

MACHINE = os.uname().machine

#: numbers that differ by architecture; those from 424 on (pidfd_send_signal, 2019) are the same on all of them
_NUMBERS: dict[str, tuple[int, int]] = {
    # x86_64, then the generic table of aarch64 and riscv64
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "keyctl": (250, 219),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "pidfd_open": (434, 434),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
}
_COLUMN = 0 if MACHINE == "x86_64" else 1


def syscall(number: int | str, *args: object, path: str | bytes | None = None) -> int:
    """Make a system call, given by its name here or by its number.

    Arguments are integers, bytes (a pointer to them, NUL-terminated), ctypes objects (a pointer) or None (NULL). Gives
    the result; raises OSError with `path` as its file name.
    """
    if isinstance(number, str):
        number = _NUMBERS[number][_COLUMN]
    return checked(libc.syscall(ctypes.c_long(number), *[word(argument) for argument in args]), path)


def word(argument: object) -> object:
    """Make one argument of a variadic call: without the type ctypes would pass a Python int as 32 bits."""
    if isinstance(argument, int):
        return ctypes.c_ulong(argument & 0xFFFFFFFFFFFFFFFF)
    if argument is None or isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    return ctypes.byref(argument)  # type: ignore[arg-type] # an array or structure: all that is left


def checked(result: int, path: str | bytes | None = None) -> int:
    """Give the result of a call, or raise OSError from errno when it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(result)


def fspath(path: str | bytes) -> bytes:
    """Encode a path for the kernel. Raises ValueError for one with a NUL byte, which would be cut there in silence."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"embedded null byte in {path!r}")
    return encoded
