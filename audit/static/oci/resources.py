"""Devices, limits of the cgroup, kernel settings."""

from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap
from stockade.audit.static import building
from stockade.audit.static.reading import Reader

_KINDS = {"b": "block", "c": "char", "u": "char"}
#: what runtimes allow of their own accord; runc libcontainer/specconv/spec_linux.go, AllowedDevices
_USUAL: tuple[str, ...] = (
    "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm",
    "c 136:* rwm",
)  # fmt: skip
_PERIOD = 100_000
#: the same limits among cgroup v2's files, which `unified` names
_FILES = {"memory": "memory.max", "pids": "pids.max"}


def devices(linux: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give the nodes that are made, and what the device cgroup allows."""
    for entry in reader.mappings(linux, "devices"):
        path, kind = reader.text(entry, "path"), _KINDS.get(reader.text(entry, "type") or "")
        if path is None or kind is None:
            continue  # "p" is a FIFO
        yield facts.DeviceNode(
            where=entry.at("path"),
            path=path,
            kind=kind,  # type: ignore[arg-type] # a word of its Literal
            major=_number(entry, "major", reader),
            minor=_number(entry, "minor", reader),
            usable=True,
        )
    yield _policy(linux, reader)


def _number(entry: Map, key: str, reader: Reader) -> int:
    number = reader.number(entry, key)
    return -1 if number is None else number


def _policy(linux: Map, reader: Reader) -> Fact | Gap:
    resources = reader.mapping(linux, "resources")
    listed = reader.sequence(resources, "devices") if resources is not None else None
    if resources is None or not listed:
        where = resources.at("devices") if resources is not None else linux.at("resources")
        return Gap(facts.DevicePolicy, "no device rules are given, so it is the runtime's choice", where)
    default, rules = "deny", dict.fromkeys(_USUAL)
    where = resources.at("devices")
    for entry in reader.mappings(resources, "devices"):
        allow, rule, everything = _rule(entry, reader)
        if everything:
            default = "allow" if allow else "deny"
            rules = dict.fromkeys(_USUAL) if not allow else {}
            where = entry.where if allow else resources.at("devices")
        elif allow:
            rules[rule] = None
        else:
            rules.pop(rule, None)
    return facts.DevicePolicy(where=where, default=default, rules=tuple(rules))  # type: ignore[arg-type] # a Literal


def _rule(entry: Map, reader: Reader) -> tuple[bool, str, bool]:
    """Give whether a rule allows, the rule as cgroup v1 spells it, and whether it is about every device."""
    kind = reader.text(entry, "type") or "a"
    numbers = []
    for key in ("major", "minor"):
        number = reader.number(entry, key)
        numbers.append("*" if number is None or number < 0 else str(number))
    access = reader.text(entry, "access") or "rwm"
    everything = kind == "a" and numbers == ["*", "*"] and set(access) >= {"r", "w"}
    return reader.flag(entry, "allow") is True, f"{kind} {':'.join(numbers)} {access}", everything


def limits(linux: Map, process: Map | None, reader: Reader) -> Iterator[Fact | Gap]:
    """Give what the container's cgroup limits; absent and negative numbers are none."""
    resources = reader.mapping(linux, "resources") or Map(linux.path, linux.place)
    unified = reader.mapping(resources, "unified") or Map(linux.path, linux.place)
    memory = reader.mapping(resources, "memory")
    pids = reader.mapping(resources, "pids")
    for name, section, key in (("memory", memory, "limit"), ("swap", memory, "swap"), ("pids", pids, "limit")):
        value = reader.number(section, key) if section is not None else None
        where = section.at(key) if section is not None else resources.at("pids" if name == "pids" else "memory")
        if value is None and _FILES.get(name, "") in unified:
            value, where = _count(unified.text(_FILES[name])), unified.at(_FILES[name])
        value = None if value is None or value <= 0 or value >= 1 << 62 else value
        yield building.limit(where, name, value)  # type: ignore[arg-type] # a word of its Literal
        if value is None and name != "swap":
            yield building.unset(where, name)
    yield from _cpu(resources, unified, reader)
    scored = process is not None and process.get("oomScoreAdj") is not None
    if memory is not None and reader.flag(memory, "disableOOMKiller") is True and not scored:
        # the switch of cgroup v1: as good as a score of which the kernel says "never"
        yield facts.OomScoreAdj(where=memory.at("disableOOMKiller"), value=-1000)


def _count(text: str | None) -> int | None:
    """Take a number of cgroup v2's files; "max" is none."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


def _cpu(resources: Map, unified: Map, reader: Reader) -> Iterator[Fact]:
    section = reader.mapping(resources, "cpu")
    quota = reader.number(section, "quota") if section is not None else None
    period = reader.number(section, "period") if section is not None else None
    where = section.at("quota") if section is not None else resources.at("cpu")
    words = (unified.text("cpu.max") or "").split()
    if quota is None and words:
        quota, where = _count(words[0]), unified.at("cpu.max")
        period = _count(words[1]) if words[1:] else None
    value = quota * 1000 // (period or _PERIOD) if quota is not None and quota > 0 else None
    yield building.limit(where, "cpu", value)
    if value is None:
        yield building.unset(where, "cpu")


def settings(linux: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give the kernel settings, and the cgroup that the container is put in where that is not one of its own."""
    sysctls = reader.mapping(linux, "sysctl")
    for name in sysctls or ():
        if sysctls is not None:
            yield building.sysctl(sysctls.at(name), name, reader.text(sysctls, name) or "")
