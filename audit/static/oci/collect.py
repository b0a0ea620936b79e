"""From a config.json to its one target. What the file leaves out is what the specification says of it, mostly nothing.

Unlike the files that people write, config.json has no defaults of an engine: an absent namespace is the runtime's own,
absent capabilities are none, and without a seccomp section there is no filter.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from stockade.audit import facts
from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.tree import Map
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Fact, Gap, Target, Where
from stockade.audit.static.oci import files, process, resources, seccomp, spaces
from stockade.audit.static.reading import Reader

#: kinds of many facts that a config.json tells all of
_COMPLETE = frozenset(
    {
        facts.Namespace, facts.Mount, facts.EngineSocket, facts.Mask, facts.Variable, facts.SysctlSetting, facts.Unset,
        facts.DeviceNode, facts.CgroupLimit, facts.ResourceLimit, facts.LsmLabel,
    }
)  # fmt: skip
#: annotations that give the container's name, the best first
_NAMES = (
    "io.podman.annotations.name", "org.stockade.name", "io.kubernetes.cri.container-name",
    "io.kubernetes.container.name", "io.kubernetes.cri-o.ContainerName", "nerdctl/name",
)  # fmt: skip
#: beginnings of annotations by which an engine is known
_ENGINES = (
    ("io.podman.", "podman"), ("io.container.manager", "podman"), ("org.stockade.", "stockade"),
    ("io.kubernetes.cri-o.", "cri-o"), ("io.kubernetes.cri.", "containerd"), ("nerdctl/", "containerd"),
)  # fmt: skip
_TOLD = 20
#: sections of other systems, of which nothing here has a meaning
_OTHERS = ("windows", "solaris", "vm", "zos", "freebsd")


def targets(source: Source) -> Iterator[Target | Broken]:
    """Give the target of a config.json, then what is wrong in it. Raises Broken where it can't be read."""
    found = documents(source.data, source.path)
    if len(found) != 1 or not isinstance(found[0], Map):
        raise Broken(Where(source.path, 1, 1), "a config.json is one object")
    config = found[0]
    reader = Reader()
    yield _target(config, source.path, reader)
    for wrong in reader.wrong[:_TOLD]:
        yield Broken(wrong.where, wrong.text, hint="it counts as absent; a runtime refuses it")
    if len(reader.wrong) > _TOLD:
        yield Broken(config.where, f"and {len(reader.wrong) - _TOLD} more parts of wrong types")


def _target(config: Map, path: str, reader: Reader) -> Target:
    annotations = reader.mapping(config, "annotations") or Map(path, config.place)
    linux = reader.mapping(config, "linux")
    other = next((key for key in _OTHERS if isinstance(config.get(key), Map)), None)
    found: list[Fact | Gap] = [_runtime(config, annotations)]
    if linux is None and other is not None:
        reason = f"it is a container of {other}"
        found += [Gap(kind, reason, config.at(other), applicable=False) for kind in facts.KINDS]
    else:
        found += _facts(config, linux if linux is not None else Map(path, config.place), path, reader)
    gaps = tuple([each for each in found if isinstance(each, Gap)])
    partial = {gap.kind for gap in gaps if gap.applicable}
    section = config.get("process")
    return Target(
        id=path,
        name=_name(config, annotations, path),
        kind="oci",
        facts=tuple([each for each in found if isinstance(each, Fact)]),
        gaps=gaps,
        complete=_COMPLETE - partial,
        command=_command(section) if isinstance(section, Map) else "",
        mode=_text(annotations.get("org.stockade.mode")),
    )


def _facts(config: Map, linux: Map, path: str, reader: Reader) -> Iterator[Fact | Gap]:
    users = spaces.users(config, linux, path, reader)
    yield from spaces.namespaces(linux, users, reader)
    yield from users.facts
    section = reader.mapping(config, "process")
    if section is None:
        yield Gap(facts.Identity, "it has no process, and something else is run in it", config.where)
    else:
        yield from process.identity(section, reader)
        yield from process.privileges(section, reader)
        yield from process.surroundings(section, reader)
    yield from process.labels(section, config, reader)
    yield from seccomp.state(linux, reader)
    yield from files.root(config, linux, path, reader)
    yield from files.mounts(config, path, reader)
    yield from files.masks(config, linux, reader)
    yield from resources.devices(linux, reader)
    yield from resources.limits(linux, section, reader)
    yield from resources.settings(linux, reader)


def _runtime(config: Map, annotations: Mapping[str, Any]) -> Fact:
    engine = next((name for start, name in _ENGINES if any(key.startswith(start) for key in annotations)), None)
    if engine is None:
        root = config.get("root")
        path = _text(root.get("path")) if isinstance(root, Map) else ""
        engine = "docker" if "/docker/" in path else "containerd" if "/containerd/" in path else None
    return facts.Runtime(where=config.at("annotations"), engine=engine)


def _name(config: Map, annotations: Mapping[str, Any], path: str) -> str:
    for key in _NAMES:
        name = _text(annotations.get(key))
        if name and len(name) <= 128 and name.isprintable():
            return name
    bundle = os.path.basename(os.path.dirname(os.path.abspath(path)))
    name = _text(config.get("hostname"))
    return bundle if os.path.basename(path) == "config.json" and bundle else name or os.path.basename(path)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _command(section: Map) -> str:
    arguments = section.get("args")
    if not isinstance(arguments, list):
        return ""
    return " ".join([each for each in arguments if isinstance(each, str)])
