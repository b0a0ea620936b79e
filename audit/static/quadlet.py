"""Collects what Quadlet's units declare (podman-systemd.unit(5)): containers, pods, and pods of Kubernetes' files.

A container's volumes and pod are looked for in the units beside it, .volume and .pod, where it names them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stockade.audit.documents import walk
from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Entry, Source
from stockade.audit.static import units
from stockade.audit.static.docker import run, words
from stockade.audit.static.docker.declare import target
from stockade.audit.static.docker.request import Mounted, Request, Set, Switch, Word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.audit.facts import Target, Where

#: keys of one value → the option of `podman run`
_ONE = {
    "UserNS": "userns", "Network": "network", "PidsLimit": "pids-limit", "Memory": "memory", "ShmSize": "shm-size",
    "CgroupParent": "cgroup-parent",
}  # fmt: skip
#: keys whose values add up, each a list of words
_MANY = {
    "AddCapability": "cap-add", "DropCapability": "cap-drop", "GroupAdd": "group-add", "Sysctl": "sysctl",
    "Ulimit": "ulimit", "Tmpfs": "tmpfs", "UIDMap": "uidmap", "GIDMap": "gidmap", "AddDevice": "device",
    "PublishPort": "publish", "ExposeHostPort": "expose", "Mount": "mount",
}  # fmt: skip
#: keys that make a security option
_SECURITY = {
    "SeccompProfile": "seccomp={}", "AppArmor": "apparmor={}", "SecurityLabelType": "label=type:{}",
    "SecurityLabelLevel": "label=level:{}", "SecurityLabelFileType": "label=filetype:{}", "Unmask": "unmask={}",
    "Mask": "mask={}",
}  # fmt: skip
_TRUE = frozenset({"1", "yes", "true", "on", "y", "t"})
_FALSE = frozenset({"0", "no", "false", "off", "n", "f"})
_SECTIONS = ("Container", "Pod", "Kube")
_ROOTLESS = re.compile(r"(?:^|/)(?:\.config/containers/systemd|containers/systemd/users)(?:/|$)")
_ROOT = re.compile(r"(?:^|/)(?:etc|run|usr/share)/containers/systemd/")


@dataclass(slots=True)
class _Unit:
    """A unit while it is read."""

    source: Source
    section: str
    request: Request
    user: Word | None = None
    group: str = ""


def targets(source: Source) -> Iterator[Target | Broken]:
    """Give the target of a unit; one of an image or a build has none. Then what is wrong in it."""
    found = list(units.entries(source.data, source.path))
    section = next((name for name in _SECTIONS if any(each.section == name for each in found)), None)
    if section is None:
        return
    wrong: list[Broken] = []
    unit = _read(source, section, found, wrong)
    if section == "Container" and unit.request.image is None and not unit.request.local:
        wrong.append(Broken(unit.request.where, "there is neither Image= nor Rootfs=", hint="Quadlet refuses the unit"))
    yield target(unit.request)
    yield from wrong


def _read(source: Source, section: str, found: list[units.Entry], wrong: list[Broken]) -> _Unit:
    name = os.path.basename(source.path)
    where = next(each.begins for each in found if each.section == section)
    made = Request(f"{source.path}:{name.rpartition('.')[0] or name}", name, "quadlet", where, engine="podman")
    made.whole = section == "Container"
    made.rootless = True if _ROOTLESS.search(source.path) else False if _ROOT.search(source.path) else None
    unit = _Unit(source, section, made)
    for entry in found:
        if entry.section == section:
            _take(unit, entry, wrong)
        elif entry.section == "Service" and entry.key == "Restart":
            made.one["restart"] = Word("on-failure" if entry.value.startswith("on-") else entry.value, entry.where)
    if unit.user is not None:
        text = f"{unit.user.text}:{unit.group}" if unit.group else unit.user.text
        made.one["user"] = Word(text, unit.user.where)
    return unit


def _take(unit: _Unit, entry: units.Entry, wrong: list[Broken]) -> None:
    made, key, where = unit.request, entry.key, entry.where
    value = units.specified(entry.value)
    if key in _MANY:
        if not value and _MANY[key] in made.many:
            made.many.pop(_MANY[key])  # an empty value takes back what was given before
        for word in units.words(entry):
            run.take(made, _MANY[key], Word(word.text, _place(word, entry)))
    elif key in _ONE:
        made.one[_ONE[key]] = Word(value, where)
        if key == "Network":
            _network(made, value, where)
    elif key in _SECURITY:
        for word in units.words(entry):
            _option(made, _SECURITY[key].format(word.text), _place(word, entry))
    elif key in {"NoNewPrivileges", "SecurityLabelDisable", "ReadOnly"}:
        _switch(made, entry, wrong)
    elif key in {"Volume", "Environment", "Secret"}:
        for word in units.words(entry):
            _word(unit, key, word.text, _place(word, entry))
    else:
        _other(unit, entry, value)


def _place(word: Word, entry: units.Entry) -> Where:
    """Give the key's place, or the word's where the value goes on in another line."""
    return entry.where if word.where.line == entry.where.line else word.where


def _other(unit: _Unit, entry: units.Entry, value: str) -> None:
    made, key, where = unit.request, entry.key, entry.where
    if key in {"PodmanArgs", "GlobalArgs"}:
        run.read([Word(word.text, _place(word, entry)) for word in units.words(entry)], made, image=False)
    elif key == "Image":
        made.image, made.local = Word(value, where), value.endswith((".image", ".build"))
    elif key == "Rootfs":
        made.local = True
    elif key == "User":
        unit.user = Word(value, where)
    elif key == "Group":
        unit.group = value
    elif key == "HealthCmd":
        made.health = Switch(value.lower() != "none", where)
    elif key == "RemapUsers" and value:
        made.one["userns"] = Word("private" if value != "manual" else value, where)
    elif key == "EnvironmentHost" and value.lower() in _TRUE:
        made.variables.append(Set(where, "*", None, "host"))
    elif key == "Exec":
        made.command = value
    elif key == "Pod":
        _pod(unit, value)


def _switch(made: Request, entry: units.Entry, wrong: list[Broken]) -> None:
    word = entry.value.lower()
    if word not in _TRUE | _FALSE:
        text = f"{entry.key} must be true or false and is {entry.value[:40]!r}"
        wrong.append(Broken(entry.where, text, hint="it counts as absent; Quadlet refuses the unit"))
        return
    on = word in _TRUE
    if entry.key == "ReadOnly":
        made.switches["read-only"] = Switch(on, entry.where)
    elif entry.key == "NoNewPrivileges":
        _option(made, f"no-new-privileges:{'true' if on else 'false'}", entry.where)
    elif on:
        _option(made, "label=disable", entry.where)


def _option(made: Request, text: str, where: Where) -> None:
    made.many.setdefault("security-opt", []).append(Word(text, where))


def _network(made: Request, value: str, where: Where) -> None:
    mode, _, _ = value.partition(":")
    if mode.endswith(".container"):
        made.one["network"] = Word(f"container:{mode}", where)


def _word(unit: _Unit, key: str, text: str, where: Where) -> None:
    made = unit.request
    if key == "Volume":
        mount = words.volume(text, where)
        made.mounts.append(_behind(unit, mount) if mount.source.endswith(".volume") else mount)
    elif key == "Environment":
        run.take(made, "env", Word(text, where))
    else:
        _secret(made, text, where)


def _secret(made: Request, text: str, where: Where) -> None:
    name, *options = text.split(",")
    fields = {key: value or "" for key, value in words.pairs(options)}
    if fields.get("type") == "env":
        made.variables.append(Set(where, fields.get("target") or name, None, "secret"))
    else:
        destination = fields.get("target") or name
        destination = destination if destination.startswith("/") else f"/run/secrets/{destination}"
        made.mounts.append(Mounted(where, "secret", name, destination, writable=False, options=("ro",)))


def _behind(unit: _Unit, mount: Mounted) -> Mounted:
    """Give a volume with what its unit says: a Device= with Options=bind is a directory of the host."""
    found = {each.key: each for each in _beside(unit, mount.source) if each.section == "Volume"}
    device = found.get("Device")
    if device is None:
        return mount
    options = found["Options"].value.split(",") if "Options" in found else []
    kind = found["Type"].value if "Type" in found else ""
    fstype = "bind" if {"bind", "rbind"} & set(options) or kind in {"bind", "none"} else kind
    return replace(mount, device=units.specified(device.value), fstype=fstype, where=device.where)


def _pod(unit: _Unit, name: str) -> None:
    """Take what the pod decides for its containers: the network, the user namespace, its volumes and ports."""
    if not name.endswith(".pod"):
        return
    inner = _Unit(unit.source, "Pod", unit.request)
    for entry in _beside(unit, name):
        if entry.section == "Pod" and entry.key in {"Network", "UserNS", "UIDMap", "GIDMap", "Volume", "PodmanArgs"}:
            _take(inner, entry, [])


def _beside(unit: _Unit, name: str) -> list[units.Entry]:
    """Read a unit in the same directory; none where there is none, or it can't be read."""
    path = unit.source.path
    if path in {"-", walk.STDIN} or "/" in name:
        return []
    file = os.path.join(os.path.dirname(path), name)
    if not os.path.isfile(file):
        return []
    found = walk.read(Entry(file, named=False))
    if not isinstance(found, Source) or not found.whole:
        return []
    try:
        return list(units.entries(found.data, file))
    except Broken:
        return []
