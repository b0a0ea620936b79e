"""What a container may use and what it offers: limits, ports, variables, probes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from stockade.audit.documents.tree import Map, text
from stockade.audit.facts import Where
from stockade.audit.static.kubernetes.contexts import Container
from stockade.audit.static.kubernetes.index import Index
from stockade.audit.static.kubernetes.quantity import quantity

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS = ("postStart", "preStop")
_ACTIONS = ("httpGet", "tcpSocket")
_SOURCES = {
    "secretRef": "secret",
    "configMapRef": "configMap",
    "secretKeyRef": "secret",
    "configMapKeyRef": "configMap",
    "fieldRef": "field",
    "resourceFieldRef": "field",
    "fileKeyRef": "file",
}
_KEEPERS = {
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
}
#: variables that a container gets from one Secret or ConfigMap and that are looked at
_MOST_KEPT = 200


@dataclass(frozen=True, slots=True)
class Setting:
    """A limit: bytes of memory or thousandths of a processor; None is unlimited."""

    where: Where
    name: Literal["memory", "cpu"]
    value: int | None


@dataclass(frozen=True, slots=True)
class Published:
    """A port that the container names; `host_port` is None where the node doesn't open it."""

    where: Where
    host_ip: str
    host_port: int | None
    container_port: int | None
    protocol: str


@dataclass(frozen=True, slots=True)
class Named:
    """A variable of the environment with its value, where that stands in the file, and the `source` that it is from."""

    where: Where
    name: str
    value: str | None
    source: str = ""


def amount(container: Container, group: Literal["limits", "requests"], name: Literal["memory", "cpu"]) -> Setting:
    """Give how much of something a container may have, or asks for, with None where that isn't said.

    The pod can set both for all of its containers together: the lesser limit decides.
    """
    reader = container.reader
    own = reader.mapping(container.node, "resources")
    found: list[Setting] = []
    for resources in (own, reader.mapping(container.pod.spec, "resources")):
        asked = reader.mapping(resources, group) if resources is not None else None
        value = asked.get(name) if asked is not None else None
        if asked is None or value is None:
            continue
        read = quantity(value, 1000 if name == "cpu" else 1)
        if read is None:
            reader.refuse(asked.at(name), name, "a quantity", value)
        elif read > 0:  # 0 limits nothing
            found.append(Setting(asked.at(name), name, read))
    if found:
        return min(found, key=lambda setting: setting.value or 0)
    return Setting(own.at(group) if own is not None else container.node.at("resources"), name, None)


def ports(container: Container) -> Iterator[Published]:
    """Give the ports of a container."""
    reader = container.reader
    for node in reader.mappings(container.node, "ports"):
        host_port = reader.number(node, "hostPort") or None
        yield Published(
            node.at("hostPort" if host_port else "containerPort"),
            reader.text(node, "hostIP") or "",
            host_port,
            reader.number(node, "containerPort"),
            (reader.text(node, "protocol") or "TCP").lower(),
        )


def variables(container: Container, index: Index) -> Iterator[Named]:
    """Give the variables of a container. A value that isn't text counts as the text that it is written as.

    What is read from a Secret or ConfigMap that stands in the same file is known as well.
    """
    reader = container.reader
    for node in reader.mappings(container.node, "env"):
        name = reader.text(node, "name")
        if name is None:
            continue
        elsewhere = reader.mapping(node, "valueFrom")
        if elsewhere is not None and node.get("value") is None:
            yield _from(container, node, name, elsewhere, index)
            continue
        value = text(node.get("value"))
        if value is None and node.get("value") is not None:
            reader.refuse(node.at("value"), "value", "text", node["value"])
        yield Named(node.at("value"), name, value or "")
    yield from _all_from(container, index)


def _from(container: Container, node: Map, name: str, elsewhere: Map, index: Index) -> Named:
    key = next((key for key in elsewhere if key in _SOURCES), "")
    source, where = _SOURCES.get(key, ""), node.at("valueFrom")
    reference = container.reader.mapping(elsewhere, key) if key in _KEEPERS else None
    if reference is not None:
        holder, item = container.reader.text(reference, "name"), container.reader.text(reference, "key")
        kept = index.kept(_KEEPERS[key], container.pod.object.namespace, holder or "").get(item or "")
        if kept is not None:
            return Named(kept.where, name, kept.value, source)
    return Named(where, name, None, source)


def _all_from(container: Container, index: Index) -> Iterator[Named]:
    reader = container.reader
    for node in reader.mappings(container.node, "envFrom"):
        prefix = reader.text(node, "prefix") or ""
        for key in ("secretRef", "configMapRef"):
            reference = reader.mapping(node, key)
            holder = reader.text(reference, "name") if reference is not None else None
            kept = index.kept(_KEEPERS[key], container.pod.object.namespace, holder) if holder else {}
            for name, value in islice(kept.items(), _MOST_KEPT):
                yield Named(value.where, prefix + name, value.value, _SOURCES[key])


def probes(container: Container) -> Iterator[tuple[Where, str, str | None]]:
    """Give the probes and life cycle hooks: place, name, and the host that is called in place of the pod."""
    reader = container.reader
    handlers: list[tuple[Map, str]] = [(container.node, probe) for probe in _PROBES]
    lifecycle = reader.mapping(container.node, "lifecycle")
    if lifecycle is not None:
        handlers += [(lifecycle, hook) for hook in _HOOKS]
    for parent, key in handlers:
        handler = reader.mapping(parent, key)
        if handler is None:
            continue
        calls = [call for action in _ACTIONS if (call := reader.mapping(handler, action)) is not None]
        hosts = [(call.at("host"), host) for call in calls if (host := reader.text(call, "host"))]
        if hosts:
            yield from [(where, key, host) for where, host in hosts]
        elif handler:
            yield parent.at(key), key, None
