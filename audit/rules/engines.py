"""How Podman, containerd and all who share their files are configured, and which registries an engine believes."""

from collections.abc import Iterator

from stockade.audit.facts import DaemonSetting
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen
from stockade.sandbox.linux import capabilities

_DOCKERD = "https://docs.docker.com/reference/cli/dockerd/"
_CONTAINERS = "https://github.com/containers/common/blob/main/docs/containers.conf.5.md"
_CRI = "https://github.com/containerd/containerd/blob/main/docs/cri/config.md"
# what Docker gives, which is more than Podman does
_USUAL = 0xA80425FB


def _found(setting: DaemonSetting, title: str, severity: Severity | None = None) -> Found:
    line = seen(setting, f"{setting.name} = {', '.join(setting.values)}")
    return Found(title, setting.where, (line,), severity=severity, key=f"{setting.engine} {setting.name}")


@rule(
    Severity.MEDIUM,
    _DOCKERD,
    "https://man.archlinux.org/man/containers-registries.conf.5.en",
    conditions=("DMN-INSECREG",),
    scope="host",
    cis=("2.5",),
    attack=("T1195.002",),
    cwe=(295,),
)
def insecure_registry(setting: DaemonSetting) -> Iterator[Outcome]:
    """Images come from a registry that isn't verified.

    Whoever is on the way answers for the registry, without TLS or with any certificate, and sends the image of their
    choice, which then runs.

    Fix: give the registry a certificate, and its authority to the engine (/etc/docker/certs.d, certs.d of containers).

    ```toml bad
    [[DaemonSetting]]
    name = "insecure-registries"
    engine = "docker"
    values = ["registry.example.com:5000"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "insecure-registries"
    engine = "docker"
    values = ["127.0.0.0/8"]
    ```
    """
    if setting.name != "insecure-registries":
        return
    remote = [each for each in setting.values if not each.startswith(("127.", "localhost", "[::1]", "::1"))]
    if remote:
        yield _found(setting, f"{setting.engine} takes images unverified from {', '.join(remote)}")


@rule(Severity.MEDIUM, _CONTAINERS, conditions=("DMN-PODMAN",), scope="host", cwe=(1188,))
def podman_defaults(setting: DaemonSetting) -> Iterator[Outcome]:
    """Podman gives each container more than it does by itself.

    containers.conf changes what every container of this host starts with, root's and users', also those that ask for
    nothing: without a filter, with the host's namespaces, with more capabilities.

    Severity: high without a seccomp filter, and with capabilities beyond Docker's usual ones; low for what is weaker.

    Fix: take the setting out of containers.conf, and give it to the containers that need it.

    ```toml bad
    [[DaemonSetting]]
    name = "containers.seccomp_profile"
    engine = "podman"
    values = ["unconfined"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "containers.pidns"
    engine = "podman"
    values = ["private"]
    ```
    """
    if setting.engine != "podman":
        return
    if setting.name in _DEFAULTS:
        bad, title, severity = _DEFAULTS[setting.name]
        if bad is None and setting.values:
            yield _found(setting, f"{title} {', '.join(setting.values)}", severity)
        elif bad is not None and setting.values == (bad,):
            yield _found(setting, title, severity)
    elif setting.name == "containers.default_capabilities":
        more = [name for name in setting.values if not _usual(name)]
        if more:
            yield _found(setting, f"every container gets {', '.join(more)}", Severity.HIGH)


# setting → the value that is worse than what holds without it (None: any), what it means, how bad that is
_DEFAULTS: dict[str, tuple[str | None, str, Severity]] = {
    "containers.seccomp_profile": ("unconfined", "containers have no seccomp filter", Severity.HIGH),
    "containers.privileged": ("true", "every container is privileged", Severity.CRITICAL),
    "containers.apparmor_profile": ("unconfined", "AppArmor doesn't confine containers", Severity.MEDIUM),
    "containers.label": ("false", "SELinux doesn't confine containers", Severity.MEDIUM),
    "containers.pidns": ("host", "containers share the host's pid namespace", Severity.HIGH),
    "containers.netns": ("host", "containers share the host's network", Severity.HIGH),
    "containers.ipcns": ("host", "containers share the host's IPC namespace", Severity.MEDIUM),
    "containers.utsns": ("host", "containers share the host's UTS namespace", Severity.LOW),
    "containers.cgroupns": ("host", "containers share the host's cgroup namespace", Severity.LOW),
    "containers.devices": (None, "every container gets the devices", Severity.MEDIUM),
    "containers.volumes": (None, "every container gets the volumes", Severity.MEDIUM),
    "engine.no_pivot_root": ("true", "the root is changed without pivot_root", Severity.MEDIUM),
}


def _usual(name: str) -> bool:
    try:
        return bool(_USUAL >> capabilities.number(name) & 1)
    except ValueError:
        return name.upper() != "ALL"  # a name that no kernel knows gives nothing


@rule(
    Severity.LOW,
    "https://man.archlinux.org/man/containers-policy.json.5.en",
    conditions=("DMN-PODMAN", "DMN-CONTENT"),
    scope="host",
    attack=("T1195.002",),
    cwe=(347,),
)
def unsigned_images(setting: DaemonSetting) -> Iterator[Outcome]:
    """Images are taken without a signature.

    policy.json decides for Podman, Buildah, Skopeo and CRI-O which images are believed. With insecureAcceptAnything as
    the default, which is how it is delivered, whatever a registry sends runs.

    Fix: "reject" as the default and "signedBy" or "sigstoreSigned" for the registries that are used.

    ```toml bad
    [[DaemonSetting]]
    name = "policy.default"
    engine = "podman"
    values = ["insecureAcceptAnything"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "policy.default"
    engine = "podman"
    values = ["reject"]
    ```
    """
    if setting.name == "policy.default" and "insecureAcceptAnything" in setting.values:
        yield _found(setting, "unsigned images are believed")


@rule(Severity.MEDIUM, _CRI, conditions=("DMN-CTRD",), scope="host", cwe=(1188,))
def containerd_defaults(setting: DaemonSetting) -> Iterator[Outcome]:
    """Containerd confines pods less than it does by itself.

    The CRI plugin's settings hold for every pod of the node, whatever the pod asks for.

    Fix: take the setting out of containerd's config.toml.

    ```toml bad
    [[DaemonSetting]]
    name = "cri.disable_apparmor"
    engine = "containerd"
    values = ["true"]
    ```

    ```toml good
    [[DaemonSetting]]
    name = "cri.disable_apparmor"
    engine = "containerd"
    values = ["false"]
    ```
    """
    if setting.name == "cri.disable_apparmor" and setting.values == ("true",):
        yield _found(setting, "AppArmor doesn't confine pods")
    elif setting.name == "cri.disable_tcp_service" and setting.values == ("false",):
        yield _found(setting, "the streaming service listens on TCP")
    elif setting.name == "cri.unset_seccomp_profile" and "unconfined" in setting.values:
        yield _found(setting, "pods that name no seccomp profile have none")
