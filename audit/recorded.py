"""Facts written down as TOML: the examples in the rules' docstrings and the tests' recorded input.

A recording says only what differs from `CONFINED`, a container that no rule finds fault with (Pod Security's fixtures
are made in the same way from one minimal pod):

    absent = ["SeccompFilter"]      # nothing is known of these kinds

    [Identity]                      # a kind of one fact: these fields differ
    host_uids = [0, 0, 0, 0]

    [[Mount]]                       # a kind of many: one more, or other fields of the one with the same name
    destination = "/data"

Capability sets are lists of names or "ALL", id maps are strings "container:host:size", `where` is "path:line",
"max" is no limit, as in cgroup files, and "unknown" is a part of a fact that is not known.
"""

import tomllib
import types
import typing
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from stockade.audit import facts
from stockade.audit.facts import KINDS, Fact, Target, Where
from stockade.errors import UsageError
from stockade.sandbox.linux import capabilities as caps
from stockade.sandbox.linux import idmap

#: the field that tells one fact of a kind of many from another
_NAMES: dict[type[Fact], str] = {
    facts.Namespace: "kind",
    facts.LsmLabel: "module",
    facts.Mount: "destination",
    facts.EngineSocket: "path",
    facts.Mask: "path",
    facts.ControlFile: "path",
    facts.DeviceNode: "path",
    facts.CgroupLimit: "name",
    facts.OpenDescriptor: "fd",
    facts.Executable: "path",
    facts.ResourceLimit: "name",
    facts.Process: "pid",
    facts.SharedIds: "other",
    facts.HostService: "name",
    facts.HostSetting: "name",
    facts.SubordinateIds: "user",
    facts.DaemonSetting: "name",
    facts.DaemonListener: "address",
    facts.EngineMember: "user",
    facts.HostFile: "path",
    facts.InstalledVersion: "name",
    facts.Declared: "subject",
    facts.Unset: "subject",
    facts.Variable: "name",
    facts.Port: "container_port",
    facts.SysctlSetting: "name",
    facts.VolumeType: "name",
    facts.SharedVolume: "name",
    facts.Probe: "name",
    facts.RoleRule: "verbs",
    facts.RoleGrant: "role",
    facts.BuildStep: "instruction",
    facts.ImageFile: "path",
}
_KINDS: dict[str, type[Fact]] = {kind.__name__: kind for kind in KINDS}
_HINTS = {kind: {name: hint for name, hint in typing.get_type_hints(kind).items() if name != "many"} for kind in KINDS}
_REQUIRED = {
    kind: [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    for kind in KINDS
}
_NOTHING = ("max", "unknown")
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")

CONFINED = """
[Runtime]
engine = "stockade"

[Identity]
uids = [1000, 1000, 1000, 1000]
gids = [1000, 1000, 1000, 1000]
groups = [1000]
host_uids = [101000, 101000, 101000, 101000]
host_gids = [101000, 101000, 101000, 101000]
host_groups = [101000]

[UserNamespace]
initial = false
uid_map = ["0:100000:65536"]
gid_map = ["0:100000:65536"]
owner_uid = 0
depth = 1

[CapabilitySets]
bounding = []
effective = []
inheritable = []
permitted = []
ambient = []

[NoNewPrivs]
value = true

[SeccompState]
mode = "filter"
filters = 1

[SeccompFilter]
allowed = ["read", "write", "openat", "execve"]
conditional = ["clone", "socket"]

[DevicePolicy]
default = "deny"
rules = ["c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"]
source = "v1"

[CgroupMembership]
path = "/stockade/web"
version = 2
shared_with_host = false

[WorkingDirectory]
path = "/"
outside = false

[OomScoreAdj]
value = 0

[Host]
kernel = [6, 1]
release = "6.1.0"
lsms = ["lockdown", "capability", "landlock", "yama", "apparmor", "bpf"]
yama = 1
modules = true
modules_disabled = false
lockdown = "none"
cgroup = "v2"
apparmor = true
selinux = false

[[Namespace]]
kind = "user"
host = false

[[Namespace]]
kind = "pid"
host = false
owner_initial = false

[[Namespace]]
kind = "mnt"
host = false
owner_initial = false

[[Namespace]]
kind = "net"
host = false
owner_initial = false

[[Namespace]]
kind = "ipc"
host = false
owner_initial = false

[[Namespace]]
kind = "uts"
host = false
owner_initial = false

[[Namespace]]
kind = "cgroup"
host = false
owner_initial = false

[[Namespace]]
kind = "time"
host = false
owner_initial = false

[[LsmLabel]]
module = "apparmor"
label = "stockade (enforce)"
mode = "enforce"

[[Mount]]
destination = "/"
fstype = "ext4"
host_path = "/srv/images/web"
writable = false
options = ["ro", "nosuid", "nodev"]
propagation = "private"

[[Mount]]
destination = "/proc"
fstype = "proc"
writable = true
options = ["rw", "nosuid", "nodev", "noexec"]
propagation = "private"

[[Mount]]
destination = "/dev"
fstype = "tmpfs"
writable = true
options = ["rw", "nosuid", "noexec"]
super_options = ["rw", "size=65536k"]
propagation = "private"

[[Mask]]
path = "/proc/sys"
state = "read-only"
declared = "read-only"

[[Mask]]
path = "/proc/kcore"
state = "masked"
declared = "masked"

[[ControlFile]]
path = "/proc/sys/kernel/core_pattern"
access = "write"
outcome = "refused"
error = "EROFS"

[[DeviceNode]]
path = "/dev/null"
kind = "char"
major = 1
minor = 3
usable = true
policy = true

[[CgroupLimit]]
name = "memory"
value = 536870912

[[CgroupLimit]]
name = "swap"
value = 536870912

[[CgroupLimit]]
name = "pids"
value = 512

[[CgroupLimit]]
name = "cpu"
value = 1000

[[OpenDescriptor]]
fd = 0
target = "/dev/null"
kind = "device"
outside = false

[[Executable]]
path = "/usr/bin/web"
outside = false

[[ResourceLimit]]
name = "core"
soft = 0
hard = 0

[[ResourceLimit]]
name = "nofile"
soft = 1024
hard = 4096
"""


def load(text: str, name: str = "example", kind: str = "container") -> Target:
    """Give the target that a recording describes. Raises UsageError where it can't be understood."""
    changes = _parse(text)
    absent = {_kind(each) for each in changes.pop("absent", [])}
    rows = [
        (kind, row)
        for kind, base in _confined().items()
        if kind not in absent
        for row in _merge(kind, base, changes.pop(kind.__name__, []))
    ]
    if changes:
        raise UsageError(f"{name}: unknown or absent kind of fact {next(iter(changes))!r}")
    return Target(
        id=f"{kind}:{name}",
        name=name,
        kind=kind,
        facts=tuple([_fact(kind, row, name) for kind, row in rows]),
        complete=frozenset(kind for kind in KINDS if kind.many and kind not in absent),
    )


@cache
def _confined() -> dict[type[Fact], list[dict[str, Any]]]:
    base = _parse(CONFINED)
    return {kind: base.get(kind.__name__, []) for kind in KINDS}


def _parse(text: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recorded facts: {error}") from None
    return {name: [value] if isinstance(value, dict) else value for name, value in tables.items()}


def _kind(name: str) -> type[Fact]:
    if name not in _KINDS:
        raise UsageError(f"there is no kind of fact {name!r}")
    return _KINDS[name]


def _merge(kind: type[Fact], base: list[dict[str, Any]], changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not kind.many:
        return [{**(base[0] if base else {}), **(changes[0] if changes else {})}] if base or changes else []
    name = _NAMES[kind]
    rows = {str(row[name]): row for row in base}
    for change in changes:
        rows[str(change[name])] = {**rows.get(str(change[name]), {}), **change}
    return list(rows.values())


def _fact(kind: type[Fact], row: dict[str, Any], source: str) -> Fact:
    hints = _HINTS[kind]
    unknown = row.keys() - hints.keys()
    if unknown:
        raise UsageError(f"{source}: {kind.__name__} has no field {min(unknown)!r}")
    # a field that TOML leaves out is None, for TOML has no word for it, unless the kind has another default
    values: dict[str, Any] = {name: None for name in _REQUIRED[kind] if name != "where"}
    values["where"] = f"{source}.toml"
    for name, value in row.items():
        values[name] = _mask(value) if kind is facts.CapabilitySets and name in _SETS else value
    try:
        return kind(**{name: _convert(hints[name], value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise UsageError(f"{source}: {kind.__name__}: {error}") from None


def _mask(names: Any) -> int:
    return caps.ALL if names == "ALL" else caps.mask(names)


def _convert(hint: Any, value: Any) -> Any:
    """Turn what TOML holds into what a field holds. Raises TypeError, ValueError for what doesn't fit."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        return None if value is None or value in _NOTHING else _convert(inner[0], value)
    if origin is typing.Literal:
        if value not in inner:
            raise ValueError(f"{value!r} is none of {', '.join(map(repr, inner))}")
        return value
    if origin is tuple:
        return tuple([_convert(inner[0], each) for each in value])
    if origin is frozenset:
        return frozenset(value)
    if hint is idmap.Mapping:
        return idmap.parse_argument(value)
    if hint is Where:
        path, *numbers = value.split(":")
        return Where(path, *[int(number) for number in numbers])
    if type(value) is not hint:
        raise TypeError(f"{value!r} is not of type {hint.__name__}")
    return value
