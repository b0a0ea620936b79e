"""A mode as a record, read from its file or, when that has not changed, from the cache.

tomllib costs 14 ms, more than a whole launch; the checked content is kept as marshal under the hash of the file.
"""

from __future__ import annotations

import marshal
import os

from stockade import profiles
from stockade.errors import UsageError
from stockade.sandbox import cache
from stockade.sandbox.linux import capabilities, idmap
from stockade.sandbox.linux.record import Record
from stockade.sandbox.oci.spec import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stockade.sandbox.linux.idmap import Mapping as IDMapping

#: in the sets of a mode and of a request: every capability that the caller holds
ALL = "ALL"

#: part of the cache key: raised when the shape of the cached content changes
_FORMAT = b"mode 1, marshal %d\0" % marshal.version


class Limits(Record):
    """The limits that a mode states; sizes in bytes, None or () where it states none."""

    shm_size: int | None = None
    root_size: int | None = None
    memory: int | None = None
    memory_swap: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    pids: int | None = None
    ulimits: tuple[tuple[str, int, int], ...] = ()


class Mode(Record):
    """What profiles/modes/*.toml says. The sets hold CAP_ names, or ALL alone for all that the caller holds.

    `seccomp` is "default", "unconfined" or an absolute path; `devices` is None for all; `namespaces` has OCI's eight
    types with "private" or "host"; `uidmap` and `gidmap` are empty where `userns` decides.
    """

    name: str
    description: str
    seccomp: str
    no_new_privileges: bool
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    devices: tuple[str, ...] | None
    bounding: tuple[str, ...]
    permitted: tuple[str, ...]
    effective: tuple[str, ...]
    inheritable: tuple[str, ...]
    ambient: tuple[str, ...]
    namespaces: Mapping[str, str]
    userns: str
    uidmap: tuple[IDMapping, ...]
    gidmap: tuple[IDMapping, ...]
    sysctl: Mapping[str, str]
    limits: Limits
    mounts: tuple[Mount, ...]


def default_name(uid: int) -> str:
    """Give the mode of a request that names none: normal as root, rootless as a user."""
    return "normal" if uid == 0 else "rootless"


def load(name_or_path: str) -> Mode:
    """Give a mode by the name of one of ours or by the path of a TOML file. Raises UsageError, with the line."""
    where = profiles.path("mode", name_or_path)
    try:
        data = profiles.read("mode", name_or_path)
    except OSError as error:
        known = ", ".join(profiles.names("mode"))
        raise UsageError(
            f"mode {name_or_path!r}: {where}: {error.strerror}", hint=f"use one of {known}, or the path of a .toml file"
        ) from None
    return _mode(name_or_path, where, _content(data, where))


def _content(data: bytes, where: str) -> dict[str, Any]:
    key = cache.sha256(_FORMAT + data)
    stored = cache.get("mode", key)
    if stored is not None:
        cached = marshal.loads(stored)  # noqa: S302 - the cache gives only what we ourselves put there, whole
        if isinstance(cached, dict):
            return cached
    from stockade.profiles.schema import parse_mode

    content = parse_mode(data, where)
    cache.put("mode", key, marshal.dumps(content))
    return content


def _mode(name: str, where: str, content: dict[str, Any]) -> Mode:
    mapping, sets = content["id_mapping"], content["capabilities"]
    try:
        return Mode(
            name=name,
            description=content.get("description", ""),
            seccomp=_seccomp(content["seccomp"], where),
            no_new_privileges=content["no_new_privileges"],
            masked_paths=tuple(content["masked_paths"]),
            readonly_paths=tuple(content["readonly_paths"]),
            devices=None if content["devices"] == "all" else tuple(content["devices"]),
            namespaces=content["namespaces"],
            userns=mapping["userns"],
            uidmap=_maps(mapping.get("uidmap", ())),
            gidmap=_maps(mapping.get("gidmap", ())),
            sysctl=content["sysctl"],
            limits=_limits(content["limits"]),
            mounts=tuple([Mount(**(mount | {"options": tuple(mount["options"])})) for mount in content["mounts"]]),
            **{kind: _set(names) for kind, names in sets.items()},
        )
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _set(names: object) -> tuple[str, ...]:
    if names == "caller" or not isinstance(names, list):
        return (ALL,)
    capabilities.mask(names)  # raises ValueError for an unknown name
    return tuple(names)


def _maps(texts: object) -> tuple[IDMapping, ...]:
    maps = tuple([idmap.parse_argument(text) for text in texts]) if isinstance(texts, list) else ()
    if maps:
        idmap.check(maps)
    return maps


def _limits(content: dict[str, Any]) -> Limits:
    ulimits = []
    for text in content.get("ulimits", ()):
        name, _, values = text.partition("=")
        soft, _, hard = values.partition(":")
        ulimits.append((name, int(soft), int(hard or soft)))
    found: dict[str, Any] = content | {"ulimits": tuple(ulimits)}
    return Limits(**found)


def _seccomp(value: str, where: str) -> str:
    if value in ("default", "unconfined"):
        return value
    return os.path.join(os.path.dirname(os.path.abspath(where)), value)
