"""From a compose file to its targets: one for each service, whatever profile it belongs to.

`targets` gives a file with the override that compose itself reads beside it (compose.override.yml beside compose.yml).
`project` gives several files merged in their order, as `docker compose -f a.yml -f b.yml` does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stockade.audit.documents.load import Broken
from stockade.audit.documents.tree import Map
from stockade.audit.facts import SharedVolume
from stockade.audit.static.compose.project import Loader
from stockade.audit.static.compose.reading import Reader
from stockade.audit.static.compose.service import request
from stockade.audit.static.compose.storage import behind
from stockade.audit.static.docker.declare import target
from stockade.audit.static.docker.request import Mounted, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stockade.audit.documents.walk import Source
    from stockade.audit.facts import Target
    from stockade.audit.static.compose.project import Project

#: what is wrong in one file and is told each for itself
_TOLD = 20


def targets(source: Source) -> Iterator[Target | Broken]:
    """Give the targets of a file and of what it includes, then what is wrong. Raises Broken for the whole file."""
    reader = Reader()
    loader = Loader(reader)
    yield from _targets(loader, loader.with_override(source))


def project(sources: Sequence[Source]) -> Iterator[Target | Broken]:
    """Give the targets of several files, merged in their order and named after the first."""
    yield from _targets(Loader(Reader()), list(sources))


def _targets(loader: Loader, sources: list[Source]) -> Iterator[Target | Broken]:
    asked: list[Request] = []
    for each in loader.load(sources):
        more = _requests(each, loader.reader)
        asked += more
        spare = _spare(each, more, loader.reader)
        if spare is not None:
            yield spare
    shared = _shared(asked)
    for one in asked:
        found = target(one)
        others = tuple(shared.get(one.id, ()))
        yield replace(found, facts=(*found.facts, *others)) if others else found
    wrong = loader.reader.wrong
    yield from wrong[:_TOLD]
    if len(wrong) > _TOLD:
        yield Broken(wrong[0].where, f"and {len(wrong) - _TOLD} more parts are wrong")


def _requests(one: Project, reader: Reader) -> list[Request]:
    return [request(service, reader) for service in one.services.values() if service.node or service.node.places]


def _spare(project: Project, asked: Sequence[Request], reader: Reader) -> Target | None:
    """Give the volumes that are directories of the host and that no service of the file mounts yet."""
    used = {mount.source for one in asked for mount in one.mounts}
    volumes = project.document.get("volumes")
    if not isinstance(volumes, Map):
        return None
    made = Request(
        f"{project.path}:volumes", "volumes that no service mounts", "compose", project.document.at("volumes")
    )
    made.whole = False
    for name in volumes:
        if name not in used:
            destination = f"volume {name} (no service mounts it)"
            mount = behind(Mounted(volumes.at(name), "volume", name, destination), project, reader)
            if mount.device:
                made.mounts.append(mount)
    return target(made) if made.mounts else None


def _shared(asked: Sequence[Request]) -> dict[str, list[SharedVolume]]:
    """Find the volumes and directories of the host that several services mount and at least one can write."""
    users: dict[str, list[tuple[Request, Mounted]]] = {}
    for one in asked:
        for mount in one.mounts:
            if mount.source and mount.kind in {"bind", "volume"} and not _single(mount.source):
                users.setdefault(mount.source.rstrip("/"), []).append((one, mount))
    found: dict[str, list[SharedVolume]] = {}
    for name, mounts in users.items():
        for one, mount in mounts:
            others = {other.id.rpartition(":")[2] for other, _ in mounts if other.id != one.id}
            if mount.writable and others:
                fact = SharedVolume(where=mount.where, name=name, others=tuple(sorted(others)))
                found.setdefault(one.id, []).append(fact)
    return found


def _single(source: str) -> bool:
    """Say whether a path is one that services share on purpose and not to write: sockets, devices, the clock."""
    return source.endswith(".sock") or source.startswith(("/dev/", "/etc/localtime", "/etc/timezone", "/proc", "/sys"))
