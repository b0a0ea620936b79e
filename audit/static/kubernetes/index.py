"""What the objects of one file say of each other: service accounts, claims and the volumes behind them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stockade.audit.facts import Where
from stockade.audit.static.kubernetes.objects import Object

if TYPE_CHECKING:
    from stockade.audit.documents.tree import Map

_Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class HostVolume:
    """A directory, or a block device, of the node that a persistent volume stands for."""

    path: str
    where: Where
    block: bool = False


@dataclass(slots=True)
class Index:
    """Objects by namespace and name. A missing namespace is taken as "default", on both sides alike."""

    accounts: dict[_Name, Object] = field(default_factory=dict)
    claims: dict[_Name, Object] = field(default_factory=dict)
    volumes: dict[str, Object] = field(default_factory=dict)

    def account(self, namespace: str | None, name: str) -> Object | None:
        """Give a ServiceAccount."""
        return self.accounts.get((namespace or "default", name))

    def behind(self, namespace: str | None, claim: str) -> HostVolume | None:
        """Give what of the node is behind a claim, where claim and volume name each other in this file."""
        found = self.claims.get((namespace or "default", claim))
        spec = found.node.map("spec") if found else None
        name = spec.text("volumeName") if spec else None
        if name is None:
            name = self._reserved(namespace or "default", claim)
        volume = self.volumes.get(name) if name else None
        return host_volume(volume) if volume else None

    def _reserved(self, namespace: str, claim: str) -> str | None:
        for name, volume in self.volumes.items():
            spec = volume.node.map("spec")
            reserved = spec.map("claimRef") if spec else None
            if reserved and reserved.text("name") == claim and (reserved.text("namespace") or "default") == namespace:
                return name
        return None


def build(items: Iterable[Object]) -> Index:
    """Index the objects of a file."""
    index = Index()
    for item in items:
        key = (item.namespace or "default", item.name)
        if item.kind == "ServiceAccount":
            index.accounts[key] = item
        elif item.kind == "PersistentVolumeClaim":
            index.claims[key] = item
        elif item.kind == "PersistentVolume":
            index.volumes[item.name] = item
    return index


def host_volume(item: Object) -> HostVolume | None:
    """Give what of the node a PersistentVolume stands for (hostPath, local), or None."""
    spec = item.reader.mapping(item.node, "spec")
    for kind in ("hostPath", "local"):
        source: Map | None = item.reader.mapping(spec, kind) if spec is not None else None
        path = item.reader.text(source, "path") if source is not None else None
        if spec is not None and source is not None and path:
            return HostVolume(path, source.at("path"), spec.text("volumeMode") == "Block")
    return None
