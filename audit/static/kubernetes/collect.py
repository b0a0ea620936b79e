"""From a file to its targets: one for each container, and one for each object that grants rights or host files."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from stockade.audit import facts
from stockade.audit.documents.kinds import NotOne
from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Fact, Gap, Target, Where
from stockade.audit.static.kubernetes import container_facts, others, pod_facts, volumes
from stockade.audit.static.kubernetes.contexts import LISTS, Container, Role, containers
from stockade.audit.static.kubernetes.index import Index, build
from stockade.audit.static.kubernetes.objects import Object, Pod, objects, pods
from stockade.audit.static.kubernetes.volumes import Volume

_TEMPLATE = re.compile(rb"\{\{-?\s*(?:[.$(]|if|range|with|include|template|define|end|else|toYaml|/\*)")
#: kinds of many facts that a container's spec tells all of
_COMPLETE = frozenset(
    {
        facts.Namespace, facts.Mount, facts.EngineSocket, facts.Mask, facts.Variable, facts.Port, facts.SysctlSetting,
        facts.VolumeType, facts.Probe, facts.Unset, facts.DeviceNode,
    }
)  # fmt: skip
#: what a Windows container has not
_LINUX = (
    facts.Namespace, facts.UserNamespace, facts.Identity, facts.RunAsNonRoot, facts.Privileged, facts.CapabilitySets,
    facts.CapabilityChange, facts.NoNewPrivs, facts.SeccompState, facts.LsmLabel, facts.Mask, facts.DevicePolicy,
    facts.ReadOnlyRoot,
)  # fmt: skip
#: what is wrong in one file and is told each for itself
_TOLD = 20
#: facts that a container has at least, and all those of one pod together: its settings count for each container
_FACTS, _MOST = 50, 500_000
#: of the containers that share a pod's processes so many are named
_PEERS = 16


def targets(source: Source) -> Iterator[Target | Broken]:
    """Give the targets of a file, then what is wrong with its objects. Raises Broken where the file can't be read."""
    try:
        found = tuple(objects(documents(source.data, source.path)))
    except Broken:
        template = _TEMPLATE.search(source.data)
        if template is None:
            raise
        line = source.data.count(b"\n", 0, template.start()) + 1
        hint = "audit what `helm template` (or the tool that fills it in) makes of it"
        told = Broken(Where(source.path, line), "a template, which isn't YAML before it is filled in", hint=hint)
        if _of_a_chart(source.path):
            raise NotOne(told) from None  # the chart is audited as a whole
        raise told from None
    index = build(found, source.path)
    taken: dict[str, int] = {}
    for item in found:
        yield from _of_object(item, source.path, index, taken)
    yield from _wrong(found)


def _of_a_chart(path: str) -> bool:
    """Say whether a file lies among the templates of a Helm chart."""
    before, found, _ = os.path.abspath(path).rpartition("/templates/")
    return bool(found) and os.path.exists(os.path.join(before, "Chart.yaml"))


def _of_object(item: Object, path: str, index: Index, taken: dict[str, int]) -> Iterator[Target | Broken]:
    prefix = _unique(f"{path}:{item.id}", taken)
    for pod in pods(item):
        yield from _of_pod(pod, f"{prefix}:{pod.path}" if pod.path else prefix, index)
    other = others.target(item, prefix)
    if other is not None:
        yield other


def _unique(name: str, taken: dict[str, int]) -> str:
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}#{taken[name]}"


def _of_pod(pod: Pod, prefix: str, index: Index) -> Iterator[Target | Broken]:
    known = volumes.of_pod(pod, index)
    every = tuple(containers(pod))
    taken: dict[str, int] = {}
    ids = [_unique(f"{prefix}:{container.name}", taken) for container in every]
    shared = tuple(pod_facts.kernel_settings(pod))
    if len(every) * (len(shared) + _FACTS) > _MOST:
        yield Broken(pod.spec.where, f"{pod.object.kind} {pod.object.name}: {len(every)} containers are too many")
        return
    for identity, container in zip(ids, every, strict=True):
        peers = [other for other in ids[: _PEERS + 1] if other != identity]
        found = (
            _workload(pod, container.node.at("name"), container.role),
            *(_on_windows(container) if pod.windows else _on_linux(container, peers)),
            *shared,
            *pod_facts.token(container, index, known),
            *container_facts.files(container, known),
            *container_facts.resources(container),
            *container_facts.offered(container, index),
        )
        yield _target(container, identity, found)
    spare = volumes.unmounted(every, known)
    if spare or not every:
        yield _of_the_pod_itself(pod, prefix, spare)


def _on_linux(container: Container, peers: Sequence[str]) -> Iterator[Fact | Gap]:
    yield from pod_facts.namespaces(container.pod, peers)
    yield from container_facts.identity(container)
    yield from container_facts.privileges(container)
    yield from container_facts.switches(container)
    yield container_facts.host_process(container)


def _on_windows(container: Container) -> Iterator[Fact | Gap]:
    """Give what counts on Windows, where the API server refuses the other fields of a security context."""
    yield container_facts.host_process(container)
    where = container.pod.spec.at("os")
    yield from (Gap(kind, "it is a Windows container", where, applicable=False) for kind in _LINUX)


def _of_the_pod_itself(pod: Pod, prefix: str, spare: Sequence[Volume]) -> Target:
    """Give what a pod decides that no container of the file has.

    That is everything where the containers stand elsewhere, as with a patch of Kustomize's, and else the volumes that
    no container mounts yet: one that `kubectl debug` adds can.
    """
    found: list[Fact] = [*volumes.without_mount(spare)]
    if not any(pod.spec.get(key) for key in LISTS):
        found += (*pod_facts.namespaces(pod, ()), *pod_facts.kernel_settings(pod))
    kinds = {type(fact) for fact in found}
    reason = "it is told of each container"
    return Target(
        id=prefix,
        name=f"{pod.object.kind} {pod.object.name}",
        kind="kubernetes",
        facts=tuple(found),
        gaps=tuple([Gap(kind, reason, pod.spec.where, applicable=False) for kind in facts.KINDS if kind not in kinds]),
        complete=_COMPLETE & kinds,
    )


def _workload(pod: Pod, where: Where, role: Role) -> Fact:
    item = pod.object
    return facts.Workload(
        where=where,
        kind=item.kind,
        name=item.name,
        namespace=item.namespace,
        role=role,
        os=pod.os,
    )


def _target(container: Container, identity: str, found: Iterable[Fact | Gap]) -> Target:
    everything = tuple(found)
    item = container.pod.object
    command = [text for key in ("command", "args") for text, _ in container.reader.texts(container.node, key)]
    return Target(
        id=identity,
        name=f"{item.kind} {item.name}: {container.name}",
        kind="kubernetes",
        facts=tuple([each for each in everything if isinstance(each, Fact)]),
        gaps=tuple([each for each in everything if isinstance(each, Gap)]),
        complete=_COMPLETE - set(_LINUX) if container.pod.windows else _COMPLETE,
        command=" ".join(command),
    )


def _wrong(items: Sequence[Object]) -> Iterator[Broken]:
    """Tell what is wrong, each place once."""
    told: dict[tuple[Where, str], Object] = {}
    for item in items:
        for each in item.reader.wrong:
            told.setdefault((each.where, each.text), item)
    for (where, text), item in list(told.items())[:_TOLD]:
        yield Broken(where, f"{item.kind} {item.name}: {text}", hint="it counts as absent; the API server refuses it")
    if len(told) > _TOLD:
        yield Broken(items[0].node.where, f"and {len(told) - _TOLD} more parts of wrong types")
