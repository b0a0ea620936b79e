"""Reads what `docker inspect` and `podman inspect` print: an array of containers, each as the engine has set it up.

Unlike what people ask an engine for, nothing is left open here: the image's user and environment are merged in, and
paths tell whether the engine maps ids.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from stockade.audit import facts
from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.tree import Map, Seq
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Fact, Gap, Target, Where
from stockade.audit.rules.known import normal, within
from stockade.audit.static import building, inspect_request
from stockade.audit.static.docker import declare
from stockade.audit.static.docker.request import Request
from stockade.audit.static.oci import seccomp
from stockade.audit.static.oci.process import DESCRIPTOR
from stockade.audit.static.reading import Reader
from stockade.sandbox.linux import capabilities as caps

_TOLD = 20
#: of so many containers a file is judged
_MOST = 20_000
_SANDBOXES = (("runsc", "gvisor"), ("gvisor", "gvisor"), ("kata", "kata"), ("firecracker", "kata"))


def targets(source: Source) -> Iterator[Target | Broken]:
    """Give a target for each container; what else is inspected (images, networks) is passed over."""
    taken: dict[str, int] = {}
    containers = [each for each in _items(source) if isinstance(each.get("HostConfig"), Map)]
    if len(containers) > _MOST:
        raise Broken(Where(source.path), f"more than {_MOST} containers")
    for item in containers:
        reader = Reader()
        name = (reader.text(item, "Name") or "").lstrip("/") or (reader.text(item, "Id") or "?")[:12]
        taken[name] = taken.get(name, 0) + 1
        unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
        yield _target(item, f"{source.path}:{unique}", name, reader)
        for wrong in list(dict.fromkeys(reader.wrong))[:_TOLD]:
            yield Broken(wrong.where, f"{name}: {wrong.text}", hint="it counts as absent")


def _items(source: Source) -> Iterator[Map]:
    for document in documents(source.data, source.path):
        if not isinstance(document, Map | Seq):
            raise Broken(Where(source.path, 1, 1), "what inspect prints is an array of containers")
        each = [document] if isinstance(document, Map) else document
        yield from (item for item in each if isinstance(item, Map))


def _target(item: Map, identity: str, name: str, reader: Reader) -> Target:
    podman = any(key in item for key in ("OCIRuntime", "ConmonPidFile", "BoundingCaps", "IsInfra"))
    host = item.map("HostConfig") or Map(item.path, item.place)
    config = reader.mapping(item, "Config") or Map(item.path, item.place)
    request = Request(
        id=identity,
        name=name,
        kind="podman-inspect" if podman else "docker-inspect",
        where=host.where,
        engine="podman" if podman else "docker",
    )
    inspect_request.fill(request, item, host, config, reader)
    found = declare.target(request)
    exact = [*_exact(item, host, config, reader, found)]
    given = tuple([each for each in exact if isinstance(each, Fact)])
    gaps = tuple([each for each in exact if isinstance(each, Gap)])
    replaced = {type(each) for each in given} | {each.kind for each in gaps}
    kept = [each for each in found.facts if type(each) not in replaced or isinstance(each, facts.LsmLabel)]
    if any(isinstance(each, facts.LsmLabel) for each in given):
        set_ = {each.module for each in given if isinstance(each, facts.LsmLabel)}
        kept = [each for each in kept if not (isinstance(each, facts.Unset) and each.subject in set_)]
    return replace(found, facts=(*kept, *given), gaps=(*found.gaps, *gaps))


def _exact(item: Map, host: Map, config: Map, reader: Reader, found: Target) -> Iterator[Fact | Gap]:
    """Give what the engine tells more exactly than a request for a container can."""
    privileged = any(each.value for each in found.all(facts.Privileged))
    if not privileged:
        yield from _masks(host, reader)
        yield from _profile(host, reader, found)
    yield from _capabilities(item, config, reader)
    yield from _labels(item, reader, found)
    runtime = (reader.text(host, "Runtime") or reader.text(item, "OCIRuntime") or "").lower()
    runtime = (reader.text(item, "OCIRuntime") or runtime).lower()
    sandbox = next((kind for word, kind in _SANDBOXES if word in runtime), None)
    engine = "podman" if found.kind == "podman-inspect" else "docker"
    yield facts.Runtime(where=host.at("Runtime"), engine=engine, sandbox=sandbox)
    directory = reader.text(config, "WorkingDir")
    if directory is not None:
        outside = bool(DESCRIPTOR.search(directory))
        yield facts.WorkingDirectory(where=config.at("WorkingDir"), path=directory, outside=outside)


def _masks(host: Map, reader: Reader) -> Iterator[Fact]:
    """Give the masks where Docker lists them; Podman and Docker before 18.09 don't."""
    lists = {key: reader.sequence(host, key) for key in ("MaskedPaths", "ReadonlyPaths")}
    if all(each is None for each in lists.values()):
        return
    for key, paths, state in (
        ("MaskedPaths", building.MASKED, "masked"),
        ("ReadonlyPaths", building.READ_ONLY, "read-only"),
    ):
        listed = [normal(path) for path, _ in reader.texts(host, key)]
        for path in dict.fromkeys((*paths, *listed)):
            shown = state if any(within(path, each) for each in listed) else "open"
            yield facts.Mask(where=host.at(key), path=path, state=shown, declared=shown)  # type: ignore[arg-type] # a Literal


def _profile(host: Map, reader: Reader, found: Target) -> Iterator[Fact | Gap]:
    """Judge a seccomp profile, which Docker's command line puts into the request as a whole."""
    for text, where in reader.texts(host, "SecurityOpt"):
        _, begins, content = text.partition("seccomp=")
        if not begins or not content.lstrip().startswith("{"):
            continue
        yield facts.SeccompState(where=where, mode="filter", filters=1, profile="a profile of its own")
        try:
            (profile,) = documents(content.encode(), "profile.json")
        except (Broken, ValueError):
            profile = None
        sets = found.one(facts.CapabilitySets)
        judged = seccomp.profile(profile, where, sets.bounding if sets else 0) if isinstance(profile, Map) else None
        yield judged or Gap(facts.SeccompFilter, "its seccomp profile can't be read", where)


def _capabilities(item: Map, config: Map, reader: Reader) -> Iterator[Fact]:
    """Give the sets where Podman tells them; those of a container that never ran are what it will have."""
    if not isinstance(item.get("BoundingCaps"), Seq):
        return
    bounding, effective = [_mask(reader, item, key) for key in ("BoundingCaps", "EffectiveCaps")]
    user = (reader.text(config, "User") or "0").partition(":")[0]
    held = bounding if user in {"0", "root"} else effective
    yield facts.CapabilitySets(
        where=item.at("BoundingCaps"), bounding=bounding, effective=held, inheritable=0, permitted=held, ambient=0
    )


def _mask(reader: Reader, item: Map, key: str) -> int:
    mask = 0
    for name, _ in reader.texts(item, key):
        try:
            mask |= 1 << caps.number(name)
        except ValueError:
            continue  # a newer kernel's
    return mask


_PARTS = re.compile(r"[\w.-]+:[\w.-]+:[\w.-]+:\S+$")


def _labels(item: Map, reader: Reader, found: Target) -> Iterator[Fact]:
    """Give the labels that the container has; a request says only what it should not have."""
    known = {each.module for each in found.all(facts.LsmLabel)}
    profile = reader.text(item, "AppArmorProfile")
    if profile and "apparmor" not in known:
        yield building.apparmor(item.at("AppArmorProfile"), profile)
    label = reader.text(item, "ProcessLabel")
    if label and "selinux" not in known and _PARTS.match(label):
        # what the engine chose itself is no choice of a file's: only the type that it is in counts
        yield building.selinux(item.at("ProcessLabel"), type_=label.split(":")[2])
