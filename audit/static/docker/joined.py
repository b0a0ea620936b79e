"""The namespaces of a request: own ones, the host's, those of other containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockade.audit import facts
from stockade.audit.facts import Gap
from stockade.audit.static import building
from stockade.audit.static.docker import words
from stockade.sandbox.linux.idmap import Mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.audit.facts import Fact, NamespaceKind, Where
    from stockade.audit.static.docker.request import Request

_KINDS: tuple[tuple[NamespaceKind, str], ...] = (("pid", "pid"), ("net", "network"), ("ipc", "ipc"), ("uts", "uts"))
_OWN_USERS = ("auto", "nomap", "keep-id", "private")


def namespaces(request: Request) -> Iterator[Fact | Gap]:
    """Give all namespaces; what depends on how the engine is set up isn't known."""
    for kind, name in _KINDS:
        yield from _one(request, kind, request.text(name).strip(), request.at(name))
    yield building.namespace("mnt", request.where, host=False)
    cgroup = request.text("cgroupns").strip()
    # unset it is private with cgroup v2 and the host's with v1
    known = {"host": True, "private": False}.get(cgroup)
    yield building.namespace("cgroup", request.at("cgroupns"), host=known)
    yield from _user(request)


def _one(request: Request, kind: NamespaceKind, mode: str, where: Where) -> Iterator[Fact | Gap]:
    word, _, rest = mode.partition(":")
    if words.UNKNOWN.search(mode):
        yield Gap(facts.Namespace, f"the {kind} namespace depends on {mode}", where)
        return
    if word in {"container", "service"} and rest:
        prefix = request.id.rpartition(":")[0]
        other = f"{prefix}:{rest}" if word == "service" else f"container:{rest}"
        yield building.namespace(kind, where, host=False, shared_with=(other,))
        return
    if word == "ns":
        yield Gap(facts.Namespace, f"the {kind} namespace is that of {rest}", where)
        yield building.namespace(kind, where, host=rest.startswith("/proc/1/") or None)
        return
    yield building.namespace(kind, where, host=word == "host")


def _user(request: Request) -> Iterator[Fact | Gap]:
    mode, where = request.text("userns").strip(), request.at("userns")
    maps = _mappings(request, "uidmap")
    if maps:
        where = request.at("uidmap")
        groups = _mappings(request, "gidmap") or maps
        yield facts.UserNamespace(where=where, initial=False, uid_map=maps, gid_map=groups)
        yield building.namespace("user", where, host=False)
    elif mode == "host":
        yield building.namespace("user", where, host=True)
        if request.rootless is not True:
            yield building.user_namespace(where, host=True)
    elif request.engine == "nspawn" and not mode:
        yield building.user_namespace(where, host=True)
        yield building.namespace("user", where, host=True)
    elif mode.split(":")[0] in _OWN_USERS or request.rootless is True:
        yield building.user_namespace(where, host=False)
        yield building.namespace("user", where, host=False)
    else:
        reason = "it depends on whether the daemon has userns-remap or is rootless"
        if request.engine == "podman":
            reason = "it depends on who runs it: podman of a user is rootless"
        yield Gap(facts.UserNamespace, reason, where)
        yield building.namespace("user", where, host=None)


def _mappings(request: Request, name: str) -> tuple[Mapping, ...]:
    return tuple([each for text in request.texts(name) if (each := _mapping(text)) is not None])


def _mapping(text: str) -> Mapping | None:
    """Take INSIDE:HOST:SIZE; a host id with @ or + in front is left to the engine."""
    parts = text.strip().split(":")
    if len(parts) in {2, 3} and all(part.isdigit() for part in parts):
        return Mapping(int(parts[0]), int(parts[1]), int(parts[2]) if len(parts) == 3 else 1)
    return None
