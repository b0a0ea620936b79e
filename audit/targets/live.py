"""From the arguments of `stockade audit` to targets."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from stockade.audit import facts
from stockade.audit.facts import Target
from stockade.audit.probe import Prober
from stockade.audit.targets import host as hosts
from stockade.audit.targets import own, snapshot
from stockade.audit.targets.discovery import Finder, Group, own_pid
from stockade.audit.targets.process import Collector
from stockade.audit.targets.shared import Cache, Options
from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux import cgroups, idmap

Progress = Callable[[int, int], None]
T = TypeVar("T")
#: probes that run while the facts of the targets before are collected
_AHEAD = 3
# first and last host id of an extent, the owner of its namespace, the target, the extent, where it was read
_Row = tuple[int, int, int, str, idmap.Mapping, facts.Where]


@dataclass(frozen=True, slots=True)
class Collected:
    """The targets, and what the reader has to be told of those that are not among them, a line each."""

    targets: tuple[Target, ...]
    notes: tuple[str, ...]


def audit_targets(
    arguments: Sequence[str], options: Options | None = None, progress: Progress | None = None
) -> Collected:
    """Collect "pid:N", "container:NAME", "self", "host" and "all", by default all. The host comes last.

    `progress` is called with how many of how many are done. Raises UsageError for an argument that is none of these,
    StockadeError for a process or container that doesn't exist.
    """
    host = hosts.probe()
    finder = Finder(host, snapshot.take(), own.states(host.remote))
    notes = [host.outside_reason] if host.outside_reason else []
    groups: dict[str, Group] = {}
    for argument in [each for each in arguments if each != "host"] if arguments else ["all"]:
        for group in _groups(argument, finder, notes):
            groups.setdefault(group.id, group)
    targets = list(related(collect(tuple(groups.values()), finder, options, notes, progress)))
    if "host" in arguments:
        from stockade.audit.targets import host_target

        targets.append(host_target.collect(host, finder.snapshot))
    return Collected(tuple(targets), tuple(notes))


def collect(
    groups: Sequence[Group], finder: Finder, options: Options | None, notes: list[str], progress: Progress | None = None
) -> list[Target]:
    """Collect the facts of groups; of each that ended meanwhile a line goes to `notes`."""
    host = finder.host
    cache = Cache(host_cgroups=_host_cgroups(finder))
    targets: list[Target] = []
    with Prober(host.sysctls) as prober:
        collectors = [Collector(group, host, cache, options or Options(), prober) for group in groups]
        for number, (collector, target) in enumerate(_collected(collectors)):
            if progress:
                progress(number, len(groups))
            if target is None:
                notes.append(f"{collector.group.name} ended while it was looked at")
            else:
                targets.append(target)
    return targets


def _collected(collectors: Iterable[Collector]) -> Iterator[tuple[Collector, Target | None]]:
    """Collect one after the other, with the probes of the next ones already running on the other processors."""
    begun: deque[tuple[Collector, bool]] = deque()
    try:
        for collector in collectors:
            begun.append((collector, _step(collector, collector.begin) is not None))
            if len(begun) > _AHEAD:
                yield _finished(*begun.popleft())
        while begun:
            yield _finished(*begun.popleft())
    finally:
        for collector, _ in begun:
            collector.close()


def _finished(collector: Collector, begun: bool) -> tuple[Collector, Target | None]:  # noqa: FBT001 - from the queue
    try:
        return collector, _step(collector, collector.finish) if begun else None
    finally:
        collector.close()


def _step(collector: Collector, step: Callable[[], T]) -> T | None:
    """Do a step; None when the process ended meanwhile."""
    try:
        return step()
    except (ProcessLookupError, FileNotFoundError):
        if collector.lives():
            raise
        return None


def _groups(argument: str, finder: Finder, notes: list[str]) -> Iterable[Group]:
    kind, colon, name = argument.partition(":")
    if argument == "all":
        if not finder.host.trusted:
            raise StockadeError(finder.host.outside_reason, hint="run it on the host, or name a process: pid:N")
        closed = len(finder.snapshot.closed)
        if closed:
            why = "the kernel refuses it" if os.geteuid() == 0 else "run the audit as root for all of them"
            notes.append(f"{closed} process{'' if closed == 1 else 'es'} could not be looked at: {why}")
        return finder.containers()
    if argument == "self":
        return (finder.process(own_pid()),)
    if kind == "pid" and name.isascii() and name.isdigit() and int(name) > 0:
        return (finder.process(int(name)),)
    if kind == "container" and colon and name:
        return (finder.container(name),)
    raise UsageError(f"{argument!r} is no target", hint="a target is pid:N, container:NAME, self, host or all")


def _host_cgroups(finder: Finder) -> frozenset[tuple[str, str]]:
    """Give controller and path of every cgroup in which a process of the host lives, the auditor's own apart."""
    inside = {entry.pid for group in finder.containers() for entry in group.entries}
    texts = {entry.cgroup for entry in finder.snapshot.entries.values() if entry.pid not in inside}
    return frozenset(item for text in texts for item in cgroups.parse_membership(text).items())


def related(targets: Sequence[Target]) -> Iterable[Target]:
    """Add what only shows when targets are compared: shared namespaces, host ids that two owners' maps share."""
    users: dict[tuple[str, int], list[str]] = {}
    for target in targets:
        for space in target.all(facts.Namespace):
            if space.inode is not None and not space.host:
                users.setdefault((space.kind, space.inode), []).append(target.id)
    overlaps = _overlaps(targets)
    for target in targets:
        spaces = target.all(facts.Namespace)
        changed = {space: _shared(space, users, target.id) for space in spaces}
        known = target.facts
        if any(after is not before for before, after in changed.items()):
            known = tuple([changed[fact] if isinstance(fact, facts.Namespace) else fact for fact in known])
        complete = target.complete | {facts.SharedIds} if len(targets) > 1 else target.complete
        yield replace(target, facts=(*known, *overlaps.get(target.id, ())), complete=complete)


def _shared(fact: facts.Namespace, users: dict[tuple[str, int], list[str]], identity: str) -> facts.Namespace:
    sharing = users.get((fact.kind, fact.inode)) if fact.inode is not None else None
    others = tuple([other for other in sharing or () if other != identity])
    return replace(fact, shared_with=others) if others else fact


def _overlaps(targets: Sequence[Target]) -> dict[str, list[facts.SharedIds]]:
    """Sweep over all maps in the order of their host ids; only neighbours that touch are compared."""
    rows: list[_Row] = []
    for target in targets:
        space = target.one(facts.UserNamespace)
        if space and not space.initial and space.owner_uid is not None:
            rows += [(m.host, m.host + m.size, space.owner_uid, target.id, m, space.where) for m in space.uid_map or ()]
    rows.sort(key=lambda row: row[:4])
    found: dict[str, dict[str, facts.SharedIds]] = {}
    open_: list[_Row] = []
    for row in rows:
        open_ = [each for each in open_ if each[1] > row[0]]
        for other in open_:
            if other[2] != row[2]:
                for mine, its in ((row, other), (other, row)):
                    shared = facts.SharedIds(where=mine[5], other=its[3], ids=mine[4])
                    found.setdefault(mine[3], {}).setdefault(its[3], shared)
        open_.append(row)
    return {identity: list(shared.values()) for identity, shared in found.items()}


def stamp() -> str:
    """Give the present time as RFC 3339 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
