"""Collectors of files: each turns one kind of file into targets, one a container, with the place of each fact.

A collector is a module with `def targets(source: Source) -> Iterator[Target]`. It raises Broken where nothing of the
file can be read; a part that can't be is a Gap of its target. `COLLECTORS` names the modules, which are imported when
the first file of their kind is met.
"""

from __future__ import annotations

#: kind of a file, as audit/documents/kinds.py recognises it → its collector
COLLECTORS = {
    "compose": "stockade.audit.static.compose",
    "docker-inspect": "stockade.audit.static.inspect",
    "dockerfile": "stockade.audit.static.dockerfile",
    "helm": "stockade.audit.static.helm",
    "image": "stockade.audit.static.image",
    "kubernetes": "stockade.audit.static.kubernetes",
    "oci": "stockade.audit.static.oci",
    "podman-inspect": "stockade.audit.static.inspect",
    "quadlet": "stockade.audit.static.quadlet",
    "systemd": "stockade.audit.static.systemd",
}
