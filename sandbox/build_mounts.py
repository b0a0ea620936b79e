"""The mounts of a container: the mode's, the request's, and the embedded root of --host. Pure."""

from __future__ import annotations

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux import idmap
from stockade.sandbox.oci import spec as oci

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stockade.sandbox.build_ids import Maps
    from stockade.sandbox.host import Host
    from stockade.sandbox.modes import Mode
    from stockade.sandbox.request import MountRequest, Request
    from stockade.sandbox.users import Resolved

#: bytes of a tmpfs where neither the request nor the mode says
ROOT_SIZE = 1 << 30
#: group tty of every distribution; a devpts gives its terminals to it, where it is mapped
TTY_GID = 5

#: flags of a mount, as opposed to options of a file system: they have recursive forms (mount_setattr(2), AT_RECURSIVE)
_FLAGS = frozenset({
    "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "relatime", "strictatime", "nodiratime",
    "diratime", "nosymfollow", "symfollow",
})  # fmt: skip
_TMPFS = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol", "noswap", "inode64"})
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
#: what an option of the user takes back of our defaults
_OPPOSITES = {"suid": "nosuid", "dev": "nodev", "exec": "noexec"}


class Shared:
    """Which namespaces the container shares with the host, and whether it has a user namespace of its own."""

    def __init__(self, namespaces: Sequence[oci.LinuxNamespace]) -> None:
        own = {namespace.type for namespace in namespaces}
        self.user, self.pid, self.network, self.ipc, self.cgroup = (
            kind not in own for kind in ("user", "pid", "network", "ipc", "cgroup")
        )


def mounts(
    request: Request, mode: Mode, host: Host, shared: Shared, maps: Maps | None, *, limited: bool
) -> tuple[oci.Mount, ...]:
    """Give all mounts in the order in which they are made. Raises UsageError for a request that can't be met.

    `limited`: the container has a cgroup of its own. Without one, a mount of cgroups would show the caller's.
    """
    if shared.ipc and request.shm_size:
        raise UsageError(
            "--shm-size would change the host's /dev/shm, which --ipc host shares", hint="leave one of them out"
        )
    asked = (*request.mounts, *request.tmpfs)
    _check_destinations(asked)
    taken = {mount.destination for mount in asked}
    shm_size = request.shm_size or mode.limits.shm_size
    tty_mapped = maps is None or idmap.to_host(maps.gid, TTY_GID) is not None
    found = [*_embedded(request, host)] if request.host_root else []
    for mount in mode.mounts:
        # A volume on /dev/shm and the like takes the place of ours.
        if mount.destination not in taken and (limited or mount.type != "cgroup"):
            found += _of_mode(mount, host, shared, shm_size, tty_mapped=tty_mapped)
    found += [_asked(mount, host, maps) for mount in sorted(asked, key=lambda mount: mount.destination.count("/"))]
    return tuple([_bounded(mount, mode.limits.root_size or ROOT_SIZE) for mount in found])


def _bounded(mount: oci.Mount, size: int) -> oci.Mount:
    """Give a tmpfs a size and a number of inodes where it has none: the kernel's own are half of all memory, each."""
    if mount.type != "tmpfs":
        return mount
    given = {name: value for name, _, value in [option.partition("=") for option in mount.options]}
    more: tuple[str, ...] = () if "size" in given or "nr_blocks" in given else (f"size={size}",)
    if "nr_inodes" not in given:
        more += (f"nr_inodes={inodes(_bytes(given.get('size', '')) or size)}",)
    return mount.replace(options=(*mount.options, *more))


def inodes(size: int) -> int:
    """Give the number of files for a tmpfs of so many bytes: one a page, as the kernel has it, and some for a small."""
    return max(size // 4096, 1024)


def _bytes(text: str) -> int:
    """Read the size of a tmpfs as the kernel does, 0 for one that is a share of all memory or none at all."""
    digits, unit = (text[:-1], text[-1:].lower()) if text[-1:].lower() in {"k", "m", "g"} else (text, "")
    return int(digits) * {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[unit] if digits.isdecimal() else 0


def needs_cgroup_mask(found: Sequence[oci.Mount]) -> bool:
    """Tell whether the host's cgroups would be seen under a /sys that is the host's."""
    return any(m.destination == "/sys" and m.type == "bind" for m in found) and not any(
        m.destination == "/sys/fs/cgroup" for m in found
    )


def _of_mode(
    mount: oci.Mount, host: Host, shared: Shared, shm_size: int | None, *, tty_mapped: bool
) -> Iterator[oci.Mount]:
    """Give the mode's mount as this container can have it: zero or one."""
    owner = not shared.user
    if mount.type == "proc" and shared.pid and owner:
        # A procfs shows a pid namespace, and only who owns that may mount it; the host's can be bound.
        yield _bound(mount)
    elif mount.type == "sysfs" and shared.network and owner:
        yield _bound(mount.replace(options=tuple(dict.fromkeys((*mount.options, "ro")))))
    elif mount.type == "mqueue" and shared.ipc and owner:
        if not isinstance(host.files.get("/dev/mqueue", 2), int):
            yield _bound(mount)
    elif mount.destination == "/dev/shm" and shared.ipc:
        yield _bound(mount)
    elif mount.destination == "/dev/shm":
        yield _sized(mount, shm_size)
    elif mount.type == "devpts" and not tty_mapped:
        yield mount.replace(options=tuple([option for option in mount.options if option != f"gid={TTY_GID}"]))
    elif mount.type == "cgroup" and shared.cgroup and owner:
        return  # the host's own tree can't be mounted from here, and a container has no business in it
    else:
        yield mount


def _bound(mount: oci.Mount) -> oci.Mount:
    """Show the host's file system of that place instead of a new one."""
    options = tuple([option for option in mount.options if option in _FLAGS or option == "ro"])
    if "ro" in options:
        options = (*[option for option in options if option != "ro"], "rro")
    return oci.Mount(mount.destination, "bind", mount.destination, ("rbind", "rslave", *options))


def _sized(mount: oci.Mount, size: int | None) -> oci.Mount:
    if size is None:
        return mount
    kept = [option for option in mount.options if not option.startswith("size=")]
    return mount.replace(options=(*kept, f"size={size}"))


def _check_destinations(asked: Sequence[MountRequest]) -> None:
    seen: set[str] = set()
    for mount in asked:
        destination = mount.destination
        if not destination.startswith("/") or "\0" in destination:
            raise UsageError(
                f"mount on {destination!r}: not an absolute path", hint="give the full path in the container"
            )
        parts = [part for part in destination.split("/") if part]
        if ".." in parts:
            raise UsageError(f"mount on {destination}: the path climbs with ..", hint="give the path without ..")
        if not parts:
            raise UsageError("mount on /: that is the root itself", hint="use --rootfs for another root")
        if parts[0] == "proc":
            raise UsageError(
                f"mount on {destination}: nothing is mounted over /proc, which tells the container's tools the truth",
                hint="mount it elsewhere; --security-opt systempaths=unconfined makes all of /proc visible",
            )
        if parts == ["dev"]:
            raise UsageError(
                "mount on /dev: the container's /dev is its own",
                hint="give single devices with --device, or --mode privileged",
            )
        normal = "/" + "/".join(parts)
        if normal in seen:
            raise UsageError(f"mount on {normal}: given twice", hint="keep one of them")
        seen.add(normal)


def _asked(mount: MountRequest, host: Host, maps: Maps | None) -> oci.Mount:
    destination = "/" + "/".join(part for part in mount.destination.split("/") if part)
    if mount.type == "bind":
        if "idmap" in mount.options:
            _check_idmap(mount, host, maps)
        return oci.Mount(destination, "bind", _source(mount, host), _bind_options(mount))
    if mount.type == "tmpfs":
        return oci.Mount(destination, "tmpfs", "tmpfs", _tmpfs_options(mount))
    if mount.type == "mqueue":
        return oci.Mount(destination, "mqueue", "mqueue", _with_defaults(mount, ("nosuid", "nodev", "noexec")))
    raise UsageError(f"mount on {destination}: unknown type {mount.type!r}", hint="types are bind, tmpfs and mqueue")


def _source(mount: MountRequest, host: Host) -> str:
    if not mount.source.startswith("/"):
        raise UsageError(
            f"volume {mount.source!r} on {mount.destination}: not an absolute path of the host",
            hint="give the full path; named volumes are not known here",
        )
    found = host.files.get(mount.source)
    if isinstance(found, int):
        why = {2: "no such file or directory", 13: "permission denied", 20: "not a directory"}.get(
            found, f"errno {found}"
        )
        raise UsageError(
            f"volume {mount.source} on {mount.destination}: {why}",
            hint="make the directory first: a path that is missing may be a typing mistake, so it is not made",
        )
    return mount.source


def _with_defaults(mount: MountRequest, defaults: tuple[str, ...]) -> tuple[str, ...]:
    """Give the options with those of the defaults that the user did not take back."""
    back = {_OPPOSITES[option] for option in mount.options if option in _OPPOSITES}
    kept = [option for option in defaults if option not in back and option not in mount.options]
    return (*kept, *mount.options, *(("ro",) if mount.read_only else ()))


def _bind_options(mount: MountRequest) -> tuple[str, ...]:
    """Give the options of a volume: device nodes and setuid programs in it are dead, read-only holds for all below."""
    for option in mount.options:
        if option not in _FLAGS and option != "idmap":
            raise UsageError(
                f"volume on {mount.destination}: a bind mount has no option {option!r}",
                hint="it has " + " ".join(sorted(_FLAGS)),
            )
    deep = "r" if mount.recursive else ""
    flags = _with_defaults(mount, ("nosuid", "nodev"))
    return (deep + "bind", mount.propagation or deep + "private", *[deep + option for option in flags])


def _check_idmap(mount: MountRequest, host: Host, maps: Maps | None) -> None:
    """Refuse to shift a volume's ids where there is no map to shift them by, or nobody who may; mount_setattr(2)."""
    if maps is None:
        raise UsageError(
            f"volume on {mount.destination}: idmap shifts ids by the container's map, and it has none",
            hint="leave out idmap: without a user namespace ids are the host's",
        )
    if not host.privileged or host.kernel < (5, 12):
        raise StockadeError(
            f"volume on {mount.destination}: id-mapped mounts need Linux 5.12 and CAP_SYS_ADMIN over the file system",
            hint="start it as root, or give the files to ids that the container has",
        )


def _tmpfs_options(mount: MountRequest) -> tuple[str, ...]:
    for option in mount.options:
        if option not in _FLAGS and option.partition("=")[0] not in _TMPFS:
            raise UsageError(
                f"tmpfs on {mount.destination}: no option {option!r}",
                hint="it has " + " ".join(sorted(_TMPFS | _FLAGS)),
            )
    if mount.propagation:
        raise UsageError(
            f"tmpfs on {mount.destination}: propagation {mount.propagation} is of bind mounts", hint="leave it out"
        )
    options = _with_defaults(mount, ("nosuid", "nodev", "noexec"))
    modes = [option for option in options if option.startswith("mode=")]
    return options if modes else (*options, "mode=1777")


def _embedded(request: Request, host: Host) -> Iterator[oci.Mount]:
    """Give what the embedded root shows of the host: its programs, and of /etc what they need; all read-only."""
    options = ("rbind", "rprivate", "rnosuid", "rnodev", "rro")
    yield oci.Mount("/usr", "bind", "/usr", options)
    for name, target in host.root_entries:
        if not target:  # a directory of its own, on hosts without a merged /usr
            yield oci.Mount(f"/{name}", "bind", f"/{name}", options)
    for name in host.etc:
        yield oci.Mount(f"/etc/{name}", "bind", f"/etc/{name}", options)
    if request.read_only and not any(mount.destination == "/tmp" for mount in (*request.tmpfs, *request.mounts)):
        yield oci.Mount("/tmp", "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=1777"))


def embedded_annotations(
    user: Resolved,
    mode: Mode,
    host: Host,
    users: tuple[bytes, bytes],
    hostname: str,
    *,
    network_shared: bool,
    zero_mapped: bool,
) -> dict[str, str]:
    """Say what the tmpfs that is the embedded root holds beside its mounts: links, directories, small files.

    Where id 0 is not mapped the user owns all of it.
    """
    links = [f"{name}={target.lstrip('/')}" for name, target in host.root_entries if target]
    # Absolute: it leads inside the container, to its own /usr and /proc.
    links += [f"etc/localtime={host.localtime}"] if host.localtime else []
    links += ["etc/mtab=/proc/self/mounts"]
    home = user.home.lstrip("/") or "root"
    owner = f"{user.uid}:{user.gid}"
    modes = {
        "etc": "0755",
        "run": "0755",
        "tmp": "1777",
        "var": "0755",
        "var/tmp": "1777",
        "home": "0755",
        "root": "0700",
    }
    root = "0:0" if zero_mapped else owner
    directories = [f"{path}:{bits}:{root}" for path, bits in modes.items() if path != home] + [f"{home}:0700:{owner}"]
    names = f"localhost {hostname}".strip()
    files = {
        "etc/passwd": users[0].decode(),
        "etc/group": users[1].decode(),
        "etc/hosts": f"127.0.0.1 {names}\n::1 {names}\n",
        "etc/nsswitch.conf": host.nsswitch,
    }
    if hostname:
        files["etc/hostname"] = hostname + "\n"
    if network_shared and host.resolv:
        files["etc/resolv.conf"] = host.resolv
    found = {oci.ROOT_TMPFS: "tmpfs", oci.ROOT_LINKS: " ".join(links), oci.ROOT_DIRECTORIES: " ".join(directories)}
    found |= {oci.ROOT_FILE + path: content for path, content in files.items()}
    if mode.limits.root_size:
        found[oci.ROOT_SIZE] = str(mode.limits.root_size)
    return found


def embedded_users(text: str, host: Host) -> tuple[bytes, bytes]:
    """Give /etc/passwd and /etc/group of the embedded root for the user `text`: root, nobody, and a third one if asked.

    The third one has the caller's name where it has the caller's id, else it is called `user`; no name of the host's
    other users gets in.
    """
    passwd = ["root:x:0:0:root:/root:/bin/sh", "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin"]
    group = ["root:x:0:", f"tty:x:{TTY_GID}:", "nogroup:x:65534:"]
    wanted, _, wanted_group = text.partition(":")
    uid = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 11 else 0
    if wanted == host.user:
        uid = host.uid
    if uid not in (0, 65534):
        gid = host.gid if uid == host.uid else 0
        if wanted_group.isascii() and wanted_group.isdigit():
            gid = int(wanted_group)
        name = host.user if uid == host.uid and host.user and set(host.user) <= _NAME else "user"
        passwd.append(f"{name}:x:{uid}:{gid}::/home/{name}:/bin/sh")
        if gid not in (0, TTY_GID, 65534):
            group.append(f"{name}:x:{gid}:")
    return ("\n".join(passwd) + "\n").encode(), ("\n".join(group) + "\n").encode()
