"""Roles, their bindings and the Pod Security labels of namespaces: who may do what through the API."""

from collections.abc import Iterator
from dataclasses import dataclass

from stockade.audit.documents.tree import Map
from stockade.audit.facts import Where
from stockade.audit.static.kubernetes.objects import Object, place

ROLES = frozenset({"Role", "ClusterRole"})
BINDINGS = frozenset({"RoleBinding", "ClusterRoleBinding"})
_LEVEL = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")


@dataclass(frozen=True, slots=True)
class Granted:
    """One rule of a role: the verbs that it allows on resources of API groups, or on paths (`urls`) of the server."""

    where: Where
    verbs: tuple[str, ...]
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    names: tuple[str, ...]
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """One subject that a binding gives a role to, as "ServiceAccount:NAMESPACE/NAME", "Group:NAME" or "User:NAME"."""

    where: Where
    role: str
    subject: str
    cluster: bool


def granted(item: Object) -> Iterator[Granted]:
    """Give the rules of a Role or ClusterRole. The place is that of the verbs."""
    reader = item.reader
    for node in reader.mappings(item.node, "rules"):
        parts = {
            key: tuple([text for text, _ in reader.texts(node, key)])
            for key in ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        }
        yield Granted(
            node.at("verbs"),
            parts["verbs"],
            parts["apiGroups"],
            parts["resources"],
            parts["resourceNames"],
            parts["nonResourceURLs"],
        )


def aggregated(item: Object) -> Where | None:
    """Give the place that says that a controller fills a ClusterRole's rules from other roles, or None."""
    return item.node.at("aggregationRule") if item.node.get("aggregationRule") is not None else None


def bound(item: Object) -> Iterator[Bound]:
    """Give the subjects of a RoleBinding or ClusterRoleBinding."""
    reader = item.reader
    reference = reader.mapping(item.node, "roleRef")
    if reference is None:
        reader.refuse(item.node.at("roleRef"), "roleRef", "a mapping", item.node.get("roleRef"))
        return
    role = reader.text(reference, "name") or "?"
    for node in reader.mappings(item.node, "subjects"):
        yield Bound(node.at("name"), role, _subject(item, node), item.kind == "ClusterRoleBinding")


def _subject(item: Object, node: Map) -> str:
    reader = item.reader
    kind, name = reader.text(node, "kind") or "?", reader.text(node, "name") or "?"
    if kind == "ServiceAccount":
        name = f"{reader.text(node, 'namespace') or item.namespace or 'default'}/{name}"
    return f"{kind}:{name}"


def levels(item: Object) -> Iterator[tuple[str, str, Where]]:
    """Give the Pod Security Admission levels of a Namespace: mode, level, place."""
    metadata = item.node.map("metadata")
    for mode in MODES:
        found = place(metadata, "labels", _LEVEL + mode)
        if found is not None:
            yield mode, str(found[0]), found[1]
