"""The host that containers are compared with: its namespaces, mounts, users, engine sockets, control files.

All of it is read once for an audit. Where the auditor itself is in a container, what it takes for the host is not:
then nothing is called "the host's", and every question about it is answered by None.
"""

import ctypes
import os
import posixpath
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from stockade.audit import facts
from stockade.audit.facts import Where
from stockade.sandbox.linux import calls, cgroups, mountinfo, namespaces, procfs, sock_diag, statx
from stockade.sandbox.linux.calls_base import syscall
from stockade.sandbox.linux.mountinfo import Mount, covering
from stockade.sandbox.linux.statx import AT_FDCWD

#: file name of an engine's socket → the engine; systemd's private socket and the system bus start units as root
SOCKETS = {
    "docker.sock": "docker",
    "podman.sock": "podman",
    "containerd.sock": "containerd",
    "crio.sock": "cri-o",
    "buildkitd.sock": "buildkit",
    "cri-dockerd.sock": "cri-dockerd",
    "dockershim.sock": "dockershim",
    "system_bus_socket": "systemd",
}
_PLACES = (
    "/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock", "/run/buildkit/buildkitd.sock", "/run/cri-dockerd.sock",
    "/run/dockershim.sock", "/run/snap.docker/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket",
)  # fmt: skip
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "autofs", "virtiofs"})
_LSM_LIST_MODULES = 461
# include/uapi/linux/lsm.h
_LSMS = (
    "capability", "selinux", "smack", "tomoyo", "apparmor", "yama", "loadpin", "safesetid", "lockdown", "bpf",
    "landlock", "ima", "evm", "ipe",
)  # fmt: skip
_LSM_IDS = dict(enumerate(_LSMS, 100))
# the modules that don't fill /proc/PID/attr/current are known, one that isn't known may
_LABELLING = frozenset({"selinux", "smack", "tomoyo", "apparmor"})
# Per interface and per neighbour table: hundreds of files that say the same of each interface
_REPEATED = re.compile(r"^net/.*/(conf|neigh)/")
# Open for everyone, and its handler asks for CAP_CHECKPOINT_RESTORE when something is written (kernel/pid_namespace.c)
_CHECKED_AGAIN = frozenset({"kernel/ns_last_pid"})


@dataclass(frozen=True)
class HostView:
    """What was read of the host at the start, and what is read once when it is asked for.

    `inodes` has the host's namespaces by kind, None where it can't be told; `outside_reason` is empty when the auditor
    stands on the host, else the reason why not.
    """

    inodes: dict[str, int | None]
    own: dict[str, int]
    mounts: tuple[Mount, ...]
    outside_reason: str = ""

    @property
    def trusted(self) -> bool:
        """Whether what this process sees is the host."""
        return not self.outside_reason

    def is_host(self, kind: str, inode: int) -> bool | None:
        """Say whether a namespace is the host's; None when that can't be told."""
        host = self.inodes.get(kind)
        return None if host is None else host == inode

    @cached_property
    def by_device(self) -> dict[tuple[int, int], tuple[tuple[str, str], ...]]:
        """File system → (root, mount point) of each of its mounts on the host."""
        found: dict[tuple[int, int], list[tuple[str, str]]] = {}
        for mount in self.mounts:
            found.setdefault((mount.major, mount.minor), []).append((mount.root, mount.mount_point))
        return {device: tuple(places) for device, places in found.items()}

    def path_of(self, device: tuple[int, int], root: str) -> str | None:
        """Give the host's shortest path for a file of a file system; None when the host doesn't mount it."""
        key = device, root
        if key not in self._paths:
            self._paths[key] = self._path_of(device, root)
        return self._paths[key]

    @cached_property
    def _paths(self) -> dict[tuple[tuple[int, int], str], str | None]:
        return {}

    def _path_of(self, device: tuple[int, int], root: str) -> str | None:
        found = []
        for top, point in self.by_device.get(device, ()):
            if top == "/":
                found.append(posixpath.join(point, root.lstrip("/")))
            elif root == top or root.startswith(top + "/"):
                found.append(point.rstrip("/") + root[len(top) :] or "/")
        if not found:
            return None
        return min(found, key=lambda path: (path.count("/"), len(path))).rstrip("/") or "/"

    @cached_property
    def groups(self) -> frozenset[int]:
        """Peer groups of the host's shared mounts."""
        return frozenset(group for mount in self.mounts if (group := mount.shared) is not None)

    @cached_property
    def layout(self) -> cgroups.Layout:
        """The mounted cgroup hierarchies."""
        return cgroups.layout()

    @cached_property
    def users(self) -> dict[int, str]:
        """Host uid → name, from /etc/passwd alone: other name services may ask the network."""
        return _names("/etc/passwd")

    @cached_property
    def group_names(self) -> dict[int, str]:
        """Host gid → name, from /etc/group."""
        return _names("/etc/group")

    @cached_property
    def sockets(self) -> tuple[tuple[str, str], ...]:
        """Sockets of engines on the host, (path, engine): known places and whatever listens under such a name."""
        found = {}
        for path in (*_PLACES, *(path for _, path in _unix())):
            engine = SOCKETS.get(posixpath.basename(path)) or ("systemd" if path == "/run/systemd/private" else None)
            real = "/run" + path[8:] if path.startswith("/var/run/") else path
            if engine and not self.remote(real) and stat.S_ISSOCK(mode_of(real) or 0):
                found[real] = engine
        return tuple(found.items())

    @cached_property
    def peers(self) -> dict[int, int] | None:
        """Inode → inode of the other end for the Unix sockets of the host's network namespace; None where unknown."""
        try:
            return sock_diag.unix_peers()
        except OSError:
            return None

    @cached_property
    def engine_ends(self) -> dict[int, tuple[str, str]]:
        """Inode → (path, engine) of an engine's ends: the listening socket and those accepted, which share its name."""
        found = {}
        for inode, path in _unix():
            engine = SOCKETS.get(posixpath.basename(path)) or ("systemd" if path == "/run/systemd/private" else None)
            if engine:
                found[inode] = (path, engine)
        return found

    @cached_property
    def netlink(self) -> frozenset[int]:
        """Inodes of the netlink sockets of the host's network namespace."""
        try:
            lines = procfs.read_path("/proc/self/net/netlink").split(b"\n")[1:]
        except OSError:
            return frozenset()
        return frozenset(int(line.split()[9]) for line in lines if len(line.split()) > 9)

    @cached_property
    def sysctls(self) -> tuple[str, ...]:
        """Files below /proc/sys whose mode lets somebody write, relative to it.

        procfs asks the mode and the ids alone (proc_sys_permission), so that a file without a write bit never opens.
        """
        found: dict[str, str] = {}
        for directory, below, names in os.walk("/proc/sys"):
            below[:] = [name for name in below if name != "binfmt_misc"]  # a file system of its own, maybe an automount
            top = directory[len("/proc/sys/") :]
            for name in sorted(names):
                path = f"{top}/{name}" if top else name
                # Of the network one file a directory stands for all: they open, or don't, alike.
                key = top if top.startswith("net") else path
                if path in _CHECKED_AGAIN:
                    continue
                if key not in found and not _REPEATED.match(path) and _writable(f"/proc/sys/{path}"):
                    found[key] = path
        return tuple(sorted(found.values()))

    @cached_property
    def labels(self) -> bool:
        """Whether a security module may label processes; True where the modules can't be told."""
        lsms = self.fact.lsms
        return lsms is None or not _LABELLING.isdisjoint(lsms)

    @cached_property
    def root(self) -> statx.Statx:
        """The auditor's own root directory."""
        return statx.of("/")

    def has(self, path: str) -> bool:
        """Say whether this kernel has a file of /proc or /sys."""
        known = self._exists
        if path not in known:
            known[path] = os.path.lexists(path)
        return known[path]

    def is_directory(self, path: str) -> bool | None:
        """Say whether a path of the host, as mountinfo names it, is a directory; None if that can't be told safely."""
        known = self._directories
        if path not in known:
            mode = None if self.remote(path) else mode_of(path)
            known[path] = None if mode is None else stat.S_ISDIR(mode)
        return known[path]

    def remote(self, path: str) -> bool:
        """Say whether a path lies on a file system whose server may never answer, maybe on purpose."""
        mount = covering(self.mounts, path)
        return mount is not None and (mount.fstype in _REMOTE or mount.fstype.startswith("fuse"))

    @cached_property
    def _directories(self) -> dict[str, bool | None]:
        return {}

    @cached_property
    def _exists(self) -> dict[str, bool]:
        return {}

    @cached_property
    def fact(self) -> facts.Host:
        """The fact of the kernel below."""
        return _fact(self.layout)


def probe() -> HostView:
    """Look at the host. Works without privilege."""
    own = {kind: inode for kind, (_, inode) in namespaces.of("self").items()}
    reason = ""
    for kind, what in (("pid", "pid"), ("user", "user")):
        if own.get(kind) != namespaces.INITIAL[kind]:
            reason = f"the auditor runs in a {what} namespace of its own: what it sees is not the host"
    # The initial namespaces of these kinds have fixed numbers; net and mnt since Linux 6.18 only.
    inodes: dict[str, int | None] = {
        kind: namespaces.INITIAL[kind] for kind in namespaces.KINDS if kind not in {"net", "mnt"}
    }
    inodes |= {"net": None, "mnt": None} if reason else {"net": _network(own["net"]), "mnt": _mount(own["mnt"])}
    try:
        mounts = mountinfo.of(1 if not reason else "self")
    except OSError:
        mounts = mountinfo.of("self")
    return HostView(inodes, own, mounts, reason)


def _network(own: int) -> int | None:
    try:
        return namespaces.inode(1, "net")[1]
    except OSError:
        pass
    try:
        # /proc/PID/net is of the process's namespace and needs no ptrace access; its inodes are the namespace's own.
        same = os.stat("/proc/1/net/dev").st_ino == os.stat("/proc/self/net/dev").st_ino
    except OSError:
        return None
    return own if same else None


def _mount(own: int) -> int | None:
    try:
        return namespaces.inode(1, "mnt")[1]
    except OSError:
        pass
    try:
        # A mount's id is unique among all namespaces, so that init's list is ours only in the same one.
        init, mine = mountinfo.of(1), mountinfo.of("self")
    except (OSError, ValueError):
        return None
    return own if init and mine and {mount.id for mount in init} & {mount.id for mount in mine} else None


def _names(path: str) -> dict[int, str]:
    found: dict[int, str] = {}
    try:
        lines = procfs.read_path(path, limit=1 << 22).decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        return found
    for line in lines:
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit():
            found.setdefault(int(fields[2]), fields[0])
    return found


def _unix() -> list[tuple[int, str]]:
    """Give inode and path of the Unix sockets that have a name, from /proc/net/unix."""
    try:
        lines = procfs.read_path("/proc/self/net/unix").decode("utf-8", "surrogateescape").split("\n")[1:]
    except OSError:
        return []
    # Num RefCount Protocol Flags Type St Inode Path; the path may hold blanks
    fields = [line.split(None, 7) for line in lines]
    return [(int(each[6]), each[7]) for each in fields if len(each) == 8 and each[7].startswith("/")]


def mode_of(path: str) -> int | None:
    """Give the mode of a file of the host, None where there is none. No symbolic link on the way is followed.

    Names in /proc/net/unix are their owners' choice, and a link could lead to a file system that hangs.
    """
    try:
        descriptor = calls.openat2(AT_FDCWD, path, os.O_PATH | os.O_NOFOLLOW, resolve=calls.RESOLVE_NO_SYMLINKS)
    except (OSError, ValueError):
        return None
    try:
        return statx.statx(descriptor, "", statx.AT_EMPTY_PATH).mode
    finally:
        os.close(descriptor)


def _writable(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o222)


def _text(path: str) -> str | None:
    try:
        return procfs.read_path(path).decode("ascii", "replace").strip()
    except OSError:
        return None


def _fact(layout: cgroups.Layout) -> facts.Host:
    release = os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    lsms = _text("/sys/kernel/security/lsm")
    if lsms is None:
        lsms = _active_modules()
    yama, disabled, lockdown = (
        _text("/proc/sys/kernel/yama/ptrace_scope"),
        _text("/proc/sys/kernel/modules_disabled"),
        _text("/sys/kernel/security/lockdown"),
    )
    modules = os.path.exists("/proc/modules")
    return facts.Host(
        where=Where("/proc/sys/kernel/osrelease"),
        kernel=(int(numbers[1]), int(numbers[2])) if numbers else None,
        release=release,
        lsms=tuple(filter(None, lsms.split(","))) if lsms is not None else None,
        yama=int(yama) if yama and yama.isdigit() else 0,  # without Yama there is no such file, and no such limit
        modules=modules,
        modules_disabled=disabled == "1" if disabled is not None else None,
        lockdown=_lockdown(lockdown, lsms),
        cgroup="hybrid" if layout.hybrid else "v2" if layout.v2 else "v1" if layout.v1 else None,
        apparmor=os.path.isdir("/sys/kernel/security/apparmor")
        or _text("/sys/module/apparmor/parameters/enabled") == "Y",
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
    )


def _active_modules() -> str | None:
    """Ask lsm_list_modules(2), since Linux 6.8, where securityfs isn't mounted."""
    ids, size = (ctypes.c_uint64 * 64)(), ctypes.c_uint32(512)
    try:
        count = syscall(_LSM_LIST_MODULES, ids, size, 0)
    except OSError:
        # A kernel without security modules makes no such directory.
        return None if os.path.isdir("/sys/kernel/security") else ""
    return ",".join([_LSM_IDS.get(ids[index], str(ids[index])) for index in range(count)])


def _lockdown(text: str | None, lsms: str | None) -> Literal["none", "integrity", "confidentiality"] | None:
    if text is None:
        return "none" if lsms is not None and "lockdown" not in lsms else None
    chosen = re.search(r"\[(\w+)\]", text)
    words: dict[str, Literal["none", "integrity", "confidentiality"]] = {
        "none": "none", "integrity": "integrity", "confidentiality": "confidentiality",
    }  # fmt: skip
    return words.get(chosen[1]) if chosen else None
