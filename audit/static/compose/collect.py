"""From a compose file to its targets: one for each service, whatever profile it belongs to.

`targets` gives a file with the override that compose itself reads beside it (compose.override.yml beside compose.yml).
`project` gives several files merged in their order, as `docker compose -f a.yml -f b.yml` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockade.audit.documents.load import Broken
from stockade.audit.facts import SharedVolume
from stockade.audit.static.compose.project import Loader
from stockade.audit.static.compose.reading import Reader
from stockade.audit.static.compose.service import request
from stockade.audit.static.docker.declare import target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stockade.audit.documents.walk import Source
    from stockade.audit.facts import Target
    from stockade.audit.static.compose.project import Project
    from stockade.audit.static.docker.request import Mounted, Request

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
        asked += _requests(each, loader.reader)
    shared = _shared(asked)
    for one in asked:
        found = target(one)
        more = tuple(shared.get(one.id, ()))
        yield _with(found, more) if more else found
    wrong = loader.reader.wrong
    yield from wrong[:_TOLD]
    if len(wrong) > _TOLD:
        yield Broken(wrong[0].where, f"and {len(wrong) - _TOLD} more parts are wrong")


def _with(found: Target, more: tuple[SharedVolume, ...]) -> Target:
    from dataclasses import replace

    return replace(found, facts=(*found.facts, *more))


def _requests(one: Project, reader: Reader) -> list[Request]:
    return [request(service, reader) for service in one.services.values() if service.node or service.node.places]


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
