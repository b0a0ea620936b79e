"""Builds images for the tests: layers entry by entry, archives as docker save writes them, OCI layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any, TypeVar

from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Entry, Source, read
from stockade.audit.facts import Fact, ImageFile, Target
from stockade.audit.static.image import targets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

F = TypeVar("F", bound=Fact)


def file(name: str, content: bytes = b"", mode: int = 0o644, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return file(name, mode=mode, type=tarfile.DIRTYPE)


def link(name: str, to: str, *, hard: bool = False) -> tuple[tarfile.TarInfo, bytes]:
    return file(name, mode=0o777, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=to)


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Give a layer as an uncompressed archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def configuration(config: dict[str, Any] | None = None, **sections: Any) -> bytes:
    return json.dumps({"architecture": "amd64", "os": "linux", "config": config or {}, **sections}).encode()


def saved(path: Path, layers: Sequence[bytes], config: bytes = b"", **entry: Any) -> Path:
    """Write an archive as docker save does."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": ["web:1"], "Layers": names, **entry}]
    parts = [("c.json", config or configuration()), *zip(names, layers, strict=True)]
    path.write_bytes(layer(*[file(*part) for part in parts], file("manifest.json", json.dumps(manifest).encode())))
    return path


def layout(path: Path, layers: Sequence[bytes], config: bytes = b"") -> Path:
    """Write an OCI layout with compressed layers."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest = {"config": put(config or configuration()), "layers": [put(gzip.compress(each)) for each in layers]}
    reference = {"org.opencontainers.image.ref.name": "web:1"}
    index = {"manifests": [{**put(json.dumps(manifest).encode()), "annotations": reference}]}
    (path / "index.json").write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


def source(path: Path) -> Source:
    found = read(Entry(str(path), named=True))
    assert isinstance(found, Source)
    return found


def everything(path: Path) -> list[Target | Broken]:
    return list(targets(source(path)))


def image(path: Path) -> Target:
    """Give the one image of a file, in which nothing is wrong."""
    (target,) = everything(path)
    assert isinstance(target, Target)
    return target


def files(target: Target) -> dict[str, ImageFile]:
    """Give what was found in the layers, by path."""
    return {each.path: each for each in target.all(ImageFile)}


def wrong(found: list[Target | Broken]) -> list[str]:
    return [each.text for each in found if isinstance(each, Broken)]
