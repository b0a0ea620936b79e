"""What this kernel and this caller can do: one probe a process, immutable, and what a request needs to know beside it.

`probe()` reads what holds for every request. `survey(request, mode)` adds the files that one request names: its rootfs
with the users in it, volumes, devices. With both in a `Host`, `build` needs no look at the machine and stays pure.
"""

from __future__ import annotations

import os

from stockade.sandbox.linux import capabilities, idmap, procfs
from stockade.sandbox.linux.idmap import Range
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockade.sandbox.linux.capabilities import Sets
    from stockade.sandbox.linux.idmap import Mapping as IDMapping
    from stockade.sandbox.modes import Mode
    from stockade.sandbox.request import Request

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"

# Whose subordinate ids root gives to containers. Not `containers`: Podman deals them out one by one with
# --userns=auto, and two engines would put strangers under the same ids.
ROOT_OWNERS = ("stockade", "root")

# Where neither has a range: ids that systemd's UIDS-GIDS document leaves unused, above what useradd gives to users
# (100000 to 600100000) and systemd to its own containers (524288 to 1879048191).
RESERVED = Range(0x70000000, 65536)
_RESERVED_END = 0x7FFE0000

_SETUID_FLAG = 0o4000


class Inode(Record):
    """What stat(2) says of a path; `rdev` counts for device nodes only."""

    mode: int
    uid: int
    gid: int
    rdev: int = 0

    @property
    def kind(self) -> str:
        """One of dir, file, char, block, fifo, socket, other."""
        return _KINDS.get(self.mode & 0o170000, "other")


_KINDS = {0o040000: "dir", 0o100000: "file", 0o020000: "char", 0o060000: "block", 0o010000: "fifo", 0o140000: "socket"}


class Host(Record):
    """The machine and the caller. Empty strings are "no such thing"; the reasons are sentences without a full stop.

    `subuid` and `subgid` are the ranges that this caller may give to a container; both are empty when either is.
    `uidmap` and `gidmap` are those of the caller's own user namespace. `no_helper` says why newuidmap(1) is of no use,
    `no_userns` why no user namespace can be had, as far as settings tell. `root_entries` are /bin, /sbin, /lib* of the
    host with the target of those that are links, `etc` names in /etc. `files` (path → Inode, or errno of the failing
    stat), `passwd`, `group`, `nodes` (all of /dev) and `rlimits` (name → soft, hard; -1 is unlimited) belong to one
    request, see survey().
    """

    uid: int
    gid: int
    user: str
    caps: Sets
    kernel: tuple[int, int]
    arch: str
    last_cap: int
    no_new_privs: bool
    seccomp: bool
    uidmap: tuple[IDMapping, ...]
    gidmap: tuple[IDMapping, ...]
    subuid: tuple[Range, ...]
    subgid: tuple[Range, ...]
    newuidmap: str = ""
    newgidmap: str = ""
    no_helper: str = ""
    no_userns: str = ""
    apparmor_restricts_userns: bool = False
    root_entries: tuple[tuple[str, str], ...] = ()
    etc: tuple[str, ...] = ()
    localtime: str = ""
    nsswitch: str = ""
    resolv: str = ""
    files: Mapping[str, Inode | int] = {}
    passwd: bytes | None = None
    group: bytes | None = None
    nodes: tuple[str, ...] = ()
    rlimits: Mapping[str, tuple[int, int]] = {}

    def holds(self, *names: str) -> bool:
        """Tell whether the caller has all of these capabilities, over its own user namespace."""
        mask = capabilities.mask(names)
        return self.caps.effective & mask == mask

    @property
    def may_map(self) -> bool:
        """The caller may write any id map: id 0 outside asks for CAP_SETFCAP since Linux 5.12, user_namespaces(7)."""
        return self.holds("CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP")

    @property
    def privileged(self) -> bool:
        """The caller may make namespaces and mounts without a user namespace, and give up any id."""
        return self.holds("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")

    @property
    def supported(self) -> int:
        """Mask of all capabilities of this kernel, which a new user namespace begins with."""
        return (2 << self.last_cap) - 1


_probed: list[Host] = []


def probe() -> Host:
    """Give the facts that hold for every request of this process; read once. Raises OSError without a usable /proc."""
    if not _probed:
        _probed.append(_probe())
    return _probed[0]


def _probe() -> Host:
    status = _status(procfs.read_text("self", "status"))
    uid, system = os.geteuid(), os.uname()
    caps = capabilities.from_fields(status)
    uidmap, gidmap = idmap.of("self", "uid"), idmap.of("self", "gid")
    user, subuid, subgid = _subordinate(uid, uidmap, gidmap)
    no_new_privs = status.get("NoNewPrivs", "0").strip() == "1"
    helpers = ("", "", "") if uid == 0 else _helpers(no_new_privs=no_new_privs)
    return Host(
        uid=uid,
        gid=os.getegid(),
        user=user,
        caps=caps,
        kernel=_version(system.release),
        arch=system.machine,
        last_cap=capabilities.last_cap(),
        no_new_privs=no_new_privs,
        seccomp=status.get("Seccomp", "0").strip() != "0",
        uidmap=uidmap,
        gidmap=gidmap,
        subuid=subuid,
        subgid=subgid,
        newuidmap=helpers[0],
        newgidmap=helpers[1],
        no_helper=helpers[2],
        no_userns=_no_userns(caps),
        apparmor_restricts_userns=_setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1",
        root_entries=_root_entries(),
        etc=tuple([name for name in _ETC_BINDS if os.path.exists("/etc/" + name)]),
        localtime=_localtime(),
        nsswitch=_NSSWITCH,
        resolv=_text("/etc/resolv.conf")[: 1 << 16],
    )


def _status(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.split("\n") if ":" in line)


def _version(release: str) -> tuple[int, int]:
    major, _, rest = release.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return (int(major), int(digits or 0)) if major.isdigit() else (0, 0)


def _setting(path: str) -> str:
    """Give the content of a file under /proc/sys, or "" where this kernel has none or it can't be read."""
    try:
        return procfs.read_path(path).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _no_userns(caps: Sets) -> str:
    if _setting("/proc/sys/user/max_user_namespaces") == "0":
        return "user namespaces are switched off (user.max_user_namespaces is 0)"
    # Debian's and Arch's own patch: it binds those without CAP_SYS_ADMIN only.
    if _setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" and not caps.effective & 1 << 21:
        return "user namespaces are for root only here (kernel.unprivileged_userns_clone is 0)"
    if not os.path.exists("/proc/self/ns/user"):
        return "this kernel was built without user namespaces (CONFIG_USER_NS)"
    return ""


def _helpers(*, no_new_privs: bool) -> tuple[str, str, str]:
    """Find newuidmap(1) and newgidmap(1): their paths, and why they are of no use."""
    if no_new_privs:
        return "", "", "no_new_privs is set for the caller, so newuidmap can't gain the privilege it needs"
    found = []
    for name in ("newuidmap", "newgidmap"):
        path = _which(name)
        if not path:
            return "", "", f"{name} is not installed"
        if not _gains_privilege(path):
            return "", "", f"{path} is neither setuid root nor has the file capability it needs"
        if os.statvfs(path).f_flag & os.ST_NOSUID:
            return "", "", f"{path} is on a mount with nosuid, where programs gain no privilege"
        found.append(path)
    return found[0], found[1], ""


def _which(name: str) -> str:
    for directory in ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/run/wrappers/bin"):
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    return ""


def _gains_privilege(path: str) -> bool:
    status = os.stat(path)
    if status.st_uid == 0 and status.st_mode & _SETUID_FLAG:
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _subordinate(
    uid: int, uidmap: tuple[IDMapping, ...], gidmap: tuple[IDMapping, ...]
) -> tuple[str, tuple[Range, ...], tuple[Range, ...]]:
    """Give the caller's name and the ranges for its containers."""
    texts = (_text(SUBUID), _text(SUBGID))
    if uid == 0:
        for owner in ROOT_OWNERS:
            ranges = [idmap.parse_subordinate(text, owner, -1) for text in texts]
            if all(ranges):
                return "root", ranges[0], ranges[1]
        reserved = reserved_range(texts, uidmap, gidmap)
        return "root", reserved, reserved
    user = _user_name(uid)
    ranges = [idmap.parse_subordinate(text, user or None, uid) for text in texts]
    return (user, ranges[0], ranges[1]) if all(ranges) else (user, (), ())


def _user_name(uid: int) -> str:
    import pwd  # asks NSS, since the names of a directory service are not in /etc/passwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _text(path: str) -> str:
    try:
        return procfs.read_path(path, limit=1 << 24).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def reserved_range(
    texts: tuple[str, ...], uidmap: tuple[IDMapping, ...], gidmap: tuple[IDMapping, ...]
) -> tuple[Range, ...]:
    """Give root's range where /etc/subuid names none: the first from RESERVED on that nobody there has.

    Inside a user namespace that does not have those ids, the ids from 1000 on that it has; none if there are too few.
    """
    taken = [found for text in texts for found in _all_ranges(text)]
    start = RESERVED.start
    while start + RESERVED.count <= _RESERVED_END:
        inside = [
            idmap.to_host(maps, last) for maps in (uidmap, gidmap) for last in (start, start + RESERVED.count - 1)
        ]
        if None in inside:
            break
        if not any(other.start < start + RESERVED.count and start < other.start + other.count for other in taken):
            return (Range(start, RESERVED.count),)
        start += RESERVED.count
    for extent in uidmap:
        first = max(1000, extent.container)
        count = extent.container + extent.size - first
        if count > 0 and any((each.container, each.size) == (extent.container, extent.size) for each in gidmap):
            return (Range(first, min(count, RESERVED.count)),)
    return ()


def _all_ranges(text: str) -> list[Range]:
    owners = {line.partition(":")[0] for line in text.split("\n")}
    return [found for owner in owners if owner for found in idmap.parse_subordinate(text, owner, -1)]


# /etc of the embedded root (run --host): what programs of /usr need to start, to resolve names and to check
# certificates. Of /etc/ssl and /etc/pki only what is public: beside it lie the host's private keys, which root of the
# host could read with --userns host. Directories and ld.so.cache are bound; small files are copied: cheaper.
_ETC_BINDS = (
    *("alternatives", "ssl/certs", "ssl/openssl.cnf", "pki/ca-trust", "pki/tls/certs", "ca-certificates"),
    *("crypto-policies", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
)
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"


def _root_entries() -> tuple[tuple[str, str], ...]:
    entries = []
    for name in sorted(os.listdir("/")):
        if name in ("bin", "sbin") or name.startswith("lib"):
            try:
                entries.append((name, os.readlink("/" + name)))
            except OSError:  # EINVAL: a directory of its own
                if os.path.isdir("/" + name):
                    entries.append((name, ""))
    return tuple(entries)


def _localtime() -> str:
    """Give the file below /usr that /etc/localtime leads to, or "" where the time zone is not kept there."""
    try:
        target = os.path.realpath("/etc/localtime", strict=True)
    except OSError:
        return ""
    return target if target.startswith("/usr/") else ""


def survey(request: Request, mode: Mode, host: Host | None = None) -> Host:
    """Add to the host what `build` must know of the files that this request names.

    Opens nothing outside the rootfs, and nothing in it but /etc/passwd and /etc/group, as regular files only.
    Raises UsageError where one of them can't be taken for what it should be.
    """
    host = host or probe()
    paths = [mount.source for mount in request.mounts if mount.type == "bind"]
    paths += [device.source for device in request.devices]
    nodes = _nodes() if mode.devices is None else mode.devices
    paths += [*nodes, *(("/dev/mqueue",) if request.ipc == "host" else ())]
    changes: dict[str, object] = {"nodes": nodes}
    if request.rootfs is not None:
        from stockade.sandbox.rootfs_users import read_users

        paths.append(request.rootfs)
        changes["passwd"], changes["group"] = read_users(request.rootfs)
    if paths:
        changes["files"] = {path: _inode(path) for path in paths}
    if request.ulimits or mode.limits.ulimits:
        changes["rlimits"] = _rlimits()
    return host.replace(**changes)


def _inode(path: str) -> Inode | int:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno or 0
    except ValueError:  # a NUL byte in the path
        return 2
    return Inode(status.st_mode, status.st_uid, status.st_gid, status.st_rdev)


def _nodes() -> tuple[str, ...]:
    """List the device nodes of the host, without those that a container has of its own (ptmx, console, pts, shm)."""
    found = []
    pending = ["/dev"]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages"):
                            pending.append(entry.path)
                    elif entry.stat(follow_symlinks=False).st_mode & 0o170000 in (0o020000, 0o060000):
                        found.append(entry.path)
        except OSError:
            continue
    own = {"/dev/" + name for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console")}
    return tuple(sorted(set(found) - own))


def _rlimits() -> dict[str, tuple[int, int]]:
    import resource

    return {
        name[7:].lower(): resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_"
    }


def explain(step: str, error: int, host: Host | None = None) -> str:
    """Give the cause and the remedy of an errno at a step, see explain.py; empty where nothing is known."""
    from stockade.sandbox.explain import explain as by_errno

    return by_errno(step, error, host or probe())
