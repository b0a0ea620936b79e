"""What a pidfd still knows of a process that has ended; ioctl_pidfd(2)."""

from __future__ import annotations

import fcntl
from _struct import Struct

# struct pidfd_info of linux/pidfd.h as it was first: two 64-bit masks, eleven ids, the exit code
_INFO = Struct("<2Q11Ii")
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_EXIT = 1 << 3


def exit_status(pidfd: int) -> int | None:
    """Give the wait(2) status of a process that somebody else has waited for, None where the kernel does not tell.

    Linux 6.15. Raises OSError for a process that runs, and where the kernel has no such call.
    """
    buffer = bytearray(_INFO.size)
    buffer[0] = _EXIT
    fcntl.ioctl(pidfd, _GET_INFO, buffer)
    fields = _INFO.unpack(buffer)
    return fields[-1] if fields[0] & _EXIT else None
