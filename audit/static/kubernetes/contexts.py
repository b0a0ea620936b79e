"""The containers of a pod and what they inherit from it.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/: a field that both security contexts have
counts in the container's own one first; the others exist in one of them only and mean nothing in the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from stockade.audit.documents.tree import Map
from stockade.audit.facts import Where
from stockade.audit.static.kubernetes.objects import Pod
from stockade.audit.static.reading import Reader

Role = Literal["container", "init", "sidecar", "ephemeral"]
#: the lists of containers that a pod's spec has, in the order in which they start
LISTS: dict[str, Role] = {"initContainers": "init", "containers": "container", "ephemeralContainers": "ephemeral"}


@dataclass(frozen=True, slots=True)
class Container:
    """One container with its pod and the two security contexts that decide about it."""

    pod: Pod
    node: Map
    name: str
    role: Role
    own: Map | None
    inherited: Map | None

    @property
    def reader(self) -> Reader:
        """The reader of the object, which keeps what is wrong with it."""
        return self.pod.reader

    def both(self, key: str) -> tuple[Map, Where]:
        """Give the security context that decides about a field which both may have, and the place that tells.

        Where neither has it, it is the container's context, or the container itself, which then lacks the field.
        """
        for context in (self.own, self.inherited):
            if context is not None and context.get(key) is not None:
                return context, context.at(key)
        return self.alone(key)

    def alone(self, key: str) -> tuple[Map, Where]:
        """Give the container's own security context for a field that only it has, and the place that tells."""
        if self.own is not None:
            return self.own, self.own.at(key)
        return _nothing(self.node), self.node.at("securityContext")

    def of_pod(self, key: str) -> tuple[Map, Where]:
        """Give the pod's security context for a field that only it has, and the place that tells."""
        if self.inherited is not None:
            return self.inherited, self.inherited.at(key)
        return _nothing(self.pod.spec), self.pod.spec.at("securityContext")


def _nothing(node: Map) -> Map:
    return Map(node.path, node.place)


def containers(pod: Pod) -> Iterator[Container]:
    """Give the containers of a pod: those that prepare it first, those that `kubectl debug` added last."""
    inherited = pod.reader.mapping(pod.spec, "securityContext")
    for key, role in LISTS.items():
        for index, node in enumerate(_nodes(pod, key)):
            restarts = role == "init" and node.get("restartPolicy") == "Always"
            name = pod.reader.text(node, "name") or f"{key}[{index}]"
            own = pod.reader.mapping(node, "securityContext")
            yield Container(pod, node, name, "sidecar" if restarts else role, own, inherited)


def _nodes(pod: Pod, key: str) -> Iterator[Map]:
    value: Any = pod.spec.get(key)
    if isinstance(value, Map):  # one container where a list of them is expected: it is judged all the same
        pod.reader.refuse(pod.spec.at(key), key, "a list", value)
        yield value
        return
    yield from pod.reader.mappings(pod.spec, key)
