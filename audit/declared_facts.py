"""What files declare of a container and a running one doesn't show, or shows only by its effects.

`audit/facts.py` gives them on with all others. A file's collector makes them by audit/static/building.py.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stockade.audit.fact import Fact, Where


@dataclass(frozen=True, slots=True)
class Privileged(Fact):
    """What the switch says that drops all protection at once (`privileged`)."""

    value: bool


@dataclass(frozen=True, slots=True)
class CapabilityChange(Fact):
    """What a file adds to the engine's usual capabilities and what it drops, by name without CAP_, or "ALL".

    `where` is the place of what is added, `drop_where` of what is dropped or would be.
    """

    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    drop_where: Where | None = None


@dataclass(frozen=True, slots=True)
class Unset(Fact):
    """A setting that a file leaves to the engine or the image. `where` is where it would stand.

    `subject`: "seccomp", "apparmor", "selinux", "user", "no_new_privs", "security_options", "security_context",
    "memory", "cpu", "pids", "memory_request", "cpu_request", "read_only_root", "healthcheck", "restart",
    "liveness", "readiness", "capabilities", "run_as_non_root", "service_account_token".
    """

    many: ClassVar[bool] = True

    subject: str


@dataclass(frozen=True, slots=True)
class Image(Fact):
    """The image that is started, or that a stage is built from; `tag` and `digest` are None where none is named.

    `local`: it isn't pulled (built beside, `scratch`, an earlier stage), or its name is only known when it is used.
    """

    reference: str
    registry: str | None = None
    tag: str | None = None
    digest: str | None = None
    local: bool = False


@dataclass(frozen=True, slots=True)
class Variable(Fact):
    """A variable of the environment. `literal`: its value stands in the file.

    `secret` says what the value is ("password", "AWS key", ...) where it is a credential, never the value itself.
    `source` is what a value that isn't literal is read from ("secret", "configMap", "file", "host", "field").
    """

    many: ClassVar[bool] = True

    name: str
    literal: bool
    secret: str | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Port(Fact):
    """A port. `host_port` None isn't published, 0 is one that the engine chooses; `host_ip` "" is every address.

    `count` ports from each on, for a range.
    """

    many: ClassVar[bool] = True

    container_port: int | None
    host_port: int | None = None
    host_ip: str = ""
    protocol: str = "tcp"
    count: int = 1


@dataclass(frozen=True, slots=True)
class SysctlSetting(Fact):
    """A kernel setting that the engine makes for the container."""

    many: ClassVar[bool] = True

    name: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class ServiceAccountToken(Fact):
    """Whether Kubernetes mounts a token for its API. `declared`: the pod or its service account says so."""

    mounted: bool
    declared: bool = True


@dataclass(frozen=True, slots=True)
class HealthCheck(Fact):
    """Whether something tells that the program still works; of an image or a service."""

    present: bool


@dataclass(frozen=True, slots=True)
class RestartPolicy(Fact):
    """How the engine starts it again: "no", "always", "unless-stopped", "on-failure" with the `limit` of attempts."""

    value: str
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class SecurityOptions(Fact):
    """The engine's security options as they were written ("no-new-privileges:true", "seccomp=unconfined")."""

    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadOnlyRoot(Fact):
    """Whether the root file system is read-only."""

    value: bool


@dataclass(frozen=True, slots=True)
class RunAsNonRoot(Fact):
    """What `runAsNonRoot` says: the kubelet refuses to start a program of uid 0 where it is true."""

    value: bool


@dataclass(frozen=True, slots=True)
class HostProcess(Fact):
    """Whether it is a Windows HostProcess container, which runs on the node itself."""

    value: bool


@dataclass(frozen=True, slots=True)
class VolumeType(Fact):
    """A volume of a pod by its name and its kind as Kubernetes spells it ("configMap", "hostPath", "nfs")."""

    many: ClassVar[bool] = True

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class SharedVolume(Fact):
    """A volume that several containers mount, this one and `others`, and that this one can write."""

    many: ClassVar[bool] = True

    name: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe(Fact):
    """A probe or lifecycle handler that the kubelet calls at `host` (None: the pod itself)."""

    many: ClassVar[bool] = True

    name: str
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Workload(Fact):
    """The Kubernetes object that a container belongs to. `namespace` None isn't named; `os` is that of the pod's spec.

    `role`: how the pod runs the container.
    """

    kind: str
    name: str
    namespace: str | None = None
    role: Literal["container", "init", "sidecar", "ephemeral"] = "container"
    os: str | None = None


@dataclass(frozen=True, slots=True)
class RoleRule(Fact):
    """One rule of a Role or ClusterRole: which verbs on which resources of which API groups."""

    many: ClassVar[bool] = True

    verbs: tuple[str, ...]
    resources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    cluster: bool = False


@dataclass(frozen=True, slots=True)
class RoleGrant(Fact):
    """A binding: the role that it grants and to whom ("User:ada", "Group:system:authenticated", "ServiceAccount:ns/x").

    `cluster`: in every namespace.
    """

    many: ClassVar[bool] = True

    role: str
    subject: str
    cluster: bool = False


@dataclass(frozen=True, slots=True)
class PodSecurity(Fact):
    """What a namespace's label pod-security.kubernetes.io/enforce says; None where it has none."""

    enforce: str | None


@dataclass(frozen=True, slots=True)
class CgroupParent(Fact):
    """The cgroup that the engine is told to make the container's cgroup in."""

    path: str


@dataclass(frozen=True, slots=True)
class BuildStep(Fact):
    """One instruction of a Dockerfile, or one line of an image's history.

    `arguments` are the words after its flags (of RUN in shell form: of the shell's words, operators such as "&&"
    and "|" as words of their own); `flags` are "name=value" without dashes. `shipped`: the stage ends up in the image.
    """

    many: ClassVar[bool] = True

    instruction: str
    arguments: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    stage: str = ""
    shipped: bool = True
    shell: bool = False


@dataclass(frozen=True, slots=True)
class ImageFile(Fact):
    """A file of an image that matters by what it is. `detail` is a mode, a capability or a link's target.

    "secret" is a credential's file, "device-link" a link at a place that the runtime mounts on, "hostile-link" one that
    leads out of the image, "world-writable" a program's directory that anybody writes.
    """

    many: ClassVar[bool] = True

    path: str
    kind: Literal[
        "setuid", "setgid", "capability", "secret", "device-link", "hostile-link", "world-writable", "account"
    ]
    detail: str = ""
    layer: str = ""
    removed: bool = False
