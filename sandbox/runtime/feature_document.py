"""What this runtime can do, as runtime-spec's features.md and features-linux.md have it told.

Nothing is said here that the code doesn't know: words come from the tables that the reader and the plan use.
"""

from __future__ import annotations

import errno

from stockade import __version__
from stockade.sandbox.linux import calls, capabilities, seccomp
from stockade.sandbox.oci import names
from stockade.sandbox.runtime import systemd_properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: runtime-spec 1.2's own list, config.md "Linux mount options", and what other runtimes know beyond it
MOUNT_OPTIONS = (
    "acl async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noacl noatime nodev"
    " nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind"
    " rdev rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime"
    " rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw"
    " shared silent slave strictatime suid symfollow sync tmpcopyup unbindable"
)


def document() -> dict[str, Any]:
    """Give the features document."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": list(names.HOOKS),
        "mountOptions": _mount_options(),
        "linux": {
            "namespaces": list(names.NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": list(names.ACTIONS),
                "operators": list(names.OPERATORS),
                "archs": list(names.ARCHITECTURES),
                "knownFlags": list(names.FILTER_FLAGS),
                "supportedFlags": [name for name in names.FILTER_FLAGS if _flag_supported(name)],
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false",  # the name that engines look for
            "org.stockade.version": __version__,
        },
        "potentiallyUnsafeConfigAnnotations": [systemd_properties.ANNOTATION],  # a prefix, by its last character
    }


def _mount_options() -> list[str]:
    """Give the options that the plan takes itself: the others go to the file system, which nobody here knows."""
    from stockade.sandbox.plan_mount_options import Flags

    return [option for option in MOUNT_OPTIONS.split() if not Flags((option,)).data]


def _flag_supported(name: str) -> bool:
    """Ask the kernel for a filter at address 0: it looks at the flags first, seccomp_set_mode_filter."""
    flags = seccomp.FLAGS[name]
    if name.endswith("WAIT_KILLABLE_RECV"):
        flags |= 1 << 3  # there must be a listener to wait for: SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        calls.seccomp(calls.SECCOMP_SET_MODE_FILTER, flags)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False
