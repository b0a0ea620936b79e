"""How Docker's daemon is configured: what each container gets unless its own configuration says otherwise."""

from collections.abc import Iterator

from stockade.audit.facts import DaemonSetting
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen

_DOCKERD = "https://docs.docker.com/reference/cli/dockerd/"
_BENCH = "https://github.com/docker/docker-bench-security"


def _is(setting: DaemonSetting, name: str) -> bool:
    return setting.engine == "docker" and setting.name == name


def _found(setting: DaemonSetting, title: str, severity: Severity | None = None) -> Found:
    line = seen(setting, f"{setting.name}: {', '.join(setting.values) or 'not set'}")
    return Found(title, setting.where, (line,), severity=severity, key=f"{setting.engine} {setting.name}")


@rule(
    Severity.MEDIUM,
    "https://docs.docker.com/engine/security/userns-remap/",
    _BENCH,
    conditions=("DMN-USERNS",),
    scope="host",
    cis=("2.9",),
    attack=("T1611",),
    cwe=(250,),
)
def daemon_root_is_root(setting: DaemonSetting) -> Iterator[Outcome]:
    """Root in Docker's containers is the host's root.

    Without userns-remap uid 0 of each container is uid 0 of the host: whatever it gets hold of outside, it owns. A
    container can't be given a user namespace otherwise.

    Fix: "userns-remap": "default" in daemon.json, or the rootless daemon.

    ```toml bad
    [[DaemonSetting]]
    name = "userns-remap"
    engine = "docker"
    values = []
    ```

    ```toml good
    [[DaemonSetting]]
    name = "userns-remap"
    engine = "docker"
    values = ["default"]
    ```
    """
    if _is(setting, "userns-remap") and not setting.values and not setting.rootless:
        yield _found(setting, "Docker maps root of its containers to the host's root")


@rule(Severity.LOW, _DOCKERD, _BENCH, conditions=("DMN-NNP",), scope="host", cis=("2.14",), cwe=(269,))
def daemon_new_privileges(setting: DaemonSetting) -> Iterator[Outcome]:
    """Programs in Docker's containers may gain privilege by execve.

    setuid programs work in each container that doesn't ask for no-new-privileges itself.

    Fix: "no-new-privileges": true in daemon.json.

    ```toml bad
    [[DaemonSetting]]
    name = "no-new-privileges"
    engine = "docker"
    values = []
    ```

    ```toml good
    [[DaemonSetting]]
    name = "no-new-privileges"
    engine = "docker"
    values = ["true"]
    ```
    """
    if _is(setting, "no-new-privileges") and setting.values != ("true",):
        yield _found(setting, "Docker starts containers without no_new_privs")


@rule(
    Severity.HIGH,
    "https://docs.docker.com/engine/security/seccomp/",
    _BENCH,
    conditions=("DMN-SECCOMP",),
    scope="host",
    cis=("2.17",),
    attack=("T1611",),
    cwe=(693,),
)
def daemon_unconfined(setting: DaemonSetting) -> Iterator[Outcome]:
    """Docker starts containers without a seccomp filter.

    Every system call of the kernel is open to each container that doesn't bring a profile of its own.

    Fix: leave "seccomp-profile" out, or name a profile.

    ```toml bad
    [[DaemonSetting]]
    name = "seccomp-profile"
    engine = "docker"
    values = ["unconfined"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "seccomp-profile"
    engine = "docker"
    values = []
    ```
    """
    if _is(setting, "seccomp-profile") and "unconfined" in setting.values:
        yield _found(setting, "Docker's containers have no seccomp filter")


@rule(
    Severity.LOW,
    "https://docs.docker.com/engine/network/drivers/bridge/",
    _BENCH,
    conditions=("DMN-ICC",),
    scope="host",
    cis=("2.2",),
    cwe=(923,),
)
def daemon_containers_talk(setting: DaemonSetting) -> Iterator[Outcome]:
    """Containers on Docker's default bridge reach each other.

    One that was taken over attacks the ports of all others there, published or not, and may answer for them.

    Fix: "icc": false in daemon.json, and networks of their own for those that belong together.

    ```toml bad
    [[DaemonSetting]]
    name = "icc"
    engine = "docker"
    values = []
    ```

    ```toml good
    [[DaemonSetting]]
    name = "icc"
    engine = "docker"
    values = ["false"]
    ```
    """
    if _is(setting, "icc") and setting.values != ("false",):
        yield _found(setting, "containers on the default bridge reach each other")


@rule(
    Severity.INFO,
    "https://docs.docker.com/engine/daemon/live-restore/",
    _BENCH,
    conditions=("DMN-LIVE",),
    scope="host",
    cis=("2.15",),
)
def daemon_takes_containers_along(setting: DaemonSetting) -> Iterator[Outcome]:
    """Containers end when Docker's daemon does.

    An update of the daemon stops every container, which is a reason to put it off. Swarm can't do without.

    Fix: "live-restore": true in daemon.json.

    ```toml bad
    [[DaemonSetting]]
    name = "live-restore"
    engine = "docker"
    values = []
    ```

    ```toml good
    [[DaemonSetting]]
    name = "live-restore"
    engine = "docker"
    values = ["true"]
    ```
    """
    if _is(setting, "live-restore") and setting.values != ("true",):
        yield _found(setting, "containers end when the daemon does")


@rule(Severity.INFO, _DOCKERD, _BENCH, conditions=("DMN-PROXY",), scope="host", cis=("2.16",))
def daemon_proxy(setting: DaemonSetting) -> Iterator[Outcome]:
    """Docker forwards published ports by a process of root's.

    For each published port a docker-proxy runs beside the packet filter's rules, which suffice on all but old kernels;
    it hides the client's address from the container.

    Fix: "userland-proxy": false in daemon.json.

    ```toml bad
    [[DaemonSetting]]
    name = "userland-proxy"
    engine = "docker"
    values = []
    ```

    ```toml good
    [[DaemonSetting]]
    name = "userland-proxy"
    engine = "docker"
    values = ["false"]
    ```
    """
    if _is(setting, "userland-proxy") and setting.values != ("false",) and not setting.rootless:
        yield _found(setting, "published ports pass through a process of root's")


@rule(Severity.INFO, _DOCKERD, _BENCH, conditions=("DMN-EXPERIMENTAL",), scope="host", cis=("2.18",))
def daemon_experimental(setting: DaemonSetting) -> Iterator[Outcome]:
    """Docker's experimental features are on.

    They are less tested and may change; a production host has no use for them.

    Fix: take "experimental" out of daemon.json.

    ```toml bad
    [[DaemonSetting]]
    name = "experimental"
    engine = "docker"
    values = ["true"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "experimental"
    engine = "docker"
    values = []
    ```
    """
    if _is(setting, "experimental") and setting.values == ("true",):
        yield _found(setting, "experimental features are on")


@rule(Severity.INFO, _DOCKERD, _BENCH, conditions=("DMN-ULIMIT",), scope="host", cis=("2.8",), cwe=(770,))
def daemon_no_ulimits(setting: DaemonSetting) -> Iterator[Outcome]:
    """Docker gives containers no limits of their own on files and processes.

    Containers inherit the daemon's, which are as good as none, so that one that leaks descriptors or forks takes the
    host's.

    Fix: "default-ulimits" in daemon.json, such as nofile and nproc.

    ```toml bad
    [[DaemonSetting]]
    name = "default-ulimits"
    engine = "docker"
    values = []
    ```

    ```toml good
    [[DaemonSetting]]
    name = "default-ulimits"
    engine = "docker"
    values = ["nofile"]
    ```
    """
    if _is(setting, "default-ulimits") and not setting.values:
        yield _found(setting, "no default ulimits are set")


@rule(Severity.LOW, _DOCKERD, _BENCH, conditions=("DMN-CGNS",), scope="host")
def daemon_host_cgroups(setting: DaemonSetting) -> Iterator[Outcome]:
    """Docker's containers are in the host's cgroup namespace.

    They see the host's whole tree of groups, with the names of its services and of other containers.

    Fix: "default-cgroupns-mode": "private" in daemon.json.

    ```toml bad
    [[DaemonSetting]]
    name = "default-cgroupns-mode"
    engine = "docker"
    values = ["host"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "default-cgroupns-mode"
    engine = "docker"
    values = ["private"]
    ```
    """
    if _is(setting, "default-cgroupns-mode") and setting.values == ("host",):
        yield _found(setting, "containers share the host's cgroup namespace unless told otherwise")


@rule(
    Severity.LOW,
    "https://docs.docker.com/engine/network/packet-filtering-firewalls/",
    _BENCH,
    conditions=("DMN-IPTABLES",),
    scope="host",
    cis=("2.4",),
)
def daemon_no_packet_filter(setting: DaemonSetting) -> Iterator[Outcome]:
    """Docker sets up no packet filter.

    Then nothing keeps networks of containers apart, icc: false has no effect, and what was set up by hand has to follow
    each container.

    Fix: leave "iptables" out of daemon.json.

    ```toml bad
    [[DaemonSetting]]
    name = "iptables"
    engine = "docker"
    values = ["false"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "iptables"
    engine = "docker"
    values = ["true"]
    ```
    """
    if _is(setting, "iptables") and setting.values == ("false",):
        yield _found(setting, "Docker makes no rules that keep its networks apart")


@rule(Severity.LOW, _DOCKERD, _BENCH, conditions=("DMN-STORAGE",), scope="host", cis=("2.6",), cwe=(1104,))
def daemon_old_storage(setting: DaemonSetting) -> Iterator[Outcome]:
    """Docker keeps images on aufs.

    It never was part of the kernel, is no longer maintained, and was taken out of Docker 24.

    Fix: "storage-driver": "overlay2".

    ```toml bad
    [[DaemonSetting]]
    name = "storage-driver"
    engine = "docker"
    values = ["aufs"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "storage-driver"
    engine = "docker"
    values = ["overlay2"]
    ```
    """
    if _is(setting, "storage-driver") and setting.values == ("aufs",):
        yield _found(setting, "images are kept on aufs")
