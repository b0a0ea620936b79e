"""The config.json that `spec` writes: the one of `runc spec`, as text that one can start from."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "1.2.0"

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MOUNTS = (
    ("/proc", "proc", "proc", ""),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
)
_MASKED = (
    "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats"
    " /proc/sched_debug /sys/firmware /proc/scsi"
)
_READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


def template(*, rootless: bool) -> dict[str, Any]:
    """Give a configuration for a shell in the directory `rootfs`; for the caller's own id when `rootless`."""
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "stockade",
        "mounts": [_mount(*mount, rootless=rootless) for mount in _MOUNTS],
        "linux": _linux(rootless=rootless),
    }


def _mount(destination: str, kind: str, source: str, options: str, *, rootless: bool) -> dict[str, Any]:
    if rootless and destination == "/sys":
        # sysfs shows a network namespace, and only root of the one that owns it may mount it: sysfs_init_fs_context
        kind, source, options = "none", "/sys", "rbind " + options
    # devpts refuses a group that has no id in the user namespace
    listed = [option for option in options.split() if not (rootless and option.startswith("gid="))]
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    return mount | {"options": listed} if listed else mount


def _linux(*, rootless: bool) -> dict[str, Any]:
    kinds = ["pid", "network", "ipc", "uts", "mount"]
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):  # with cgroup v1 the namespace would hide nothing
        kinds.append("cgroup")
    found: dict[str, Any] = {}
    if rootless:
        kinds = [kind for kind in kinds if kind != "network"] + ["user"]
        found["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        found["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    else:
        found["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    found["namespaces"] = [{"type": kind} for kind in kinds]
    found["maskedPaths"] = _MASKED.split()
    found["readonlyPaths"] = _READ_ONLY.split()
    return found
