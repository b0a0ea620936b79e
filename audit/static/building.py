"""Makes facts from what a file says, the same way for every kind of file.

Each function gives facts for one subject; collectors add them up. `where` is always the place of the key that decides,
of the parent where the key is absent. What a file leaves to the engine is `unset` and, where that depends on how the
engine is set up, a Gap besides.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from stockade.audit import facts, gates
from stockade.audit.rules.known import normal, within
from stockade.audit.static.credentials import credential
from stockade.sandbox.linux import capabilities as caps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stockade.audit.facts import Fact, LimitName, NamespaceKind, Where

#: what each engine gives to a container that asks for nothing. containerd has docker's list; podman's, from
#: containers/common pkg/config/default.go, lacks three; CRI-O's (pkg/config) lacks five.
BASES: dict[str, int] = {
    "docker": gates.USUAL,
    "containerd": gates.USUAL,
    "kubernetes": gates.USUAL,
    "podman": gates.USUAL & ~caps.mask(("NET_RAW", "MKNOD", "AUDIT_WRITE")),
    "cri-o": gates.USUAL & ~caps.mask(("NET_RAW", "MKNOD", "AUDIT_WRITE", "SYS_CHROOT")),
    # systemd-nspawn(1), --capability=
    "nspawn": gates.USUAL
    | caps.mask(
        (
            "AUDIT_CONTROL",
            "DAC_READ_SEARCH",
            "IPC_OWNER",
            "LEASE",
            "LINUX_IMMUTABLE",
            "NET_BROADCAST",
            "SYS_ADMIN",
            "SYS_BOOT",
            "SYS_NICE",
            "SYS_PTRACE",
            "SYS_RESOURCE",
            "SYS_TTY_CONFIG",
        )
    ),
    "none": 0,
}
#: what OCI engines hide and make read-only (moby/oci/defaults.go); a file that unmasks opens all of it
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/scsi",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

#: the file name of an engine's socket → the engine
SOCKETS: dict[str, str] = {
    "docker.sock": "docker",
    "podman.sock": "podman",
    "containerd.sock": "containerd",
    "containerd.sock.ttrpc": "containerd",
    "crio.sock": "cri-o",
    "buildkitd.sock": "buildkit",
    "cri-dockerd.sock": "cri-dockerd",
    "dockershim.sock": "dockershim",
    "frakti.sock": "frakti",
    "rktlet.sock": "rktlet",
    "kubelet.sock": "the kubelet's device plugins",
    "system_bus_socket": "systemd",
    "nri.sock": "containerd",
}
# a directory that holds an engine's socket, and which: mounted, it gives the socket as well
_HOLDS = {
    "/run": ("docker", "docker.sock"),
    "/run/podman": ("podman", "podman.sock"),
    "/run/containerd": ("containerd", "containerd.sock"),
    "/run/k3s": ("containerd", "containerd/containerd.sock"),
    "/run/k3s/containerd": ("containerd", "containerd.sock"),
    "/run/crio": ("cri-o", "crio.sock"),
    "/run/buildkit": ("buildkit", "buildkitd.sock"),
    "/run/dbus": ("systemd", "system_bus_socket"),
    "/run/systemd": ("systemd", "private"),
    "/run/snap.docker": ("docker", "docker.sock"),
}
_KERNELS = {"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"}
# nodes whose numbers the kernel fixes (Documentation/admin-guide/devices.txt); of others only the kind is known
_NODES: dict[str, tuple[str, int, int]] = {
    "mem": ("char", 1, 1), "kmem": ("char", 1, 2), "null": ("char", 1, 3), "port": ("char", 1, 4),
    "zero": ("char", 1, 5), "full": ("char", 1, 7), "random": ("char", 1, 8), "urandom": ("char", 1, 9),
    "kmsg": ("char", 1, 11), "tty": ("char", 5, 0), "console": ("char", 5, 1), "fuse": ("char", 10, 229),
    "kvm": ("char", 10, 232), "net/tun": ("char", 10, 200), "vhost-net": ("char", 10, 238),
    "vhost-vsock": ("char", 10, 241), "uinput": ("char", 10, 223), "vfio/vfio": ("char", 10, 196),
    "userfaultfd": ("char", 10, 126), "loop-control": ("char", 10, 237), "mapper/control": ("char", 10, 236),
    "sda": ("block", 8, 0), "nvme0n1": ("block", 259, 0), "vda": ("block", 254, 0), "xvda": ("block", 202, 0),
    "loop0": ("block", 7, 0),
}  # fmt: skip
_BLOCK = (
    "sd", "hd", "vd", "xvd", "nvme", "mmcblk", "loop", "dm-", "md", "mapper/", "disk/", "nbd", "ram", "zram", "sr",
)  # fmt: skip


def unset(where: Where, subject: str) -> facts.Unset:
    """Say that a file leaves a setting to the engine; `subject` is one of those that facts.Unset lists."""
    return facts.Unset(where=where, subject=subject)


def privileged(where: Where, *, value: bool = True) -> Iterator[Fact]:
    """Give what the switch brings: with `value` every capability and device, no filter and no masks.

    The collector then gives no other facts of capabilities, seccomp, AppArmor, devices and masks, which the engine
    passes over.
    """
    yield facts.Privileged(where=where, value=value)
    if value:
        yield facts.CapabilitySets(
            where=where, bounding=caps.ALL, effective=caps.ALL, inheritable=0, permitted=caps.ALL, ambient=0
        )
        yield facts.SeccompState(where=where, mode="disabled", filters=0)
        yield facts.DevicePolicy(where=where, default="allow")
        yield from masks(where, unmasked=True)


def plain(name: str) -> str:
    """Give a capability's name without CAP_ and in capitals, as facts.CapabilityChange has it."""
    return name.strip().upper().removeprefix("CAP_")


def capabilities(
    where: Where,
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    *,
    engine: str = "docker",
    root: bool | None = None,
    drop_where: Where | None = None,
) -> Iterator[Fact]:
    """Give the sets that an engine makes of its usual ones and what is added and dropped, and the change itself.

    Names are taken in any case, with or without CAP_; "ALL" is all. Who isn't `root` holds none of them and has them
    in the bounding set; None is not known, and counted as root. `where` is the place of what is added, `drop_where`
    of what is dropped (or isn't).
    """
    added, dropped = tuple([plain(name) for name in add]), tuple([plain(name) for name in drop])
    have = BASES.get(engine, gates.USUAL)
    if "ALL" in added:
        have = caps.ALL & ~_mask(dropped)
    else:
        have = (0 if "ALL" in dropped else have & ~_mask(dropped)) | _mask(added)
    held = 0 if root is False else have
    yield facts.CapabilitySets(where=where, bounding=have, effective=held, inheritable=0, permitted=held, ambient=0)
    yield facts.CapabilityChange(where=where, added=added, dropped=dropped, drop_where=drop_where)


def _mask(names: Iterable[str]) -> int:
    bits = 0
    for name in names:
        try:
            bits |= 1 << caps.number(name)
        except ValueError:
            continue  # "ALL", a newer kernel's, a misspelt one, which the engine refuses
    return bits


def namespace(
    kind: NamespaceKind, where: Where, *, host: bool | None, shared_with: Iterable[str] = ()
) -> facts.Namespace:
    """Give a namespace; `host` None is not known, `shared_with` names the other containers in it."""
    return facts.Namespace(where=where, kind=kind, host=host, shared_with=tuple(shared_with))


def bind(
    where: Where,
    destination: str,
    host_path: str,
    *,
    writable: bool = True,
    options: Iterable[str] = (),
    propagation: str | None = None,
    subpath: str | None = None,
) -> Iterator[Fact]:
    """Give the mount of a host's path, and the engine's socket and the device that it brings into view.

    `host_path` may begin with "~", "./" or "../"; `propagation` is as mount(8) and compose spell it ("rshared", ...).
    """
    path = normal(host_path)
    yield facts.Mount(
        where=where,
        destination=destination,
        fstype=next((fstype for top, fstype in _KERNELS.items() if path in {top, f"{top}/sys"}), None),
        host_path=host_path,
        writable=writable,
        options=tuple(options) or ("rw" if writable else "ro",),
        propagation=_propagation(propagation),
        subpath=subpath,
    )
    engine = _socket_of(path)
    if engine:
        yield facts.EngineSocket(where=where, path=destination, engine=engine, host_path=host_path)
    elif path in _HOLDS:
        engine, name = _HOLDS[path]
        inside = posixpath.join(destination, name)
        yield facts.EngineSocket(where=where, path=inside, engine=engine, host_path=posixpath.join(host_path, name))
    if path.startswith("/dev/") and _node(path)[0] == "block":
        yield device(where, host_path, destination)


def _propagation(word: str | None) -> facts.Propagation | None:
    plain_ = (word or "").removeprefix("r")
    # mypy does not narrow text by a set
    return plain_ if plain_ in {"private", "shared", "slave", "unbindable"} else None  # type: ignore[return-value]


def _socket_of(path: str) -> str | None:
    directory, _, name = path.rpartition("/")
    if path in {"/run/systemd/private", "/run/systemd/notify"}:
        return "systemd"
    # a program's own socket may have any of these names; an engine's lies where sockets do
    usual = within(path, "/run") or within(path, "/var/snap") or name in {"docker.sock", "podman.sock"}
    return SOCKETS.get(name) if usual and directory else None


def device(where: Where, host_path: str, destination: str | None = None, access: str = "rwm") -> facts.DeviceNode:
    """Give a device that is passed on, with the numbers that its name tells (-1 where they aren't fixed)."""
    kind, major, minor = _node(normal(host_path))
    opens = bool(set(access) & {"r", "w"})
    return facts.DeviceNode(
        where=where,
        path=destination or host_path,
        kind="block" if kind == "block" else "char",
        major=major,
        minor=minor,
        usable=opens,
        policy=opens,
    )


def _node(path: str) -> tuple[str, int, int]:
    name = path.removeprefix("/dev/")
    return _NODES.get(name) or ("block" if name.startswith(_BLOCK) else "char", -1, -1)


def device_policy(where: Where, rules: Iterable[str] = (), *, default_allow: bool = False) -> facts.DevicePolicy:
    """Give the device policy with more rules, such as "c 10:* rwm" or "a"; one for everything allows all."""
    lines = tuple(rules)
    everything = default_allow or any(line.split()[:1] == ["a"] for line in lines)
    return facts.DevicePolicy(where=where, default="allow" if everything else "deny", rules=lines)


_USUAL_PROFILES = frozenset(
    {"default", "builtin", "docker/default", "runtime/default", "runtimedefault", "/usr/share/containers/seccomp.json"}
)


def seccomp(where: Where, profile: str | None) -> Fact:
    """Give the filter that a profile's name means: "unconfined" is none, RuntimeDefault and its like the engine's own.

    None is a file that leaves it to the engine, without saying what that does.
    """
    if profile is None:
        return unset(where, "seccomp")
    word = profile.strip()
    if word.lower() == "unconfined":
        return facts.SeccompState(where=where, mode="disabled", filters=0, profile="unconfined")
    usual = word.lower() in _USUAL_PROFILES
    return facts.SeccompState(where=where, mode="filter", filters=1, profile="default" if usual else word)


def apparmor(where: Where, profile: str | None) -> Fact:
    """Give the AppArmor profile that a file names ("unconfined", "runtime/default", "localhost/web"); None is unset."""
    if profile is None:
        return unset(where, "apparmor")
    word = profile.strip()
    mode = "unconfined" if word.lower() == "unconfined" else "enforce"
    return facts.LsmLabel(where=where, module="apparmor", label=word, mode=mode)  # type: ignore[arg-type] # a Literal


def selinux(where: Where, *, user: str = "", role: str = "", type_: str = "", level: str = "") -> facts.LsmLabel:
    """Give the parts of a SELinux label that a file sets; the engine fills in the others."""
    return facts.LsmLabel(where=where, module="selinux", label=f"{user}:{role}:{type_}:{level}")


def selinux_disabled(where: Where) -> facts.LsmLabel:
    """Say that labels are turned off (label=disable, label:disable)."""
    return facts.LsmLabel(where=where, module="selinux", label="disable", mode="unconfined")


def no_new_privs(where: Where, *, value: bool) -> facts.NoNewPrivs:
    """Say whether programs can raise privileges: `value` True is no-new-privileges, allowPrivilegeEscalation false."""
    return facts.NoNewPrivs(where=where, value=value)


def identity(
    where: Where, user: str | int | None, group: str | int | None = None, groups: Iterable[str | int] = ()
) -> Iterator[Fact]:
    """Give who the program runs as: "1000", "1000:50", "app:app", 0; None and "" leave it to the image.

    A name has no id before the image is read, but "root" is 0. The ids on the host depend on the engine.
    """
    more = tuple(groups)
    ids = tuple([number for each in more if (number := _id(each)) is not None])
    names = tuple([str(each) for each in more if _id(each) is None])
    name = None if user is None else str(user).strip()
    if name and ":" in name:
        name, _, after = name.partition(":")
        group = after if group is None else group
    gid = _id(group) if group not in {None, ""} else None
    if group not in {None, ""} and gid is None:
        names = (str(group), *names)
    if not name:
        yield unset(where, "user")
        if gid is None and not more:
            return
    uid = _id(name) if name else None
    yield facts.Identity(
        where=where,
        uids=None if uid is None else (uid, uid, uid, uid),
        # a user without a group gets the one of the image's passwd, root the group 0
        gids=None if gid is None else (gid, gid, gid, gid),
        groups=ids if more else None,
        user=name or None,
        group_names=names,
    )


def _id(value: str | int | None) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    word = str(value).strip()
    return 0 if word == "root" else int(word) if word.isascii() and word.isdigit() and len(word) < 11 else None


def user_namespace(where: Where, *, host: bool) -> facts.UserNamespace:
    """Say that the container has a user namespace of its own, without host root, or (`host`) the initial one."""
    from stockade.sandbox.linux.idmap import Mapping

    if host:
        return facts.UserNamespace(where=where, initial=True)
    # which ids it gets is the engine's choice; each engine that makes one leaves host root out
    ids = (Mapping(0, 65536, 65536),)
    return facts.UserNamespace(where=where, initial=False, uid_map=ids, gid_map=ids)


def limit(where: Where, name: LimitName, value: int | None) -> facts.CgroupLimit:
    """Give a limit: memory and swap in bytes, pids in tasks, cpu in thousandths; None is none at all."""
    return facts.CgroupLimit(where=where, name=name, value=value)


def masks(where: Where, *, unmasked: bool | Iterable[str] = False) -> Iterator[facts.Mask]:
    """Give the protection of /proc and /sys: the engines' own, all open (`unmasked` True), or the named paths open."""
    named = tuple(unmasked) if not isinstance(unmasked, bool) else ()
    for paths, state in ((MASKED, "masked"), (READ_ONLY, "read-only")):
        for path in paths:
            opened = unmasked is True or any(within(path, normal(each)) for each in named)
            shown = "open" if opened else state
            yield facts.Mask(where=where, path=path, state=shown, declared=shown)  # type: ignore[arg-type] # a Literal


def image(where: Where, reference: str, *, local: bool = False) -> facts.Image:
    """Take an image's reference apart: registry/path:tag@digest. What has variables in it is known only when used."""
    word = reference.strip().removeprefix("docker://").removeprefix("docker-image://")
    if local or not word or "$" in word or "{{" in word:
        return facts.Image(where=where, reference=reference, local=True)
    name, _, digest = word.partition("@")
    first, slash, rest = name.partition("/")
    registry = first if slash and ("." in first or ":" in first or first == "localhost") else None
    _, colon, tag = (rest if registry else name).rpartition(":")
    return facts.Image(
        where=where, reference=word, registry=registry, tag=tag if colon else None, digest=digest or None
    )


def variable(where: Where, name: str, value: str | None, source: str = "") -> facts.Variable:
    """Give a variable of the environment; its value is looked at and not kept. None is one that stands elsewhere."""
    secret = credential(name, value) if value is not None else None
    return facts.Variable(where=where, name=name, literal=value is not None, secret=secret, source=source)


def port(
    where: Where,
    container_port: int | None,
    *,
    host_port: int | None = None,
    host_ip: str = "",
    protocol: str = "tcp",
    count: int = 1,
) -> facts.Port:
    """Give a port (facts.Port says how)."""
    return facts.Port(
        where=where,
        container_port=container_port,
        host_port=host_port,
        host_ip=host_ip,
        protocol=protocol.lower(),
        count=count,
    )


def sysctl(where: Where, name: str, value: str = "") -> facts.SysctlSetting:
    """Give a kernel setting; slashes in its name are taken for dots, as by the program that sets them."""
    return facts.SysctlSetting(where=where, name=name.strip().replace("/", "."), value=value)
