"""Takes apart the short forms that Docker, Podman and compose share: volumes, ports, devices, sizes, --mount."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from stockade.audit.static.docker.request import Mounted, Passed, Published

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stockade.audit.facts import Where

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?([kmgtp]?)i?b?$", re.IGNORECASE)
_LARGEST = 1e15
_PROPAGATIONS = frozenset({"shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"})
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_ACCESS = re.compile(r"[rwm]{1,3}$")
#: a variable that nobody knows the value of
UNKNOWN = re.compile(r"\$\{?[A-Za-z_]")


def size(text: str) -> int | None:
    """Give a size such as 512m, 1.5GiB or -1 in bytes; -1 and 0 are no limit, which is -1 here. None is no size."""
    word = text.strip()
    if word in {"-1", "0"}:
        return -1
    match = _SIZE.match(word)
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match else None


def number(text: str) -> float | None:
    """Give a number, such as 0.5 processors; None for what is none that an engine takes."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < _LARGEST else None  # not a number and infinity are none either


def split_volume(text: str) -> list[str]:
    """Split SOURCE:DESTINATION:OPTIONS at the colons, not at those of Windows' drives and of variables (${X:-y})."""
    if "$" not in text and not _DRIVE.match(text):
        parts = text.split(":")
        if all(len(part) > 1 for part in parts):  # no letter that may be a drive's
            return parts
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        if text.startswith("${", at):
            depth += 1
        elif text[at] == "}" and depth:
            depth -= 1
        elif text[at] == ":" and not depth and not (at - start == 1 and _DRIVE.match(text, start)):
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def is_path(source: str) -> bool:
    """Say whether the source of a volume is a path of the host and not a volume's name."""
    return (
        source.startswith(("/", ".", "~", "\\", "%h", "%t"))
        or bool(_DRIVE.match(source))
        or bool(UNKNOWN.match(source))
    )


def volume(text: str, where: Where) -> Mounted:
    """Give the mount of -v, compose's short form and Quadlet's Volume=."""
    parts = split_volume(text.strip())
    if len(parts) == 1:
        return Mounted(where, "volume", "", parts[0])
    source, destination = parts[0], parts[1]
    options = tuple([each for each in ",".join(parts[2:]).split(",") if each])
    return mounted(where, "bind" if is_path(source) else "volume", source, destination, options)


def mounted(where: Where, kind: str, source: str, destination: str, options: Iterable[str] = ()) -> Mounted:
    """Give a mount with the options of its third part, such as ro,z,rshared."""
    words = tuple([word.strip() for word in options])
    propagation = next((word for word in words if word in _PROPAGATIONS), None)
    writable = not any(word in {"ro", "readonly", "O"} for word in words)
    return Mounted(where, kind, source, destination, writable, words, propagation)


_TRUE = frozenset({"", "true", "1", "t", "yes"})


def mount(text: str, where: Where) -> Mounted | None:
    """Give the mount of --mount: type=bind,source=/a,target=/b,readonly. None where it names no target."""
    fields: dict[str, str] = {}
    options = []
    for row in csv.reader([text]):
        for part in row:
            key, _, value = part.partition("=")
            fields[key.strip().lower()] = value.strip()
            options.append(part.strip())
    destination = fields.get("target") or fields.get("dst") or fields.get("destination")
    if not destination:
        return None
    read_only = any(fields[key].lower() in _TRUE for key in ("readonly", "ro") if key in fields)
    if fields.get("rw", "no") in _TRUE:
        read_only = fields.get("rw") == "false"
    return Mounted(
        where,
        fields.get("type", "volume"),
        fields.get("source") or fields.get("src") or "",
        destination,
        not read_only,
        tuple(options),
        fields.get("bind-propagation"),
        fields.get("volume-subpath") or fields.get("subpath"),
        *_driver(text),
    )


def _driver(text: str) -> tuple[str, str]:
    """Give device and type of `volume-opt=device=/dev/sdb,volume-opt=type=ext4`."""
    options = dict(re.findall(r"volume-opt=(device|type|o)=([^,\"]*)", text))
    return options.get("device", ""), "bind" if "bind" in options.get("o", "") else options.get("type", "")


_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?$")


def published(text: str, where: Where) -> Published | None:
    """Give the port of -p and compose's short form: [[IP:]HOST:]CONTAINER[/PROTOCOL]. None where it is none."""
    body, _, protocol = text.strip().partition("/")
    front, _, inner = body.rpartition(":")
    inside = _PORT.match(inner)
    if inside is None:
        return None
    first, last = int(inside[1]), int(inside[2] or inside[1])
    host_ip, _, outer = front.rpartition(":")
    if _PORT.match(outer) is None and outer and not host_ip:
        host_ip, outer = outer, ""
    outside = _PORT.match(outer)
    host_port = int(outside[1]) if outside else 0
    count = max(last - first, int(outside[2] or outside[1]) - host_port if outside else 0, 0) + 1
    if last == first and count > 1:  # one port inside, any of a range outside
        return Published(where, first, host_port, host_ip.strip("[]"), protocol or "tcp")
    return Published(where, first, host_port, host_ip.strip("[]"), protocol or "tcp", count)


def exposed(text: str, where: Where) -> Published | None:
    """Give the port of --expose, which isn't published."""
    body, _, protocol = text.strip().partition("/")
    match = _PORT.match(body)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return Published(where, first, None, "", protocol or "tcp", max(last - first, 0) + 1)


def device(text: str, where: Where) -> Passed:
    """Give the device of --device: SOURCE[:DESTINATION][:ACCESS], or a name of CDI."""
    parts = text.strip().removeprefix("-").split(":")
    access = "rwm"
    if len(parts) > 1 and _ACCESS.match(parts[-1]):
        access = parts.pop()
    return Passed(where, parts[0], parts[1] if len(parts) > 1 else "", access)


def is_cdi(source: str) -> bool:
    """Say whether a device is named as by the Container Device Interface: vendor.com/class=name."""
    return "=" in source and not source.startswith("/")


def pairs(items: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Split NAME=VALUE; without "=" the value is None."""
    for item in items:
        name, equals, value = item.partition("=")
        yield name.strip(), value if equals else None
