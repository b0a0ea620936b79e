"""Who calls the runtime, as far as a launch depends on it: capabilities, and whether root here is the host's root."""

from __future__ import annotations

import os

from stockade.sandbox.linux import capabilities, procfs
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.linux.capabilities import Sets

#: the map of the initial user namespace, user_namespaces(7)
_INITIAL = b"         0          0 4294967295\n"


class Caller(Record):
    """`nested`: in a user namespace that is not the machine's first, so that its root owns no device and no limit."""

    uid: int
    gid: int
    caps: Sets
    nested: bool
    arch: str

    def holds(self, *names: str) -> bool:
        """Tell whether the caller has all of these capabilities over its own user namespace."""
        mask = capabilities.mask(names)
        return self.caps.effective & mask == mask

    @property
    def privileged(self) -> bool:
        """The caller may make namespaces and mounts without a user namespace, and give up any id."""
        return self.holds("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


def look() -> Caller:
    """Read it from /proc. Raises OSError without a usable one."""
    nested = procfs.read("self", "uid_map") != _INITIAL
    return Caller(os.geteuid(), os.getegid(), capabilities.of("self"), nested, os.uname().machine)
