"""Request + mode + host → Spec. Pure, and the only place that knows what the modes mean.

What a request does not say, the mode says; what neither may have on this host is refused here, with the cause and a
remedy, before anything has happened. Nothing is read and nothing is done: `host` comes from `host.survey`.
"""

from __future__ import annotations

from stockade.errors import StockadeError, UsageError
from stockade.sandbox import build_capabilities, build_ids, build_limits, build_mounts, users
from stockade.sandbox.host import Inode
from stockade.sandbox.linux import capabilities, idmap
from stockade.sandbox.oci import spec as oci

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockade.sandbox.build_capabilities import Privilege
    from stockade.sandbox.build_ids import Maps
    from stockade.sandbox.build_mounts import Shared
    from stockade.sandbox.host import Host
    from stockade.sandbox.modes import Mode
    from stockade.sandbox.request import Request
    from stockade.sandbox.users import Resolved

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME = "stockade"

_HOSTNAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
#: sysctl prefix → the namespace that it belongs to; a sysctl of none of them is the host's
_SYSCTLS = {"net.": "network", "kernel.msg": "ipc", "kernel.sem": "ipc", "kernel.shm": "ipc", "fs.mqueue.": "ipc"}


def build(request: Request, mode: Mode, host: Host) -> oci.Spec:
    """Decide everything: give the Spec that meets the request in this mode on this host.

    Raises UsageError for a request that contradicts itself and StockadeError for one that this host can't meet.
    """
    _check(request, host)
    text = request.user or _default_user(request, mode, host)
    embedded = build_mounts.embedded_users(text, host)
    user = users.resolve_user(text, *(embedded if request.host_root else (host.passwd, host.group)))
    maps = build_ids.id_maps(request, mode, host, user)
    user = _mapped(user, maps)
    no_new_privileges = mode.no_new_privileges if request.no_new_privileges is None else request.no_new_privileges
    held = host.caps.permitted & host.caps.bounding if maps is None else host.supported
    privilege = build_capabilities.decide(request, mode, held, user.uid, no_new_privileges=no_new_privileges)
    linux = _linux(request, mode, host, privilege, user=user, maps=maps)
    shared = build_mounts.Shared(linux.namespaces)
    mounts = build_mounts.mounts(request, mode, host, shared, maps, limited=linux.resources is not None)
    masked, readonly = _kernel_paths(request, mode, mounts)
    hostname = _hostname(request, linux)
    annotations = _annotations(request, mode, host, privilege, maps)
    if request.host_root:
        zero = maps is None or maps.zero
        annotations |= build_mounts.embedded_annotations(
            user, mode, host, embedded, hostname, network_shared=shared.network, zero_mapped=zero
        )
    limits = build_limits.rlimits(request, mode, host)
    process = _process(request, user, privilege, hostname, limits).replace(no_new_privileges=no_new_privileges)
    return oci.Spec(
        process=process,
        root=oci.Root(request.rootfs or "", bool(request.read_only)),
        hostname=hostname,
        domainname=request.domainname or "",
        mounts=(*mounts, *_renamed_devices(request, maps)),
        annotations=annotations,
        linux=linux.replace(masked_paths=masked, readonly_paths=readonly),
    )


def _linux(
    request: Request, mode: Mode, host: Host, privilege: Privilege, *, user: Resolved, maps: Maps | None
) -> oci.Linux:
    """Give the part that only Linux has, but for masked and read-only paths."""
    namespaces = _namespaces(request, mode, maps)
    devices, rules = _devices(request, mode, host, privilege, maps)
    return oci.Linux(
        uid_mappings=_oci_maps(maps.uid) if maps else (),
        gid_mappings=_oci_maps(maps.gid) if maps else (),
        sysctl=_sysctl(mode, build_mounts.Shared(namespaces), user, maps),
        resources=build_limits.resources(request, mode, rules),
        namespaces=namespaces,
        devices=devices,
    )


def _check(request: Request, host: Host) -> None:
    """Refuse what is wrong whatever the mode."""
    if not request.argv:
        raise UsageError("no program to run", hint="name it after the options: stockade run --host -- PROGRAM [ARG...]")
    if request.host_root == (request.rootfs is not None):
        raise UsageError(
            "a container needs one root file system",
            hint="give either --rootfs DIR or --host (the host's own programs)",
        )
    if request.rootfs is not None:
        _check_rootfs(request.rootfs, host)
    if request.workdir is not None and not request.workdir.startswith("/"):
        raise UsageError(f"working directory {request.workdir!r} is not absolute", hint="begin it with /")
    texts = (*request.argv, *[text for pair in request.env for text in pair], request.workdir or "")
    if any("\0" in text for text in texts):
        raise UsageError(
            "a NUL byte in an argument, the environment or the working directory", hint="no program could see it"
        )
    for name, _ in request.env:
        if not name or "=" in name:
            raise UsageError(f"environment: {name!r} is not a name of a variable", hint="give NAME=VALUE")
    for name, _ in request.annotations:
        if name.startswith("org.stockade."):
            raise UsageError(
                f"annotation {name}: org.stockade. is what Stockade itself says", hint="choose another prefix"
            )


def _check_rootfs(rootfs: str, host: Host) -> None:
    found = host.files.get(rootfs, 2)
    if not rootfs.startswith("/"):
        raise UsageError(f"rootfs {rootfs!r} is not an absolute path", hint="give the full path of the directory")
    if isinstance(found, int):
        why = {2: "no such directory", 13: "permission denied"}.get(found, f"errno {found}")
        raise UsageError(
            f"rootfs {rootfs}: {why}", hint="--rootfs takes a directory with an unpacked root file system in it"
        )
    if found.kind != "dir":
        raise UsageError(f"rootfs {rootfs} is not a directory", hint="unpack the archive first, and name the directory")
    if not rootfs.strip("/"):
        raise UsageError(
            "rootfs / is the host's own root, all of it", hint="--host shows its programs read-only and nothing else"
        )


def _default_user(request: Request, mode: Mode, host: Host) -> str:
    if (request.userns or mode.userns) == "keep-id" and not request.uidmap and not mode.uidmap:
        return f"{host.uid}:{host.gid}"
    return "0"


def _mapped(user: Resolved, maps: Maps | None) -> Resolved:
    """Check that the user exists in the user namespace, and leave out groups that don't."""
    if maps is None:
        return user
    for kind, number, extents in (("uid", user.uid, maps.uid), ("gid", user.gid, maps.gid)):
        if idmap.to_host(extents, number) is None:
            inside = ", ".join(f"{each.container}-{each.container + each.size - 1}" for each in extents)
            raise StockadeError(
                f"{kind} {number} is not mapped in the container's user namespace, which has {inside}",
                hint=f"choose another --user, or map it: --{kind}map {number}:HOST:1 and so on",
            )
    # setgroups(2) is denied where the caller wrote the map without privilege, user_namespaces(7).
    gids = (
        [] if maps.deny_setgroups else [gid for gid in user.additional_gids if idmap.to_host(maps.gid, gid) is not None]
    )
    return user.replace(additional_gids=tuple(gids))


def _namespaces(request: Request, mode: Mode, maps: Maps | None) -> tuple[oci.LinuxNamespace, ...]:
    asked = {
        "network": {"none": "private"}.get(request.network or "", request.network),
        "pid": request.pid,
        "ipc": request.ipc,
        "uts": request.uts,
        "cgroup": request.cgroupns,
    }
    found = [oci.LinuxNamespace("user")] if maps is not None else []
    for kind, said in mode.namespaces.items():
        choice = asked.get(kind) or said
        if choice not in ("private", "host"):
            raise UsageError(f"{kind} namespace: {choice!r} is not known", hint="it is private or host")
        if kind != "user" and choice == "private":
            found.append(oci.LinuxNamespace(kind))
    return tuple(found)


def _hostname(request: Request, linux: oci.Linux) -> str:
    if linux.namespace("uts") is None:
        if request.hostname or request.domainname:
            raise UsageError(
                "--hostname would rename the host: its UTS namespace is shared", hint="leave out --uts host"
            )
        return ""
    hostname = request.hostname or request.name or HOSTNAME
    # sethostname(2) takes 64 bytes
    if len(hostname) > 64 or not set(hostname) <= _HOSTNAME_CHARACTERS:
        raise UsageError(
            f"hostname {hostname!r}: up to 64 letters, digits, dots and hyphens", hint="choose a shorter or plainer one"
        )
    return hostname


def _process(
    request: Request, user: Resolved, privilege: Privilege, hostname: str, rlimits: tuple[oci.POSIXRlimit, ...]
) -> oci.Process:
    names, sets = capabilities.names, privilege.sets
    return oci.Process(
        cwd=request.workdir or "/",
        args=request.argv,
        env=_environment(request, user, hostname),
        user=oci.User(user.uid, user.gid, additional_gids=user.additional_gids),
        terminal=request.tty,
        capabilities=oci.LinuxCapabilities(
            names(sets.bounding),
            names(sets.effective),
            names(sets.inheritable),
            names(sets.permitted),
            names(sets.ambient),
        ),
        rlimits=rlimits,
    )


def _environment(request: Request, user: Resolved, hostname: str) -> tuple[str, ...]:
    """Give the whole environment: nothing of the caller's gets in."""
    found = {"PATH": PATH, "HOME": user.home or "/"}
    if hostname:
        found["HOSTNAME"] = hostname
    if request.tty:
        found["TERM"] = "xterm"
    found |= dict(request.env)
    return tuple([f"{name}={value}" for name, value in found.items()])


def _oci_maps(maps: tuple[idmap.Mapping, ...]) -> tuple[oci.LinuxIDMapping, ...]:
    return tuple([oci.LinuxIDMapping(each.container, each.host, each.size) for each in maps])


def _devices(
    request: Request, mode: Mode, host: Host, privilege: Privilege, maps: Maps | None
) -> tuple[tuple[oci.LinuxDevice, ...], tuple[oci.LinuxDeviceCgroup, ...]]:
    """Give the nodes beyond the default ones, and the rules that the device controller must enforce."""
    found: dict[str, oci.LinuxDevice] = {}
    for path in host.nodes if mode.devices is None else mode.devices:
        inode = host.files.get(path, 2)
        if isinstance(inode, Inode):
            found[path] = _device(path, path, inode)
        elif mode.devices is not None:
            raise StockadeError(
                f"mode {mode.name}: device {path} is not on this host", hint="take it out of the mode's devices"
            )
    rules = []
    for asked in request.devices:
        inode = host.files.get(asked.source, 2)
        if isinstance(inode, int) or inode.kind not in ("char", "block"):
            raise UsageError(f"device {asked.source} is not a device node of the host", hint="ls -l /dev lists them")
        destination = asked.destination
        if not destination.startswith("/dev/") or ".." in destination.split("/"):
            raise UsageError(f"device {destination}: devices are made below /dev", hint="give HOST:/dev/NAME")
        device = _device(destination, asked.source, inode)
        if maps is None or destination == asked.source:
            found[destination] = device
        rules.append(oci.LinuxDeviceCgroup(True, device.type, device.major, device.minor, asked.permissions))
    return tuple(found.values()), tuple(_rules(rules, list(found.values()), mode, privilege, maps))


def _device(path: str, source: str, inode: Inode) -> oci.LinuxDevice:
    major, minor = _major_minor(inode.rdev)
    if inode.kind not in ("char", "block"):
        raise StockadeError(f"device {source} is not a device node", hint="ls -l /dev lists them")
    return oci.LinuxDevice(path, inode.kind[0], major, minor, inode.mode & 0o777, inode.uid, inode.gid)


def _major_minor(rdev: int) -> tuple[int, int]:
    # makedev(3), as glibc packs them
    return (rdev >> 8 & 0xFFF) | (rdev >> 32 & ~0xFFF), (rdev & 0xFF) | (rdev >> 12 & ~0xFF)


def _rules(
    asked: list[oci.LinuxDeviceCgroup],
    nodes: list[oci.LinuxDevice],
    mode: Mode,
    privilege: Privilege,
    maps: Maps | None,
) -> Iterator[oci.LinuxDeviceCgroup]:
    """Give rules only where nothing else enforces the same.

    In a user namespace nobody can make a node, without CAP_MKNOD neither, and every mount is nodev: then the nodes in
    /dev are all there is. Fewer rights than rw, and CAP_MKNOD in the host's user namespace, need the controller.
    """
    makes_nodes = (
        maps is None and privilege.sets.bounding & capabilities.mask(("CAP_MKNOD",)) and mode.devices is not None
    )
    if not makes_nodes and all({"r", "w"} <= set(rule.access) for rule in asked):
        return
    rule = oci.LinuxDeviceCgroup
    yield rule(False, access="rwm")
    yield from (rule(True, kind, access="m") for kind in "cb")
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)):
        yield rule(True, "c", major, minor, "rwm")
    given = {(each.type, each.major, each.minor) for each in asked}
    yield from (
        rule(True, node.type, node.major, node.minor, "rwm")
        for node in nodes
        if (node.type, node.major, node.minor) not in given
    )
    yield from asked


def _renamed_devices(request: Request, maps: Maps | None) -> Iterator[oci.Mount]:
    """Give the nodes that have another name inside a user namespace, where a node can only be bound, not made."""
    for asked in request.devices:
        if maps is not None and asked.destination != asked.source:
            yield oci.Mount(asked.destination, "bind", asked.source, ("bind", "private", "dev", "nosuid", "noexec"))


def _sysctl(mode: Mode, shared: Shared, user: Resolved, maps: Maps | None) -> dict[str, str]:
    """Give the mode's sysctls whose namespace is the container's own. Raises StockadeError for one of the host's."""
    own = {"network": not shared.network, "ipc": not shared.ipc}
    found = {}
    for name, value in mode.sysctl.items():
        kinds = [kind for prefix, kind in _SYSCTLS.items() if name.startswith(prefix)]
        if not kinds:
            raise StockadeError(
                f"mode {mode.name}: sysctl {name} is the host's",
                hint="only net.*, kernel.msg*, kernel.sem, kernel.shm* and fs.mqueue.* are per namespace",
            )
        if own[kinds[0]]:
            found[name] = value
    if maps is not None and not maps.zero and found.get("net.ipv4.ping_group_range") == "0 0":
        # The kernel takes mapped groups only (EINVAL)
        found["net.ipv4.ping_group_range"] = f"{user.gid} {user.gid}"
    return found


def _kernel_paths(
    request: Request, mode: Mode, mounts: tuple[oci.Mount, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if request.systempaths == "unconfined":
        return (), ()
    masked = mode.masked_paths
    if masked and build_mounts.needs_cgroup_mask(mounts):
        masked = (*masked, "/sys/fs/cgroup")
    return masked, mode.readonly_paths


def _annotations(request: Request, mode: Mode, host: Host, privilege: Privilege, maps: Maps | None) -> dict[str, str]:
    found: dict[str, str] = dict(request.annotations)
    found |= {oci.LABEL + name: value for name, value in request.labels}
    found |= {oci.MODE: mode.name, oci.SECCOMP: request.seccomp or mode.seccomp}
    said: Mapping[str, str | None] = {
        oci.INIT: "true" if request.init else None,
        oci.KEEP_STDIN: "true" if request.interactive else None,
        oci.STOP_SIGNAL: str(request.stop_signal) if request.stop_signal else None,
        oci.TIMEOUT: str(request.timeout) if request.timeout else None,
        oci.SECUREBITS: str(privilege.securebits) if privilege.securebits else None,
        oci.SETGROUPS: "deny" if maps is not None and maps.deny_setgroups else None,
        oci.BEST_EFFORT: "true" if request.best_effort else None,
        oci.ROOT_IDMAP: "true" if _needs_idmap(request, host, maps) else None,
    }
    return found | {name: value for name, value in said.items() if value is not None}


def _needs_idmap(request: Request, host: Host, maps: Maps | None) -> bool:
    """Tell whether the rootfs belongs to nobody inside: then its ids are shifted by the mount, mount_setattr(2).

    Only root can have that (Linux 5.12); for another caller files of foreign ids stay nobody's.
    """
    if request.rootfs is None or maps is None or not host.privileged or host.kernel < (5, 12):
        return False
    owner = host.files.get(request.rootfs, 0)
    return isinstance(owner, Inode) and idmap.to_container(maps.uid, owner.uid) is None
