"""Capabilities: their names and the five sets of a thread, capabilities(7).

A set is an integer whose bit n is capability n, as /proc/PID/status prints it in hexadecimal.
"""

from __future__ import annotations

from stockade.sandbox.linux import procfs
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: include/uapi/linux/capability.h: the index is the number
NAMES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

#: every capability that has a name here
ALL: int = (1 << len(NAMES)) - 1

SECBIT_NOROOT = 1 << 0
SECBIT_NOROOT_LOCKED = 1 << 1
SECBIT_NO_SETUID_FIXUP = 1 << 2
SECBIT_NO_SETUID_FIXUP_LOCKED = 1 << 3
SECBIT_KEEP_CAPS = 1 << 4
SECBIT_KEEP_CAPS_LOCKED = 1 << 5
SECBIT_NO_CAP_AMBIENT_RAISE = 1 << 6
SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 1 << 7

_NUMBERS = {name: number for number, name in enumerate(NAMES)}


class Sets(Record):
    """The five capability sets of a thread, each an integer mask."""

    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int


NONE = Sets(0, 0, 0, 0, 0)


def number(name: str) -> int:
    """Give the number of a capability; any case, with or without CAP_. Raises ValueError for an unknown name."""
    upper = name.upper()
    found = _NUMBERS.get(upper if upper.startswith("CAP_") else "CAP_" + upper)
    # upper() folds letters of other scripts, such as the long s, to ours
    if found is None or not name.isascii():
        raise ValueError(f"unknown capability {name!r}")
    return found


def name(number: int) -> str:
    """Give the name of capability `number`: "CAP_CHOWN" for 0, "CAP_63" for one that is newer than NAMES."""
    if not 0 <= number < 64:
        raise ValueError(f"capability number {number} is not between 0 and 63")
    return NAMES[number] if number < len(NAMES) else f"CAP_{number}"


def mask(names: Iterable[str]) -> int:
    """Give the set of the named capabilities. Raises ValueError for an unknown name."""
    bits = 0
    for each in names:
        bits |= 1 << number(each)
    return bits


def names(mask: int) -> tuple[str, ...]:
    """Give the names in a set, in the order of their numbers."""
    return tuple([name(bit) for bit in range(64) if mask >> bit & 1])


def parse(status: str) -> Sets:
    """Read the five sets from the text of /proc/PID/status. Raises ValueError when they are not there."""
    values = {}
    for line in status.split("\n"):
        if line.startswith("Cap"):
            key, _, value = line.partition(":")
            values[key] = value
    return from_fields(values)


def from_fields(fields: dict[str, str]) -> Sets:
    """Make the sets from the fields of /proc/PID/status, CapInh to CapAmb, in hexadecimal."""
    try:
        return Sets(
            int(fields["CapBnd"], 16),
            int(fields["CapEff"], 16),
            int(fields["CapInh"], 16),
            int(fields["CapPrm"], 16),
            # Kernels before 4.3 and gVisor have no ambient set and print none.
            int(fields.get("CapAmb", "0"), 16),
        )
    except KeyError as missing:
        raise ValueError(f"no {missing.args[0]} in the process status") from None


def of(pid: int | str) -> Sets:
    """Read the sets of a process's first thread or, with "12/task/13", of another one. Raises ProcessLookupError."""
    return parse(procfs.read_text(pid, "status"))


def own() -> Sets:
    """Read the sets of the calling thread; the sets belong to threads, not to processes."""
    return of("thread-self")


def last_cap() -> int:
    """Give the highest capability of the running kernel: /proc/sys/kernel/cap_last_cap, or what prctl(2) says."""
    if not _last:
        try:
            _last.append(int(procfs.read_path("/proc/sys/kernel/cap_last_cap")))
        except OSError:
            from stockade.sandbox.linux.calls import last_cap as ask

            _last.append(ask())
    return _last[0]


_last: list[int] = []


def supported() -> int:
    """Give the set of all capabilities of the running kernel."""
    return (2 << last_cap()) - 1
