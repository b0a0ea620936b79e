"""What a container mounts: volumes of the node, of the cluster, and fresh ones."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, VolumeType, Where
from stockade.audit.static import building
from stockade.audit.static.kubernetes.contexts import Container
from stockade.audit.static.kubernetes.index import HostVolume, Index
from stockade.audit.static.kubernetes.objects import Pod

_MOUNTS = ("volumeMounts", "volumeDevices")
Propagation = Literal["private", "slave", "shared"]
_PROPAGATION: Mapping[str, Propagation] = {"HostToContainer": "slave", "Bidirectional": "shared"}
#: https://kubernetes.io/docs/concepts/storage/volumes/: the kinds that the kubelet serves from memory
_IN_MEMORY = frozenset({"secret", "configMap", "downwardAPI", "projected"})


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a pod: its kind as the API names it and, where it is of the node, the path there."""

    name: str
    kind: str
    where: Where
    source: Map | None = None
    host: HostVolume | None = None
    host_type: str = ""


@dataclass(frozen=True, slots=True)
class Mounted:
    """One volume at one place of a container. `host_path` is that of the part that `subPath` picks."""

    volume: Volume
    destination: str
    where: Where
    host_path: str | None
    writable: bool
    propagation: Propagation
    options: tuple[str, ...]
    sub_path: str | None = None


def of_pod(pod: Pod, index: Index) -> dict[str, Volume]:
    """Give the volumes of a pod by name, with those that a StatefulSet makes claims for."""
    found: dict[str, Volume] = {}
    for number, node in enumerate(pod.reader.mappings(pod.spec, "volumes")):
        volume = _volume(pod, node, index)
        found[volume.name or f"volumes[{number}]"] = volume
    spec = pod.object.node.map("spec")
    for node in pod.reader.mappings(spec, "volumeClaimTemplates") if spec is not None else ():
        metadata = pod.reader.mapping(node, "metadata")
        name = pod.reader.text(metadata, "name") if metadata is not None else None
        if name:
            found.setdefault(name, Volume(name, "persistentVolumeClaim", node.where))
    return found


def _volume(pod: Pod, node: Map, index: Index) -> Volume:
    name = pod.reader.text(node, "name") or ""
    kind = next((key for key in node if key != "name" and node[key] is not None), "")
    if not kind:  # the API makes an empty directory of a volume without a source
        return Volume(name, "emptyDir", node.where)
    source = pod.reader.mapping(node, kind)
    host = None
    if source is not None and kind == "hostPath":
        path = pod.reader.text(source, "path")
        host = HostVolume(path, source.at("path")) if path else None
    elif source is not None and kind == "persistentVolumeClaim":
        claim = pod.reader.text(source, "claimName")
        host = index.behind(pod.object.namespace, claim) if claim else None
    return Volume(name, kind, node.at(kind), source, host, (source.text("type") if source is not None else "") or "")


def unmounted(containers: Iterable[Container], known: Mapping[str, Volume]) -> tuple[Volume, ...]:
    """Give the volumes of a pod that none of its containers mounts."""
    used = {node.get("name") for each in containers for key in _MOUNTS for node in each.reader.mappings(each.node, key)}
    return tuple([volume for name, volume in known.items() if name not in used])


def without_mount(spare: Iterable[Volume]) -> Iterator[Fact]:
    """Give volumes with host paths as mounts at a place that says that there is none yet."""
    for volume in spare:
        yield volume_type(volume)
        if volume.host is not None:
            destination = f"volume {volume.name} (no container mounts it)"
            yield from building.bind(volume.host.where, destination, volume.host.path)


def volume_type(volume: Volume) -> Fact:
    """Give the kind of a volume."""
    return VolumeType(where=volume.where, name=volume.name, kind=volume.kind)


def mounted(container: Container, known: Mapping[str, Volume]) -> Iterator[Mounted]:
    """Give what a container mounts."""
    reader = container.reader
    for node in reader.mappings(container.node, "volumeMounts"):
        name, destination = reader.text(node, "name"), reader.text(node, "mountPath")
        volume = known.get(name) if name else None
        if destination is None:
            reader.refuse(node.at("mountPath"), "mountPath", "text", node.get("mountPath"))
        elif volume is None:
            reader.refuse(node.at("name"), f"name {name or ''}".strip(), "the name of a volume of the pod", name)
        else:
            yield _mounted(container, node, volume, destination)


def _mounted(container: Container, node: Map, volume: Volume, destination: str) -> Mounted:
    reader = container.reader
    read_only = reader.flag(node, "readOnly") is True or _always_read_only(volume)
    recursive = reader.text(node, "recursiveReadOnly")
    options = ["ro" if read_only else "rw"]
    if read_only and recursive in {"Enabled", "IfPossible"}:
        options.append("rro")
    sub_path = reader.text(node, "subPath") or reader.text(node, "subPathExpr")
    host_path = volume.host.path if volume.host else None
    if host_path is not None and sub_path and "$(" not in sub_path:
        host_path = posixpath.join(host_path, sub_path.lstrip("/"))
    propagation = _PROPAGATION.get(reader.text(node, "mountPropagation") or "", "private")
    where = volume.host.where if volume.host else node.where
    return Mounted(volume, destination, where, host_path, not read_only, propagation, tuple(options), sub_path)


def _always_read_only(volume: Volume) -> bool:
    # since 1.10 the kubelet mounts these read-only whatever is asked (CVE-2017-1002102)
    return volume.kind in _IN_MEMORY or (volume.source is not None and volume.source.get("readOnly") is True)


def devices(container: Container, known: Mapping[str, Volume]) -> Iterator[tuple[Where, str, Volume | None]]:
    """Give the block volumes that a container gets as devices: place, path inside, volume."""
    for node in container.reader.mappings(container.node, "volumeDevices"):
        path = container.reader.text(node, "devicePath")
        if path is not None:
            yield node.at("devicePath"), path, known.get(container.reader.text(node, "name") or "")
