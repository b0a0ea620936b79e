"""Who may give a container engine orders, which is the same as being root, and who may change what it does."""

from collections.abc import Iterator

from stockade.audit.facts import DaemonListener, DaemonSetting, EngineMember, HostFile
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen

_SURFACE = "https://docs.docker.com/engine/security/#docker-daemon-attack-surface"
_BENCH = "https://github.com/docker/docker-bench-security"
# groups that distributions make for an engine's socket: their members are listed by another rule
_EXPECTED = frozenset({"root", "docker", "podman", "containerd", "crio"})


@rule(
    Severity.CRITICAL,
    "https://docs.docker.com/engine/security/protect-access/",
    _BENCH,
    conditions=("DMN-TCP",),
    scope="host",
    cis=("2.7",),
    attack=("T1610", "T1133"),
    cwe=(306,),
)
def engine_on_the_network(listener: DaemonListener) -> Iterator[Outcome]:
    """An engine takes orders over TCP from whoever connects.

    An order can start a container with the host's root directory in it: whoever reaches the port is root on the host.
    TLS alone encrypts; only with verified client certificates (tlsverify) does it matter who connects.

    Severity: high where it listens on the loopback interface, which every user of the host and every container in the
    host's network reaches.

    Fix: tlsverify with a certificate authority of your own, or SSH (docker context create --docker host=ssh://...).

    ```toml bad
    [[DaemonListener]]
    address = "tcp://0.0.0.0:2375"
    engine = "docker"
    tls = "none"
    ```

    ```toml good
    [[DaemonListener]]
    address = "tcp://0.0.0.0:2376"
    engine = "docker"
    tls = "verified"
    ```
    """
    if not listener.address.startswith("tcp://") or listener.tls == "verified":
        return
    local = listener.address.startswith(("tcp://127.", "tcp://localhost", "tcp://[::1]", "tcp://[::ffff:127."))
    how = "encrypted, from any client" if listener.tls == "encrypted" else "without TLS"
    title = f"{listener.engine} takes orders at {listener.address}, {how}"
    yield Found(
        title,
        listener.where,
        (seen(listener, f"{listener.address}, TLS: {listener.tls}"),),
        severity=Severity.HIGH if local else None,
        key=listener.address,
    )


@rule(
    Severity.CRITICAL,
    _SURFACE,
    _BENCH,
    conditions=("DMN-SOCKPERM",),
    scope="host",
    cis=("3.16",),
    attack=("T1068", "T1610"),
    cwe=(732,),
)
def open_socket(listener: DaemonListener) -> Iterator[Outcome]:
    """An engine's socket is open to users without privilege.

    Connecting needs write permission on the socket, and nothing else. Whoever has it starts containers with any
    privilege, so is root on the host.

    Severity: high where a group has it that isn't the engine's own, or where a user owns the socket of root's engine.

    Fix: mode 0660 and the group root or docker (SocketMode= and SocketGroup= of the systemd socket, "group" in
    daemon.json).

    ```toml bad
    [[DaemonListener]]
    address = "unix:///run/docker.sock"
    engine = "docker"
    mode = 438
    owner = 0
    group = "docker"
    ```

    ```toml good
    [[DaemonListener]]
    address = "unix:///run/docker.sock"
    engine = "docker"
    mode = 432
    owner = 0
    group = "docker"
    ```
    """
    if listener.mode is None or listener.address.startswith("unix:///run/user/"):
        return
    line = seen(listener, f"mode {listener.mode:04o}, owner {listener.owner}, group {listener.group}")
    if listener.mode & 0o002:
        yield Found(f"every user may use {listener.engine}'s socket", listener.where, (line,), key=listener.address)
    elif listener.owner:
        title = f"uid {listener.owner} owns {listener.engine}'s socket"
        yield Found(title, listener.where, (line,), severity=Severity.HIGH, key=listener.address)
    elif listener.mode & 0o020 and listener.group not in _EXPECTED:
        title = f"the group {listener.group} may use {listener.engine}'s socket"
        yield Found(title, listener.where, (line,), severity=Severity.HIGH, key=listener.address)


@rule(
    Severity.MEDIUM,
    _SURFACE,
    _BENCH,
    conditions=("DMN-GROUP",),
    scope="host",
    cis=("1.1.2",),
    attack=("T1078.003",),
    cwe=(250,),
)
def engine_group(members: tuple[EngineMember, ...]) -> Iterator[Outcome]:
    """Users are root by being in an engine's group.

    The group may use the socket, and `docker run -v /:/host` makes root of that, without a password and without a word
    in the log of sudo.

    Fix: take out who needn't be in it; rootless Docker or Podman serves most.

    ```toml bad
    [[EngineMember]]
    user = "ann"
    group = "docker"
    socket = "/run/docker.sock"
    ```

    ```toml good
    [[DaemonListener]]
    address = "unix:///run/docker.sock"
    engine = "docker"
    mode = 432
    owner = 0
    group = "docker"
    ```
    """
    for group in dict.fromkeys(member.group for member in members):
        inside = [member for member in members if member.group == group]
        names = ", ".join(sorted({member.user for member in inside}))
        title = f"members of {group} may do what root may: {names}"
        lines = tuple(
            [seen(member, f"{member.user} is in {group}, which may write {member.socket}") for member in inside]
        )
        yield Found(title, inside[0].where, lines, key=group)


@rule(Severity.HIGH, _BENCH, conditions=("DMN-FILES",), scope="host", attack=("T1543", "T1574"), cwe=(732,))
def engine_file(file: HostFile) -> Iterator[Outcome]:
    """Others than root may change what an engine does.

    Its configuration, its unit or its program decides what root runs; whoever may write it is root at the next start.
    A private key that others read lets them in as a client or as the daemon.

    Fix: chown root:root and chmod go-w; chmod 0400 for keys.

    ```toml bad
    [[HostFile]]
    path = "/etc/docker/daemon.json"
    mode = 438
    owner = 0
    group = 0
    ```

    ```toml good
    [[HostFile]]
    path = "/etc/docker/daemon.json"
    mode = 420
    owner = 0
    group = 0
    ```
    """
    line = seen(file, f"mode {file.mode:04o}, owner {file.owner}:{file.group}")
    if file.owner:
        yield Found(f"{file.path} belongs to uid {file.owner}", file.where, (line,), key=file.path)
    elif file.mode & 0o002 or (file.mode & 0o020 and file.group):
        who = "everyone" if file.mode & 0o002 else f"gid {file.group}"
        yield Found(f"{who} may write {file.path}", file.where, (line,), key=file.path)
    elif file.key and file.mode & 0o044:
        yield Found(f"others may read the private key {file.path}", file.where, (line,), key=file.path)


@rule(
    Severity.LOW,
    "https://docs.docker.com/engine/logging/configure/",
    _BENCH,
    conditions=("DMN-LOG", "RES-LOG"),
    scope="host",
    cis=("2.13",),
    cwe=(779,),
)
def daemon_endless_logs(settings: tuple[DaemonSetting, ...]) -> Iterator[Outcome]:
    """Logs of Docker's containers grow without end.

    json-file, the default, keeps all that a container writes: one that writes much fills the host's disk.

    Fix: "log-driver": "local", or "log-opts": {"max-size": "10m", "max-file": "3"} in daemon.json.

    ```toml bad
    [[DaemonSetting]]
    name = "log-driver"
    engine = "docker"
    values = ["json-file"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "log-driver"
    engine = "docker"
    values = ["journald"]
    ```
    """
    drivers = [each for each in settings if each.engine == "docker" and each.name == "log-driver"]
    limited = any(
        value.startswith("max-size=") and value != "max-size=-1"
        for each in settings
        if each.engine == "docker" and each.name == "log-opts"
        for value in each.values
    )
    for driver in drivers:
        if driver.values in {(), ("json-file",)} and not limited:
            yield _found(driver, "logs of containers have no largest size")


@rule(
    Severity.INFO,
    "https://docs.docker.com/engine/extend/plugins_authorization/",
    _BENCH,
    conditions=("DMN-AUTHZ",),
    scope="host",
    cis=("2.12",),
    cwe=(862,),
)
def daemon_all_or_nothing(
    settings: tuple[DaemonSetting, ...], listeners: tuple[DaemonListener, ...]
) -> Iterator[Outcome]:
    """Whoever reaches Docker's daemon over the network may do all.

    A client certificate says who it is; without an authorization plugin each of them is root on the host.

    Fix: an authorization plugin, or clients over SSH.

    ```toml bad
    [[DaemonSetting]]
    name = "authorization-plugins"
    engine = "docker"
    values = []

    [[DaemonListener]]
    address = "tcp://192.0.2.1:2376"
    engine = "docker"
    tls = "verified"
    ```

    ```toml good
    [[DaemonSetting]]
    name = "authorization-plugins"
    engine = "docker"
    values = ["opa"]

    [[DaemonListener]]
    address = "tcp://192.0.2.1:2376"
    engine = "docker"
    tls = "verified"
    ```
    """
    remote = any(each.engine == "docker" and each.address.startswith("tcp://") for each in listeners)
    for setting in settings:
        if remote and setting.engine == "docker" and setting.name == "authorization-plugins" and not setting.values:
            yield _found(setting, "whoever has a client certificate may do all that root may")


def _found(setting: DaemonSetting, title: str) -> Found:
    line = seen(setting, f"{setting.name}: {', '.join(setting.values) or 'not set'}")
    return Found(title, setting.where, (line,), key=f"{setting.engine} {setting.name}")
