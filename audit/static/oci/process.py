"""The section `process`: who the program is, what it may, what it is given."""

import re
from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.documents.tree import Map
from stockade.audit.facts import Fact, Gap, Where
from stockade.audit.static import building
from stockade.audit.static.reading import Reader
from stockade.sandbox.linux import capabilities as caps

_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
#: a working directory that is reached through an open descriptor of the runtime (CVE-2024-21626)
DESCRIPTOR = re.compile(r"^/+proc/+(?:self|thread-self|\d+)/+(?:task/+\d+/+)?(?:fd|cwd|root)\b|^/+dev/+fd\b")


def identity(process: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give the ids; without a user they are 0."""
    user = reader.mapping(process, "user")
    if user is None:
        yield from building.identity(process.at("user"), 0, 0)
        return
    uid, gid = reader.number(user, "uid") or 0, reader.number(user, "gid") or 0
    groups: list[str | int] = []
    listed = reader.sequence(user, "additionalGids")
    for index, each in enumerate(listed or ()):
        if isinstance(each, int) and not isinstance(each, bool):
            groups.append(each)
        elif listed is not None:
            reader.refuse(listed.at(index), f"additionalGids[{index}]", "a number", each)
    yield from building.identity(user.at("uid") if "uid" in user else process.at("user"), uid, gid, groups)


def privileges(process: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give the capabilities that the program has once it runs, and no_new_privs."""
    section = reader.mapping(process, "capabilities")
    where = process.at("capabilities")
    masks = {name: _mask(section, name, reader) if section is not None else 0 for name in _SETS}
    yield _after_execve(masks, _uid(process), where if section is None else _place(section, where))
    value = reader.flag(process, "noNewPrivileges")
    yield building.no_new_privs(process.at("noNewPrivileges"), value=value is True)
    if value is None:
        yield building.unset(process.where, "no_new_privs")


def _uid(process: Map) -> int:
    user = process.get("user")
    uid = user.get("uid") if isinstance(user, Map) else 0
    return uid if isinstance(uid, int) else 0


def _place(section: Map, where: Where) -> Where:
    """Give the place of the set that decides: the effective one, or the bounding set, or the section."""
    return next((section.at(name) for name in ("effective", "bounding") if section.get(name)), where)


def _mask(section: Map, name: str, reader: Reader) -> int:
    mask = 0
    for text, where in reader.texts(section, name):
        try:
            mask |= 1 << caps.number(text)
        except ValueError:
            reader.refuse(where, text[:40], "a capability that is known", text)
    return mask


def _after_execve(masks: dict[str, int], uid: int, where: Where) -> Fact:
    """Give the sets after execve(2), capabilities(7): root's become bounding and inheritable, others' ambient.

    So a list of effective capabilities means nothing for another user, and less than all for root.
    """
    bounding, inheritable = masks["bounding"], masks["inheritable"]
    ambient = masks["ambient"] & masks["permitted"] & inheritable
    held = bounding | inheritable if uid == 0 else ambient
    return facts.CapabilitySets(
        where=where, bounding=bounding, effective=held, inheritable=inheritable, permitted=held, ambient=ambient
    )


def surroundings(process: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give environment, working directory, resource limits and how eagerly the kernel kills it."""
    for text, where in reader.texts(process, "env"):
        name, _, value = text.partition("=")
        yield building.variable(where, name, value)
    directory = reader.text(process, "cwd")
    if directory is not None:
        outside = bool(DESCRIPTOR.search(directory))
        yield facts.WorkingDirectory(where=process.at("cwd"), path=directory, outside=outside)
    for entry in reader.mappings(process, "rlimits"):
        name = (reader.text(entry, "type") or "").removeprefix("RLIMIT_").lower()
        soft, hard = [_unlimited(reader.number(entry, key)) for key in ("soft", "hard")]
        yield facts.ResourceLimit(where=entry.at("type"), name=name, soft=soft, hard=hard)
    score = reader.number(process, "oomScoreAdj")
    if score is not None:
        yield facts.OomScoreAdj(where=process.at("oomScoreAdj"), value=score)


def _unlimited(value: int | None) -> int | None:
    return None if value is None or value >= 1 << 63 or value < 0 else value


def labels(process: Map | None, config: Map, reader: Reader) -> Iterator[Fact | Gap]:
    """Give the labels of security modules. Without one it keeps the runtime's."""
    section = process if process is not None else config
    profile = reader.text(section, "apparmorProfile")
    yield building.apparmor(section.at("apparmorProfile"), profile)
    label = reader.text(section, "selinuxLabel")
    if label is not None:
        yield facts.LsmLabel(where=section.at("selinuxLabel"), module="selinux", label=label)
    else:
        yield building.unset(section.at("selinuxLabel"), "selinux")
