"""Finds the images of a layout or an archive: their configurations and layers.

Sources: OCI image-spec image-layout.md, manifest.md and image-index.md; moby image/tarexport for manifest.json.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.tree import Map, Seq
from stockade.audit.facts import Where
from stockade.audit.static.image.store import Archive, Directory, inside

#: images of one file, levels of indexes in one another, layers of one image
_MOST, _DEEPEST, _LAYERS = 100, 4, 1000
_DIGEST = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]{32,128})$")


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its name, the part that holds its configuration, and its layers by part and digest ("" unknown)."""

    name: str
    config: str
    layers: tuple[tuple[str, str], ...]


def images(store: Directory | Archive, path: str) -> Iterator[Image | Broken]:
    """Give the images. None at all means that it is something else."""
    manifest = parsed(store, "manifest.json", path)
    if isinstance(manifest, Seq) and all(isinstance(each, Map) and "Layers" in each for each in manifest):
        for each in manifest[:_MOST]:
            yield from _saved(each)
        return
    if isinstance(manifest, Map) and isinstance(manifest.get("config"), Map):
        yield _of(manifest, "", blobs="")  # skopeo's dir: all parts lie beside the manifest
        return
    index = parsed(store, "index.json", path)
    if isinstance(index, Map):
        found: list[Image | Broken] = []
        _from_index(index, store, path, 0, found)
        yield from found[:_MOST]


def parsed(store: Directory | Archive, name: str, path: str) -> Any:
    """Give a JSON part of an image as a tree, None where it isn't there. Raises Broken."""
    data = store.small(name)
    if data is None:
        return None
    found = documents(data, f"{path}/{name}")
    if len(found) != 1:
        raise Broken(Where(f"{path}/{name}"), "this is no single JSON value")
    return found[0]


def _saved(entry: Map) -> Iterator[Image | Broken]:
    """Give the image of an entry of docker save's manifest.json."""
    config, layers, tags = entry.text("Config"), entry.seq("Layers"), entry.seq("RepoTags")
    name = next((tag for tag in tags or () if isinstance(tag, str)), "")
    plain = inside(config or "..")
    listed = [inside(layer) if isinstance(layer, str) else None for layer in layers or ()]
    if plain is None or None in listed or len(listed) > _LAYERS:
        yield Broken(entry.where, "it names parts that lie outside of the archive, or none")
        return
    yield Image(name, plain, tuple([(layer, "") for layer in listed if layer]))


def _from_index(index: Map, store: Directory | Archive, path: str, depth: int, found: list[Image | Broken]) -> None:
    for entry in index.seq("manifests") or ():
        if not isinstance(entry, Map) or len(found) >= _MOST or _is_attestation(entry):
            continue
        name = _name(entry)
        part = blob(entry)
        try:
            manifest = parsed(store, part, path) if part else None
        except Broken as broken:
            found.append(broken)
            continue
        if not isinstance(manifest, Map):
            if not _other_platform(index):
                found.append(Broken(entry.at("digest"), "the manifest that it names isn't there"))
        elif isinstance(manifest.get("manifests"), Seq):
            if depth < _DEEPEST:
                _from_index(manifest, store, path, depth + 1, found)
        elif isinstance(manifest.get("config"), Map):
            found.append(_of(manifest, name))


def _other_platform(index: Map) -> bool:
    """Say whether an index is one of several platforms, of which mostly only one is kept."""
    return len(index.seq("manifests") or ()) > 1


def _is_attestation(entry: Map) -> bool:
    annotations = entry.map("annotations")
    return annotations is not None and "vnd.docker.reference.type" in annotations


def _name(entry: Map) -> str:
    annotations: dict[str, Any] = entry.map("annotations") or {}
    for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name"):
        if isinstance(annotations.get(key), str):
            return str(annotations[key])
    platform: dict[str, Any] = entry.map("platform") or {}
    return "/".join([str(platform[key]) for key in ("os", "architecture", "variant") if platform.get(key)])


def _of(manifest: Map, name: str, blobs: str = "blobs") -> Image | Broken:
    config = manifest.map("config") or Map(manifest.path, manifest.place)
    layers = [each for each in manifest.seq("layers") or () if isinstance(each, Map)]
    parts = [blob(each, blobs) for each in (config, *layers)]
    if None in parts or len(layers) > _LAYERS:
        return Broken(manifest.where, "a digest in it is none")
    digests = [each.text("digest") or "" for each in layers]
    return Image(name, parts[0] or "", tuple(zip([part or "" for part in parts[1:]], digests, strict=True)))


def blob(descriptor: Map, blobs: str = "blobs") -> str | None:
    """Give the part that a descriptor names; None for a digest that is none, such as one with a path in it."""
    match = _DIGEST.match(descriptor.text("digest") or "")
    if match is None:
        return None
    return f"{blobs}/{match[1]}/{match[2]}" if blobs else match[2]
