"""Targets that are no containers: roles and their bindings, namespaces, persistent volumes."""

from collections.abc import Iterable, Iterator

from stockade.audit import facts
from stockade.audit.facts import Fact, Gap, Target
from stockade.audit.static import building
from stockade.audit.static.kubernetes import rbac
from stockade.audit.static.kubernetes.index import host_volume
from stockade.audit.static.kubernetes.objects import Object


def target(item: Object, identity: str) -> Target | None:
    """Give the target that an object is, or None for objects of which nothing is judged."""
    if item.kind in rbac.ROLES:
        found = _role(item)
    elif item.kind in rbac.BINDINGS:
        found = _binding(item)
    elif item.kind == "Namespace" and item.api == "v1":
        found = _namespace(item)
    elif item.kind == "PersistentVolume":
        found = _volume(item)
    else:
        return None
    return _target(item, identity, found)


def _role(item: Object) -> Iterator[Fact | Gap]:
    cluster = item.kind == "ClusterRole"
    for rule in rbac.granted(item):
        yield facts.RoleRule(
            where=rule.where,
            verbs=rule.verbs,
            resources=rule.resources + rule.urls,
            groups=rule.groups,
            names=rule.names,
            cluster=cluster,
        )
    elsewhere = rbac.aggregated(item)
    if elsewhere is not None:
        yield Gap(facts.RoleRule, "a controller fills it with the rules of other roles", elsewhere)


def _binding(item: Object) -> Iterator[Fact | Gap]:
    for each in rbac.bound(item):
        yield facts.RoleGrant(where=each.where, role=each.role, subject=each.subject, cluster=each.cluster)


def _namespace(item: Object) -> Iterator[Fact | Gap]:
    enforced = {mode: (level, where) for mode, level, where in rbac.levels(item)}.get("enforce")
    metadata = item.node.map("metadata")
    where = (metadata or item.node).at("labels") if enforced is None else enforced[1]
    yield facts.PodSecurity(where=where, enforce=enforced[0] if enforced else None)


def _volume(item: Object) -> Iterator[Fact | Gap]:
    """Give what of the node a persistent volume hands to whoever claims it, as if it were mounted under its name."""
    found = host_volume(item)
    if found is not None and not found.block:
        destination = f"/(persistent volume {item.name})"
        yield from building.bind(found.where, destination=destination, host_path=found.path, writable=True)


def _target(item: Object, identity: str, found: Iterable[Fact | Gap]) -> Target | None:
    everything = tuple(found)
    known = tuple([each for each in everything if isinstance(each, Fact)])
    gaps = tuple([each for each in everything if isinstance(each, Gap)])
    if not everything:
        return None
    kinds = {type(each) for each in known} | {gap.kind for gap in gaps}
    reason = f"a {item.kind} is no container"
    others = tuple([Gap(kind, reason, applicable=False) for kind in facts.KINDS if kind not in kinds])
    complete = frozenset(kind for kind in kinds if kind not in {gap.kind for gap in gaps})
    return Target(
        id=identity,
        name=f"{item.kind} {item.name}",
        kind="kubernetes",
        facts=known,
        gaps=(*gaps, *others),
        complete=complete,
    )
