"""Which control files of /proc, /sys and cgroupfs a probe is to open, and what its answers mean.

The list is explicit: opening some files has effects (/dev/watchdog, tapes, serial lines), none of these has.
"""

import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Literal

from stockade.audit import facts
from stockade.audit.facts import Where
from stockade.sandbox.linux.mountinfo import Mount

#: asked of every target; a refusal and an absence count as facts, too
WRITE = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/poweroff_cmd", "/proc/sys/kernel/usermodehelper/bset",
    "/proc/sys/kernel/usermodehelper/inheritable", "/proc/sys/kernel/core_pipe_limit", "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops", "/proc/sys/kernel/randomize_va_space", "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/suid_dumpable", "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/mtrr", "/proc/scsi/scsi",
    "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/reboot/mode", "/sys/kernel/profiling",
    "/sys/module/sysrq/parameters/reset_seq", "/sys/bus/pci/rescan", "/sys/class/firmware/timeout",
)  # fmt: skip
READ = (
    "/proc/kcore",
    "/proc/kallsyms",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/vmcore",
    "/proc/config.gz",
)
#: files of a cgroup v1 or v2 mount's own directory
CGROUP = ("release_agent", "devices.allow", "cgroup.procs")

# Which namespace a file below /proc/sys belongs to; the handlers take it from the process that opens
_OWNERS = (
    ("net", re.compile(r"^net/")),
    ("ipc", re.compile(r"^(kernel/(sh[m]|msg|sem$|sem_|auto_msgmni)|fs/mqueue/)")),
    ("user", re.compile(r"^user/")),
    ("uts", re.compile(r"^kernel/(hostname|domainname)$")),
    ("pid", re.compile(r"^kernel/(ns_last_pid|pid_max|cad_pid)$")),
)


@lru_cache(maxsize=4096)
def owner_of(path: str) -> str | None:
    """Give the kind of namespace that a file of /proc/sys belongs to, None for one that is the whole kernel's."""
    name = path.removeprefix("/proc/sys/")
    if name == path:
        return None
    return next((kind for kind, pattern in _OWNERS if pattern.match(name)), None)


def to_write(mounts: Iterable[Mount]) -> tuple[str, ...]:
    """Give the files that are asked of every target, with those of the cgroup mounts that it sees."""
    groups = [mount.mount_point for mount in mounts if mount.fstype in {"cgroup", "cgroup2"}]
    return (*WRITE, *(f"{point}/{name}" for point in groups for name in CGROUP))


def facts_of(
    write: Mapping[str, int], read: Mapping[str, int], hosts: Mapping[str, bool | None]
) -> Iterator[facts.ControlFile]:
    """Turn a probe's answers into facts. `hosts` says by kind whether the target is in the host's namespace."""
    for path, number in write.items():
        kind = owner_of(path)
        own = kind is not None and hosts.get(kind) is False
        yield _fact(path, "write", number, own=own)
    for path, number in read.items():
        yield _fact(path, "read", number)


@lru_cache(maxsize=4096)  # targets in the same position share the very same facts
def _fact(path: str, access: Literal["write", "read"], number: int, *, own: bool = False) -> facts.ControlFile:
    outcome: Literal["opened", "refused", "absent"] = "opened"
    if number:
        outcome = "absent" if number == errno.ENOENT else "refused"
    error = errno.errorcode.get(number, str(number)) if outcome == "refused" else ""
    return facts.ControlFile(
        where=Where(path), path=path, access=access, outcome=outcome, error=error, own_namespace=own
    )
