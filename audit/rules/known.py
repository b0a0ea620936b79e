"""Names that several rules know: the host's paths, what is public there, and file systems that aren't files."""

import posixpath
import re
from collections.abc import Iterable

from stockade.audit.facts import Mount

#: file systems of the kernel's own state
KERNEL_FILESYSTEMS = frozenset(
    {
        "proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "debugfs", "tracefs", "securityfs", "bpf",
        "configfs", "efivarfs", "fusectl", "pstore", "binfmt_misc", "nsfs", "hugetlbfs", "selinuxfs", "rpc_pipefs",
    }
)  # fmt: skip


# what engines bind into each container of their own accord: name files, shared memory, the data of named volumes
_ENGINE_MADE = re.compile(
    r"/containers/[^/]+/(hosts|hostname|resolv\.conf|mounts/.*)$|/(overlay-)?containers/[^/]+/userdata(/|$)"
    r"|/volumes/[^/]+/_data(/|$)|/kubelet/pods/[^/]+/(volumes|volume-subpaths|etc-hosts|containers)(/|$)"
    r"|^/run/(stockade|containers|crun|runc)/"
)


def engine_made(mount: Mount) -> bool:
    """Say whether the engine put the mount there, such as /etc/hosts or a volume that it keeps."""
    return mount.engine_made or bool(mount.host_path and _ENGINE_MADE.search(mount.host_path))


def normal(path: str) -> str:
    """Give the usual spelling of a host's path: no "..", no trailing slash, /run for /var/run.

    "~" is some home directory. A relative path of a file lies in a directory that nobody knows, called /.relative here.
    """
    if not path.startswith("/"):
        path = f"/home/{path}" if path.startswith("~") else f"/.relative/a/b/c/d/{path}"
    plain = posixpath.normpath("/" + path.lstrip("/"))
    if plain == "/var/run" or plain.startswith("/var/run/"):
        return plain[4:]
    return plain


def within(path: str, directory: str) -> bool:
    """Say whether a path is a directory or lies below it. Both are normal."""
    return directory in {path, "/"} or path.startswith(directory + "/")


def host_files(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    """Give the mounts of the host's files that were put into the container, its root and the masks of /proc apart."""
    return tuple([mount for mount in mounts if is_host_file(mount)])


def is_host_file(mount: Mount) -> bool:
    """Say whether a mount was put into the container from the host's files."""
    return (
        mount.host_path is not None
        and mount.destination != "/"
        and mount.fstype not in KERNEL_FILESYSTEMS
        # /dev/null over a file of /proc hides it, and single nodes under /dev are devices with a rule of their own
        and not any(within(mount.destination, top) for top in ("/proc", "/sys"))
        and not (mount.fstype is not None and normal(mount.host_path).startswith("/dev/"))
    )
