"""What of the host is mounted into the container."""

from collections.abc import Iterator

from stockade.audit import gates
from stockade.audit.facts import CapabilitySets, EngineSocket, Identity, Mount, UserNamespace
from stockade.audit.report import Severity
from stockade.audit.rule import CannotTell, Found, Outcome, is_declared, rule, seen
from stockade.audit.rules.known import engine_made, is_host_file, normal, within
from stockade.audit.rules.sensitive import Sensitive, credentials, sensitive
from stockade.sandbox.linux import capabilities as caps

_T1611 = "https://attack.mitre.org/techniques/T1611/"
_PSS = "https://kubernetes.io/docs/concepts/security/pod-security-standards/"


def _written(condition: str, mount: Mount) -> tuple[str, ...]:
    """Give a condition, and that of writing where the mount is writable."""
    return (condition, "MNT-RW") if mount.writable else (condition,)


def _line(mount: Mount) -> str:
    access = "writable" if mount.writable else "read-only"
    return seen(mount, f"{mount.destination} is the host's {mount.host_path}, {access}")


@rule(
    Severity.CRITICAL,
    _T1611,
    "https://docs.docker.com/engine/security/#docker-daemon-attack-surface",
    conditions=("MNT-SOCK", "FD-SOCK", "MNT-DBUS"),
    cis=("5.32",),
    attack=("T1611", "T1610"),
    cwe=(250,),
)
def engine_socket(socket: EngineSocket, identity: Identity | None) -> Iterator[Outcome]:
    """A container engine's socket can be reached.

    Whoever can connect asks the engine for a privileged container with the host's root mounted, which is root on the
    host. A read-only mount changes nothing: connecting isn't a write to the file. The same goes for systemd's sockets.

    Severity: low when the socket's mode refuses the container's ids; high where a file names another user than
    root, whom most sockets refuse.

    Fix: take the socket away; give the program a proxy that allows only the calls it needs.

    ```toml bad
    [[EngineSocket]]
    path = "/var/run/docker.sock"
    engine = "docker"
    permitted = true
    ```

    ```toml good
    [[Mount]]
    destination = "/var/run"
    fstype = "tmpfs"
    writable = true
    options = ["rw", "nosuid", "nodev"]
    super_options = ["rw", "size=1024k"]
    ```
    """
    how = "is mounted" if socket.via == "mount" else "is open"
    condition = "FD-SOCK" if socket.via == "descriptor" else "MNT-DBUS" if socket.engine == "systemd" else "MNT-SOCK"
    answer = {True: "the ids may connect", False: "the ids may not connect", None: "permission not known"}
    source = f" (the host's {socket.host_path})" if socket.host_path else ""
    severity = Severity.LOW if socket.permitted is False else None
    if socket.permitted is None and is_declared(socket) and gates.host_root(identity) is False:
        severity = Severity.HIGH
    yield Found(
        f"{socket.engine}'s socket {how} in the container at {socket.path}",
        socket.where,
        (seen(socket, f"{socket.path}{source}: {answer[socket.permitted]}"),),
        severity,
        (condition,),
        key=f"{socket.engine} {socket.via} {socket.path if socket.via == 'mount' else ''}",
    )


@rule(Severity.CRITICAL, _T1611, conditions=("MNT-ROOT",), cis=("5.6", "K8S 5.2.12"), attack=("T1611",), cwe=(668,))
def host_root_mounted(mount: Mount, identity: Identity | None, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The host's root directory is mounted.

    Writable, it lets host root change any program of the host. Read-only, it shows every secret that the ids may read,
    and every socket in it still answers.

    Severity: high when it is read-only or the process isn't host root, medium when both.

    Fix: mount the one directory that the program needs.

    ```toml bad
    [[Mount]]
    destination = "/host"
    fstype = "ext4"
    host_path = "/"
    writable = true
    options = ["rw"]
    ```

    ```toml good
    [[Mount]]
    destination = "/usr"
    fstype = "ext4"
    host_path = "/usr"
    writable = false
    options = ["ro", "nosuid", "nodev"]
    ```
    """
    if mount.host_path is None or mount.destination == "/" or normal(mount.host_path) != "/":
        return
    if not is_host_file(mount):  # the root of a kernel file system, such as /proc, is no directory of files
        return
    steps = (not mount.writable) + (not gates.may_be_host_root(identity, userns))
    title = f"the host's root directory is mounted at {mount.destination}"
    severity = gates.lower(Severity.CRITICAL, steps)
    yield Found(title, mount.where, (_line(mount),), severity, _written("MNT-ROOT", mount), key=mount.destination)


@rule(
    Severity.HIGH,
    _T1611,
    _PSS,
    conditions=("MNT-SENS", "MNT-RUNTIME", "MNT-CRON", "MNT-VARLOG"),
    cis=("5.6", "K8S 5.2.12"),
    attack=("T1611", "T1053.003"),
    cwe=(668,),
)
def sensitive_host_path(mount: Mount, identity: Identity | None, userns: UserNamespace | None) -> Iterator[Outcome]:
    """A sensitive directory of the host is mounted.

    System configuration, home directories, engines' state and start-up files turn a write into code that runs as
    root on the host, or a read into its secrets. A directory above one of them is as bad as the directory itself.

    Severity: critical for writable start-up files and engines' state; lower when read-only and for other ids than host
    root, to which root's files are closed. Public files (/usr, /etc/passwd, certificates) may be read.

    Fix: leave the mount out, narrow it to the files that are needed, make it read-only.

    ```toml bad
    [[Mount]]
    destination = "/host/etc"
    fstype = "ext4"
    host_path = "/etc"
    writable = true
    options = ["rw", "nosuid", "nodev"]
    ```

    ```toml good
    [[Mount]]
    destination = "/etc/ssl/certs"
    fstype = "ext4"
    host_path = "/etc/ssl/certs"
    writable = false
    options = ["ro", "nosuid", "nodev"]
    ```
    """
    found = _sensitive(mount)
    if found is None:
        return
    severity = found.severity
    if severity > Severity.LOW and not found.personal and not gates.may_be_host_root(identity, userns):
        severity = max(Severity.LOW, gates.lower(severity, 2))
    title = f"{found.what}: the host's {mount.host_path} is mounted at {mount.destination}"
    key = f"{mount.host_path} {mount.destination}"
    conditions = _written(found.condition, mount)
    if found.condition == "MNT-VARLOG":
        conditions += ("MNT-SENS",)
    yield Found(title, mount.where, (_line(mount),), severity, conditions, key=key)


def _sensitive(mount: Mount) -> Sensitive | None:
    if not is_host_file(mount) or engine_made(mount) or mount.host_path is None:
        return None
    path = normal(mount.host_path)
    return sensitive(path, writable=mount.writable) if path != "/" and not credentials(path) else None


@rule(
    Severity.MEDIUM,
    _PSS,
    conditions=("MNT-HOSTPATH", "MNT-RW", "MNT-FLAGS"),
    cis=("5.6", "K8S 5.2.12"),
    attack=("T1611",),
    cwe=(668,),
)
def host_path(
    mount: Mount,
    identity: Identity | None,
    userns: UserNamespace | None,
    sockets: tuple[EngineSocket, ...] | None,
) -> Iterator[Outcome]:
    """A directory of the host is mounted.

    What the container writes there, the host and other containers read. Without nosuid, host root can leave a setuid
    program there for a user of the host to find.

    Severity: medium when host root can write and set setuid bits, low when writable, info when read-only; none for the
    system's public files, read-only.

    Fix: use a volume of the engine's; mount read-only what is only read, and with nosuid and nodev what is written.

    ```toml bad
    [[Mount]]
    destination = "/data"
    fstype = "ext4"
    host_path = "/srv/data"
    writable = true
    options = ["rw", "nosuid", "nodev"]
    ```

    ```toml good
    [[Mount]]
    destination = "/usr/lib"
    fstype = "ext4"
    host_path = "/usr/lib"
    writable = false
    options = ["ro", "nosuid", "nodev"]
    ```
    """
    if not is_host_file(mount) or engine_made(mount) or mount.host_path is None or _sensitive(mount):
        return
    path, declared = normal(mount.host_path), mount.fstype is None
    if path == "/" or credentials(path) or any(socket.path == mount.destination for socket in sockets or ()):
        return
    if not mount.writable and any(within(path, public) for public in _PUBLIC) and not declared:
        return
    root = gates.host_root(identity, userns)
    plants = mount.writable and "nosuid" not in mount.options and (root or (root is None and not declared))
    severity = Severity.MEDIUM if plants else Severity.LOW if mount.writable else Severity.INFO
    conditions = ("MNT-HOSTPATH", *(("MNT-RW",) if mount.writable else ()), *(("MNT-FLAGS",) if plants else ()))
    title = f"the host's {mount.host_path} is mounted at {mount.destination}"
    title += ", writable" if mount.writable else ", read-only"
    evidence = (_line(mount) + (" and without nosuid" if plants else ""),)
    yield Found(title, mount.where, evidence, severity, conditions, key=f"{path} {mount.destination}")


_PUBLIC = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc")


@rule(
    Severity.CRITICAL,
    _T1611,
    conditions=("MNT-PROC", "MNT-SYS", "MNT-DEV"),
    cis=("5.6", "K8S 5.2.12"),
    attack=("T1611",),
    cwe=(668,),
)
def host_kernel_files(mount: Mount, identity: Identity | None, userns: UserNamespace | None) -> Iterator[Outcome]:
    """The host's /proc, /sys or /dev is mounted.

    The engine masks the container's own /proc; a bind of the host's brings everything back under another name:
    /proc/sys, sysrq-trigger, the host's processes, its disks.

    Severity: medium for a process that isn't host root; one step lower read-only.

    Fix: leave it out; tools that watch the host run on the host.

    ```toml bad
    [[Mount]]
    destination = "/host/proc"
    fstype = "proc"
    host_path = "/proc"
    writable = true
    options = ["rw"]
    ```

    ```toml good
    [[Mount]]
    destination = "/proc"
    fstype = "proc"
    writable = true
    options = ["rw", "nosuid", "nodev", "noexec"]
    ```
    """
    path = normal(mount.host_path) if mount.host_path else ""
    if path not in {"/proc", "/sys", "/dev", "/proc/sys"}:
        return
    # With the host's pid namespace the container's own /proc is the host's file system, and rootless engines bind /sys;
    # in their usual places the masks and the files opened for writing tell what is open.
    if path == mount.destination and (path.startswith("/proc") or not mount.writable) and not is_declared(mount):
        return
    steps = (not mount.writable) + 2 * (not gates.may_be_host_root(identity, userns))
    condition = {"/sys": "MNT-SYS", "/dev": "MNT-DEV"}.get(path, "MNT-PROC")
    title = f"the host's {path} is mounted at {mount.destination}"
    severity = gates.lower(Severity.CRITICAL, steps)
    yield Found(title, mount.where, (_line(mount),), severity, _written(condition, mount), key=mount.destination)


@rule(
    Severity.MEDIUM,
    "https://docs.kernel.org/filesystems/sharedsubtree.html",
    conditions=("MNT-PROP",),
    cis=("5.20",),
    attack=("T1611",),
    cwe=(668,),
)
def shared_propagation(mount: Mount, sets: CapabilitySets | None, userns: UserNamespace | None) -> Iterator[Outcome]:
    """Mounts that the container makes appear on the host.

    A shared mount belongs to a peer group of the host: what is mounted inside is mounted outside as well, over whatever
    the host has there.

    Severity: low without CAP_SYS_ADMIN against the host.

    Fix: mount it private or as a slave (rprivate, rslave; mountPropagation: None).

    ```toml bad
    [[Mount]]
    destination = "/"
    propagation = "shared"
    ```

    ```toml good
    [[Mount]]
    destination = "/"
    propagation = "slave"
    ```
    """
    if mount.propagation is None and mount.host_path is not None:
        yield CannotTell(f"the propagation of {mount.destination} is not known", mount.where)
    if mount.propagation == "shared":
        admin = sets is None or gates.counting(sets, userns) & caps.mask(["SYS_ADMIN"])
        title = f"mounts below {mount.destination} appear on the host"
        line = seen(mount, f"{mount.destination} is shared with a peer group of the host")
        yield Found(title, mount.where, (line,), None if admin else Severity.LOW, key=mount.destination)
    elif mount.propagation == "slave" and mount.fstype is None and mount.host_path is not None:
        # an engine makes slaves of its own accord; a file that asks for one wants the host's later mounts inside
        title = f"what the host mounts later appears below {mount.destination}"
        line = seen(mount, f"{mount.destination} is a slave of the host's {mount.host_path}")
        yield Found(title, mount.where, (line,), Severity.INFO, key=mount.destination)
