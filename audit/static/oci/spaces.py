"""The namespaces that a config.json asks for, and the ids of its user namespace on the host."""

import re
from dataclasses import dataclass

from stockade.audit import facts
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap, NamespaceKind, Where
from stockade.audit.static.reading import Reader
from stockade.sandbox.linux import namespaces as kinds
from stockade.sandbox.linux.idmap import ID_LIMIT, Mapping

_KINDS: tuple[NamespaceKind, ...] = ("pid", "mnt", "net", "ipc", "uts", "cgroup", "time")
#: whose namespaces a runtime joins by such a path: those of init, and its own
_HOSTS = re.compile(r"/proc/(?:1|self|thread-self)/(?:task/\d+/)?ns/\w+$|/(?:var/)?run/docker/netns/default$")
#: where engines keep namespaces that they make for one container
_MADE = re.compile(r"/netns/|/(?:pid|ipc|uts|net|user)ns/|^/run/ipcns|/pods?/")
_ROOTLESS = re.compile(r"/\.local/share/(?:containers|docker)/|/run/user/[1-9]\d*/(?:containers|netns|docker)\b")


@dataclass(frozen=True, slots=True)
class Users:
    """The user namespace: whether it is the host's (None is not known), its place and what is known of it."""

    host: bool | None
    where: Where
    facts: tuple[Fact | Gap, ...]


def namespaces(linux: Map, users: Users, reader: Reader) -> list[Fact | Gap]:
    """Give all eight: one that isn't listed is the runtime's, which is the host's."""
    listed: dict[str, tuple[str | None, Where]] = {}
    for entry in reader.mappings(linux, "namespaces"):
        kind = kinds.FROM_OCI.get(reader.text(entry, "type") or "")
        if kind is None:
            reader.refuse(entry.at("type"), "type", "a kind of namespace", entry.get("type"))
            continue
        path = reader.text(entry, "path")
        listed[kind] = (path, entry.at("path" if path else "type"))
    found: list[Fact | Gap] = [facts.Namespace(where=users.where, kind="user", host=users.host)]
    for kind in _KINDS:
        path, where = listed.get(kind, (None, linux.at("namespaces")))
        found.append(_one(kind, kind in listed, path, where))
    return found


def _one(kind: NamespaceKind, listed: bool, path: str | None, where: Where) -> facts.Namespace:  # noqa: FBT001 - as read
    if path is None:
        return facts.Namespace(where=where, kind=kind, host=not listed)
    if _HOSTS.search(path):
        return facts.Namespace(where=where, kind=kind, host=True)
    return facts.Namespace(where=where, kind=kind, host=False, shared_with=() if _MADE.search(path) else (path,))


def users(config: Map, linux: Map, path: str, reader: Reader) -> Users:
    """Say whose ids the container's are."""
    for entry in reader.mappings(linux, "namespaces"):
        if entry.get("type") == "user":
            joined = reader.text(entry, "path")
            if joined is None:
                return _mapped(linux, entry, reader)
            where = entry.at("path")
            if _HOSTS.search(joined):
                return _initial(where)
            reason = f"the ids are those of the user namespace {joined}"
            return Users(False, where, (Gap(facts.UserNamespace, reason, where),))
    where = linux.at("namespaces")
    if _rootless(config, path):
        reason = "the runtime is started by a user's engine, in a user namespace of that"
        return Users(None, where, (Gap(facts.UserNamespace, reason, where),))
    return _initial(where)


def _initial(where: Where) -> Users:
    return Users(True, where, (facts.UserNamespace(where=where, initial=True),))


def _rootless(config: Map, path: str) -> bool:
    root = config.get("root")
    of_root = root.get("path") if isinstance(root, Map) else None
    return any(isinstance(each, str) and _ROOTLESS.search(each) for each in (of_root, path))


def _mapped(linux: Map, entry: Map, reader: Reader) -> Users:
    ids = {key: _maps(linux, key, reader) for key in ("uidMappings", "gidMappings")}
    where = linux.at("uidMappings") if ids["uidMappings"] else entry.where
    if not ids["uidMappings"]:
        # without a map no id of the host has a name inside: everybody is nobody
        return Users(False, where, (facts.UserNamespace(where=where, initial=False, uid_map=(), gid_map=()),))
    known = facts.UserNamespace(
        where=where, initial=False, uid_map=ids["uidMappings"], gid_map=ids["gidMappings"] or None
    )
    return Users(False, where, (known,))


def _maps(linux: Map, key: str, reader: Reader) -> tuple[Mapping, ...]:
    found = []
    for entry in reader.mappings(linux, key):
        inside, outside, size = [reader.number(entry, name) for name in ("containerID", "hostID", "size")]
        numbers = (inside or 0, outside or 0, size or 0)
        if all(0 <= number < ID_LIMIT for number in numbers) and numbers[2]:
            found.append(Mapping(*numbers))
        else:
            reader.refuse(entry.where, key, "made of ids of 32 bits", entry)
    return tuple(found)
