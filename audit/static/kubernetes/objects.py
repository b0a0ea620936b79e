"""From a file's documents to Kubernetes objects and the pods that they make."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from stockade.audit.documents.tree import Map, Seq
from stockade.audit.facts import Where
from stockade.audit.static.reading import Reader

#: where each kind of the API, and of what is often installed beside it, keeps its pod template
TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(
        (
            "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job",
            "DeploymentConfig", "Rollout",
        ),
        ("spec", "template"),
    ),
}  # fmt: skip
#: kinds that speak of pods and make none
_NO_PODS = frozenset(
    {"PodSecurityPolicy", "SecurityContextConstraints", "CustomResourceDefinition", "ConfigMap", "Secret"}
)
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_DEPTH = 200  # as deep as documents may be


@dataclass(frozen=True, slots=True)
class Object:
    """One object of the API as a file has it. `namespace` is None where the file names none."""

    kind: str
    api: str
    name: str
    namespace: str | None
    node: Map
    reader: Reader = field(default_factory=Reader, compare=False)

    @property
    def id(self) -> str:
        """KIND/NAMESPACE/NAME, or KIND/NAME where the file names no namespace."""
        return "/".join([part for part in (self.kind, self.namespace, self.name) if part])


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as an object declares it: the metadata and the spec of its template."""

    object: Object
    metadata: Map | None
    spec: Map
    path: str = ""

    @property
    def reader(self) -> Reader:
        """The reader of the object, which keeps what is wrong with it."""
        return self.object.reader

    @property
    def os(self) -> str | None:
        """The operating system that the pod names ("linux", "windows")."""
        system = self.reader.mapping(self.spec, "os")
        return self.reader.text(system, "name") if system is not None else None

    @property
    def windows(self) -> bool:
        """Whether the pod says that it is one for Windows."""
        return self.os == "windows"


def objects(documents: Iterable[Any]) -> Iterator[Object]:
    """Give the objects of a file's documents; the items of a List and the objects of an OpenShift Template apart."""
    for document in documents:
        yield from _flat(document, 0)


def _flat(node: Any, depth: int) -> Iterator[Object]:
    if isinstance(node, Seq) and depth < 6:  # `kubectl get -o json | jq .items` and the like
        for item in node:
            yield from _flat(item, depth + 1)
        return
    if not isinstance(node, Map) or not isinstance(node.get("kind"), str):
        return
    kind = str(node["kind"])
    inner = node.get("items") if kind.endswith("List") else node.get("objects") if kind == "Template" else None
    if isinstance(inner, Seq):
        if depth < 6:
            yield from _flat(inner, depth + 1)
        return
    yield _object(kind, node)


def _object(kind: str, node: Map) -> Object:
    reader = Reader()
    metadata = reader.mapping(node, "metadata") or Map(node.path, node.place)
    prefix = reader.text(metadata, "generateName")
    name = reader.text(metadata, "name") or (f"{prefix}*" if prefix else "")
    return Object(
        kind, str(node.get("apiVersion") or ""), name or "?", reader.text(metadata, "namespace"), node, reader
    )


def pods(item: Object) -> Iterator[Pod]:
    """Give the pods that an object makes; more than one only for custom resources.

    A patch of Kustomize's may leave out the template: there is nothing to judge, and nothing wrong.
    """
    if item.kind in _NO_PODS:
        return
    node: Map | None = item.node if item.kind in TEMPLATES else None
    for key in TEMPLATES.get(item.kind, ()):
        node = item.reader.mapping(node, key) if node is not None else None
    pod = _pod(item, node, "") if node is not None else None
    if pod is not None:
        yield pod
        return
    # a kind of another API group may have a known name and a spec of its own
    found = tuple(_custom(item, item.node, "", 0))
    yield from found if len(found) > 1 else (replace(pod, path="") for pod in found)


def _pod(item: Object, template: Map, path: str) -> Pod | None:
    spec = item.reader.mapping(template, "spec")
    if spec is None:
        return None
    return Pod(item, item.reader.mapping(template, "metadata"), spec, path)


def _custom(item: Object, node: Any, path: str, depth: int) -> Iterator[Pod]:
    """Look through a custom resource for pod templates: a mapping whose `spec` lists containers."""
    if depth > _DEPTH:
        return
    if isinstance(node, Seq):
        for index, value in enumerate(node):
            yield from _custom(item, value, f"{path}[{index}]", depth + 1)
        return
    if not isinstance(node, Map):
        return
    for key, value in node.items():
        if key == "spec" and depth and _lists_containers(value):
            pod = _pod(item, node, path)
            if pod is not None:
                yield pod
        else:
            yield from _custom(item, value, f"{path}.{key}" if path else str(key), depth + 1)


def _lists_containers(node: Any) -> bool:
    if not isinstance(node, Map):
        return False
    for key in _CONTAINERS:
        listed = node.get(key)
        if isinstance(listed, Seq) and any(
            isinstance(each, Map) and ("name" in each or "image" in each) for each in listed
        ):
            return True
    return False


def place(metadata: Map | None, group: str, key: str) -> tuple[Any, Where] | None:
    """Give an annotation or a label and its place, or None."""
    found = metadata.get(group) if metadata is not None else None
    if isinstance(found, Map) and found.get(key) is not None:
        return found[key], found.at(key)
    return None
