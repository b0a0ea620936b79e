"""Which seccomp, AppArmor and SELinux confinement a container asks for, by fields and by the older annotations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stockade.audit.facts import Where
from stockade.audit.static.kubernetes.contexts import Container
from stockade.audit.static.kubernetes.objects import Pod, place

if TYPE_CHECKING:
    from stockade.audit.documents.tree import Map

_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"

Profile = Literal["default", "localhost", "unconfined", "unset", "unknown"]
_TYPES: dict[str, Profile] = {"RuntimeDefault": "default", "Localhost": "localhost", "Unconfined": "unconfined"}


@dataclass(frozen=True, slots=True)
class Confined:
    """A profile as it is asked for. `name` is that of a profile on the node, or what is written and means nothing."""

    where: Where
    profile: Profile
    name: str = ""


def seccomp(container: Container) -> Confined:
    """Give the seccomp profile: the field of the container, of the pod, then the annotations in the same order.

    The API server copied annotations to fields that are missing from 1.19 to 1.26; since 1.27 they mean nothing, which
    a file doesn't tell, so that they count as what their author wants.
    """
    found = _field(container, "seccompProfile")
    if found.profile != "unset":
        return found
    metadata = container.pod.metadata
    for key in (_SECCOMP_CONTAINER + container.name, _SECCOMP_POD):
        annotation = place(metadata, "annotations", key)
        if annotation is not None:
            return _annotated(*annotation)
    return found


def apparmor(container: Container) -> Confined:
    """Give the AppArmor profile: the field of the container, the annotation for it, then the field of the pod.

    A container's annotation is copied to its field when that is missing (pkg/registry/core/pod/strategy.go,
    applyAppArmorVersionSkew), so it wins over the pod's field.
    """
    own, key = container.own, "appArmorProfile"
    if own is not None and own.get(key) is not None:
        return _field(container, key)
    annotation = place(container.pod.metadata, "annotations", _APPARMOR + container.name)
    return _annotated(*annotation) if annotation is not None else _field(container, key)


def _field(container: Container, key: str) -> Confined:
    context, where = container.both(key)
    profile = container.reader.mapping(context, key)
    if profile is None:
        return Confined(where, "unset")
    kind = container.reader.text(profile, "type")
    if kind is None:
        container.reader.refuse(where, f"{key}.type", "text", None)
        return Confined(where, "unset")
    name = container.reader.text(profile, "localhostProfile") or ""
    where = profile.at("type")
    return Confined(where, _TYPES[kind], name) if kind in _TYPES else Confined(where, "unknown", kind)


def _annotated(value: Any, where: Where) -> Confined:
    if value in {"runtime/default", "docker/default"}:
        return Confined(where, "default")
    if value == "unconfined":
        return Confined(where, "unconfined")
    name = str(value)
    if not name:
        return Confined(where, "unset")
    if name.startswith("localhost/"):
        return Confined(where, "localhost", name.removeprefix("localhost/"))
    return Confined(where, "unknown", name)


@dataclass(frozen=True, slots=True)
class SELinux:
    """The parts of an SELinux label that are asked for; an empty one is the runtime's choice."""

    where: Where
    user: str
    role: str
    type: str
    level: str


def selinux(container: Container) -> SELinux | None:
    """Give the SELinux options, or None where none are given."""
    context, where = container.both("seLinuxOptions")
    options: Map | None = container.reader.mapping(context, "seLinuxOptions")
    if not options:
        return None
    parts = {key: container.reader.text(options, key) or "" for key in ("user", "role", "type", "level")}
    decides = next((key for key in ("type", "user", "role", "level") if parts[key]), None)
    return SELinux(options.at(decides) if decides else where, **parts)


def sysctls(pod: Pod) -> Iterator[tuple[Where, str, str]]:
    """Give the kernel settings that the pod asks for: place, name, value."""
    context = pod.reader.mapping(pod.spec, "securityContext")
    for node in pod.reader.mappings(context, "sysctls") if context is not None else ():
        name = pod.reader.text(node, "name")
        if name is not None:
            yield node.at("name"), name, str(node.get("value", ""))
