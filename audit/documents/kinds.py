"""Tells what a file is, by its content first and its name second, without parsing it.

A few searches over the bytes cost microseconds where a parse costs milliseconds, and most YAML files of a repository
declare no container.
"""

import os
import re

from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Source

_DOCKERFILE_NAME = re.compile(r"(?:^|.*\.)(?:dockerfile|containerfile)(?:\..*)?$|^(?:docker|container)file[-_.].*$")
_COMPOSE_NAME = re.compile(r"^(?:.*[-_.])?(?:docker-compose|compose|podman-compose)(?:[-_.].*)?\.ya?ml$")
_QUADLET_NAME = (".container", ".pod", ".kube", ".build", ".image")
_SYSTEMD_NAME = (".service", ".socket", ".slice", ".scope", ".timer", ".target", ".mount")
_DOCUMENT_NAME = (".yaml", ".yml", ".json", ".template", ".tpl")
_NO_DOCKERFILE = re.compile(r"\.(?:md|txt|rst|py|go|rs|sh|js|ts|c|h|java|html?|toml|ini|cfg|dockerignore|orig|rej)$")

_KUBERNETES = tuple(
    [
        re.compile(rb"""(?:^[ \t]*(?:- |\{ *)*|[{,]\s*)["']?%b["']?\s*:\s""" % key, re.MULTILINE)
        for key in (b"apiVersion", b"kind")
    ]
)
_COMPOSE = re.compile(rb"""^["']?services["']?\s*:(?:\s|$)""", re.MULTILINE)
_COMPOSE_FLOW = re.compile(
    rb"""^\s*\{\s*(?:["']?(?:version|name)["']?\s*:\s*["'][^"']*["']\s*,\s*)*["']?services["']?\s*:"""
)
_COMPOSE_SERVICE = re.compile(
    rb"""^\s+["']?(?:image|build|extends|container_name|privileged|volumes|command|ports)["']?\s*:""", re.MULTILINE
)
_OTHER_SERVICES = re.compile(rb"^(?:jobs|stages|on|openapi|swagger|pipelines|provider)\s*:", re.MULTILINE)
_INSTRUCTION = re.compile(rb"[ \t]*(?:FROM[ \t]+\S|ARG[ \t]+\w|ONBUILD[ \t]+\w)", re.IGNORECASE)
_FROM = re.compile(
    rb"^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*\S+(?:[ \t]+AS[ \t]+\S+)?[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)
_SECTION = re.compile(rb"^\[([A-Za-z-]+)\][ \t]*\r?$", re.MULTILINE)
_QUADLET_SECTIONS = frozenset({b"Container", b"Pod", b"Kube", b"Build", b"Image"})
_PODMAN = (b'"OCIRuntime"', b'"ConmonPidFile"', b'"BoundingCaps"', b'"EffectiveCaps"', b'"IsInfra"')

#: beginnings of an archive: gzip, zstd, xz, bzip2; a tar has "ustar" at 257
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh")
_TAR_NAME = re.compile(r"\.(?:tar|tgz|tbz2|txz|tar\.\w+|oci|ociarchive)$")


def may_matter(name: str) -> bool:
    """Say by a file's name alone whether it is worth being opened when a directory is walked."""
    low = name.lower()
    return (
        low.endswith((*_DOCUMENT_NAME, *_QUADLET_NAME, ".service"))
        or "." not in low
        or (bool(_DOCKERFILE_NAME.match(low)) and not _NO_DOCKERFILE.search(low))
        or may_be_archive(low)
    )


def may_be_archive(name: str) -> bool:
    """Say by a file's name whether it is an archive."""
    return bool(_TAR_NAME.search(name.lower()))


def archive(head: bytes) -> bool:
    """Say whether bytes are the beginning of a tar archive, compressed or not."""
    return head.startswith(_COMPRESSED) or head[257:262] == b"ustar"


def recognise(source: Source) -> str | None:
    """Give the kind of a file, a key of audit/static's COLLECTORS, or None for what declares no container."""
    name = os.path.basename(source.path).lower()
    if not source.whole or archive(source.data[:512]):
        return "image"
    data = source.data
    if b"\0" in data[:64] and "." not in name:
        return None  # a program
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start in {b"{", b"["}:
        found = _json(data, name)
        if found or name.endswith(".json"):
            return found
    if name in {"chart.yaml", "chart.yml"} and not _KUBERNETES[1].search(data):
        return "helm"
    return _unit(data, name) or _dockerfile(data, name) or _yaml(data, name)


def _json(data: bytes, name: str) -> str | None:
    if b'"ociVersion"' in data and (b'"process"' in data or b'"linux"' in data or b'"root"' in data):
        return "oci"
    if b'"imageLayoutVersion"' in data[:256] and name == "oci-layout":
        return "image"
    if b'"HostConfig"' in data and b'"Config"' in data:
        return "podman-inspect" if any(key in data for key in _PODMAN) else "docker-inspect"
    if b'"apiVersion"' in data and b'"kind"' in data:
        return "kubernetes"
    return "compose" if _COMPOSE_FLOW.match(data) else None


def _unit(data: bytes, name: str) -> str | None:
    """Recognise an ini-like unit: of Quadlet by its section, of systemd by [Service]."""
    if data[:1] not in {b"[", b"#", b";", b"\n", b" "} and not name.endswith((*_QUADLET_NAME, ".service")):
        return None
    sections = set(_SECTION.findall(data))
    if sections & _QUADLET_SECTIONS and name.endswith((*_QUADLET_NAME, "-", "stdin")):
        return "quadlet"
    if b"Container" in sections:
        return "quadlet"
    return "systemd" if b"Service" in sections and b"Exec" in data else None


def _dockerfile(data: bytes, name: str) -> str | None:
    """Recognise a Dockerfile: by its name, or by a first instruction that only a Dockerfile can begin with."""
    named = bool(_DOCKERFILE_NAME.match(name)) and not _NO_DOCKERFILE.search(name)
    if named:
        return None if name.endswith((".yaml", ".yml", ".json")) else "dockerfile"
    if name.endswith((*_DOCUMENT_NAME, *_SYSTEMD_NAME)) or _NO_DOCKERFILE.search(name) or data.startswith(b"#!"):
        return None
    for line in data[:4096].splitlines():
        bare = line.strip()
        if bare and not bare.startswith(b"#"):
            return "dockerfile" if _INSTRUCTION.match(line) and _FROM.search(data) else None
    return None


def _yaml(data: bytes, name: str) -> str | None:
    if all(pattern.search(data) for pattern in _KUBERNETES):
        return "kubernetes"
    named = bool(_COMPOSE_NAME.match(name))
    if named and (_COMPOSE.search(data) or _COMPOSE_SERVICE.search(data) or b"include:" in data):
        return "compose"
    if not _COMPOSE.search(data) or _OTHER_SERVICES.search(data):
        return None
    return "compose" if _COMPOSE_SERVICE.search(data) else None


class NotOne(Exception):
    """A collector found that a file isn't of the kind that it was taken for; it is passed over.

    `broken` is what is said where the file was asked for by name.
    """

    def __init__(self, broken: Broken | None = None) -> None:
        super().__init__(str(broken or ""))
        self.broken = broken
