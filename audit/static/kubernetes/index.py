"""What the objects of one file say of each other: service accounts, secrets, claims and the volumes behind them."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stockade.audit.facts import Where
from stockade.audit.static.kubernetes import neighbours
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


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that a Secret or a ConfigMap of the file keeps, as the container gets to see it."""

    value: str
    where: Where


@dataclass(slots=True)
class Index:
    """Objects by namespace and name. A missing namespace is taken as "default", on both sides alike."""

    path: str
    accounts: dict[_Name, Object] = field(default_factory=dict)
    claims: dict[_Name, Object] = field(default_factory=dict)
    volumes: dict[str, Object] = field(default_factory=dict)
    reserved: dict[_Name, str] = field(default_factory=dict)
    keepers: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    _kept: dict[tuple[str, str, str], Mapping[str, Kept]] = field(default_factory=dict)

    def kept(self, kind: str, namespace: str | None, name: str) -> Mapping[str, Kept]:
        """Give the values of a Secret or ConfigMap; none where it isn't in this file."""
        key = (kind, namespace or "default", name)
        if key not in self._kept:
            found = self.keepers.get(key)
            self._kept[key] = kept(found) if found is not None else {}
        return self._kept[key]

    def account(self, namespace: str | None, name: str) -> Object | None:
        """Give a ServiceAccount, of this file or else of one beside it that is audited too."""
        found = self.accounts.get((namespace or "default", name))
        return found if found is not None else neighbours.account(self.path, namespace, name)

    def behind(self, namespace: str | None, claim: str) -> HostVolume | None:
        """Give what of the node is behind a claim, where claim and volume name each other in this file."""
        found = self.claims.get((namespace or "default", claim))
        spec = found.node.map("spec") if found else None
        name = spec.text("volumeName") if spec else None
        if name is None:
            name = self.reserved.get((namespace or "default", claim))
        volume = self.volumes.get(name) if name else None
        return host_volume(volume) if volume else None


def build(items: Iterable[Object], path: str) -> Index:
    """Index the objects of the file at `path`."""
    index = Index(path)
    for item in items:
        key = (item.namespace or "default", item.name)
        if item.kind == "ServiceAccount":
            index.accounts[key] = item
        elif item.kind == "PersistentVolumeClaim":
            index.claims[key] = item
        elif item.kind == "PersistentVolume":
            index.volumes[item.name] = item
            claim = _claim(item)
            if claim is not None:
                index.reserved.setdefault(claim, item.name)
        elif item.kind in {"Secret", "ConfigMap"}:
            index.keepers[item.kind, *key] = item
    return index


def _claim(item: Object) -> _Name | None:
    """Give the claim that a PersistentVolume is kept for."""
    spec = item.node.map("spec")
    reference = spec.map("claimRef") if spec is not None else None
    name = reference.text("name") if reference is not None else None
    return ((reference.text("namespace") if reference is not None else None) or "default", name) if name else None


def kept(item: Object) -> Mapping[str, Kept]:
    """Give the values of a Secret (`data` in base64, `stringData`) or of a ConfigMap; what isn't text is left out."""
    found: dict[str, Kept] = {}
    for group in ("data", "stringData"):
        values = item.node.map(group)
        for key in values or ():
            value = values.text(key) if values is not None else None
            if values is None or value is None:
                continue
            plain = _decoded(value) if item.kind == "Secret" and group == "data" else value
            if plain is not None:
                found[key] = Kept(plain, values.at(key))
    return found


def _decoded(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def host_volume(item: Object) -> HostVolume | None:
    """Give what of the node a PersistentVolume stands for (hostPath, local), or None."""
    spec = item.reader.mapping(item.node, "spec")
    for kind in ("hostPath", "local"):
        source: Map | None = item.reader.mapping(spec, kind) if spec is not None else None
        path = item.reader.text(source, "path") if source is not None else None
        if spec is not None and source is not None and path:
            return HostVolume(path, source.at("path"), spec.text("volumeMode") == "Block")
    return None
