"""Which processes of the host make up which container, and which target an argument of `stockade audit` means.

Container-like is a process that an engine's cgroup names, or that has its own pid or user namespace, or a mount
namespace with another root. Not container-like are services that systemd or snapd confine on the host's own root
(PrivateTmp, PrivateUsers, ProtectSystem): they are host services, and `pid:N` still audits each. Processes in one
container are those with its cgroup, else in its pid namespace, else in its user or mount namespace; the oldest
stands for it.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stockade.audit.targets import engines, own
from stockade.audit.targets.engines import Engine
from stockade.audit.targets.host import HostView
from stockade.audit.targets.snapshot import Entry, Snapshot, look
from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux import statx

if TYPE_CHECKING:
    from stockade.audit.targets.api import Engines

_SERVICE = re.compile(r"/(?:system|user|init)(?:[^/\n]*)\.(?:slice|scope)(?:/[^\n]*)?\.service(?:/|$)", re.MULTILINE)
_SNAP = re.compile(r"/snap\.[^/\n]+\.(?:scope|service)")

#: the exit code of "nothing to audit"
NOTHING = 3


@dataclass(frozen=True, slots=True)
class Group:
    """A container's processes, oldest first, or a single process. `state` is the record on disk."""

    id: str
    name: str
    kind: str
    entries: tuple[Entry, ...]
    engine: Engine | None = None
    state: own.State | None = None

    @property
    def first(self) -> Entry:
        """The process that stands for it."""
        return self.entries[0]


@dataclass
class Finder:
    """Answers which processes an argument means, from one snapshot."""

    host: HostView
    snapshot: Snapshot
    states: tuple[own.State, ...] = ()
    _roots: dict[int, bool] = field(default_factory=dict)
    _alike: dict[object, list[Entry]] = field(default_factory=dict)
    _engines: "Engines | None" = None

    def containers(self) -> tuple[Group, ...]:
        """Give every container-like group of the host, the oldest first."""
        keyed: dict[tuple[str, object], list[Entry]] = {}
        loose: list[tuple[tuple[str, object], Entry]] = []
        places: dict[tuple[str, object], tuple[str, object]] = {}
        for entry in sorted(self.snapshot.entries.values(), key=lambda each: each.order):
            engine = engines.of_cgroup(entry.cgroup)
            place = self._place(entry)
            if engine and (place or not entry.inodes or self._has_own_namespace(entry)):
                keyed.setdefault(("cgroup", engine), []).append(entry)
                if place:
                    places.setdefault(place, ("cgroup", engine))
            elif place:
                loose.append((place, entry))
        spaces = {entry.inodes["user"] for place, entry in loose if place[0] == "pid"}
        for place, entry in loose:
            # Whoever is in a container's user namespace and the host's pid namespace started it (podman's conmon).
            if place not in places and place[0] == "user" and place[1] in spaces:
                continue
            keyed.setdefault(places.get(place, place), []).append(entry)
        groups = [self._group(entries) for entries in keyed.values()]
        return tuple(sorted(groups, key=lambda group: group.first.order))

    def _has_own_namespace(self, entry: Entry) -> bool:
        # An engine's helper (a shim, a proxy) may sit in the container's cgroup and is the host's.
        return any(self.host.is_host(kind, inode) is False for kind, inode in entry.inodes.items() if kind != "cgroup")

    def _place(self, entry: Entry) -> tuple[str, object] | None:
        """Give what its container would be known by, or None for a process of the host."""
        inodes = entry.inodes
        if not inodes or not self.host.trusted:
            return None
        own_user = self.host.is_host("user", inodes["user"]) is False
        own_pid = self.host.is_host("pid", inodes["pid"]) is False
        own_mount = self.host.is_host("mnt", inodes["mnt"]) is False
        if not (own_user or own_pid or own_mount) or self._is_service(entry, own_mount=own_mount):
            return None
        if own_pid:
            return "pid", inodes["pid"]
        if own_user:
            return "user", inodes["user"]
        return ("mnt", inodes["mnt"]) if self._pivoted(entry) else None

    def _is_service(self, entry: Entry, *, own_mount: bool) -> bool:
        if _SNAP.search(entry.cgroup):
            return True
        return entry.ppid == 1 and bool(_SERVICE.search(entry.cgroup)) and not (own_mount and self._pivoted(entry))

    def _pivoted(self, entry: Entry) -> bool:
        """Say whether its root is another directory than the host's."""
        space = entry.inodes["mnt"]
        if space not in self._roots:
            try:
                mine, its = statx.of("/"), statx.of(f"/proc/{entry.pid}/root")
                self._roots[space] = (mine.dev, mine.inode) != (its.dev, its.inode)
            except OSError:
                return False
        return self._roots[space]

    def _group(self, entries: list[Entry]) -> Group:
        entries.sort(key=lambda each: each.order)
        state = next((state for state in self.states if any(state.pid == each.pid for each in entries)), None)
        if state:
            # The record knows better which process is the container's first.
            entries.sort(key=lambda each: (each.pid != state.pid, each.order))
        engine, name = self._named(entries[0], state)
        if name:
            return Group(f"container:{name}", name, "container", tuple(entries), engine, state)
        first = entries[0].pid
        return Group(f"pid:{first}", f"pid {first}", "container", tuple(entries), engine, state)

    def _named(self, first: Entry, state: own.State | None) -> tuple[Engine | None, str]:
        """Give the engine and the container's name: the engine's cgroup says more than the record of its runtime."""
        engine = engines.of_cgroup(first.cgroup)
        if engine is None and (told := own.started_by(first.ppid)):
            engine = Engine(*told)  # a user's Podman has no cgroups where none are delegated
        if state and (engine is None or state.engine == "stockade"):
            return Engine(state.engine, state.id), state.name
        if engine is None:
            return None, ""
        return engine, own.name_of(engine.name, engine.id, first.ppid) or self._told(engine) or engine.id[:12]

    def _told(self, engine: Engine) -> str | None:
        """Ask the engine itself, which is slow and needed only where it keeps its files elsewhere."""
        if engine.name not in {"docker", "podman"} or os.geteuid() != 0 or not self.host.trusted:
            return None
        if self._engines is None:
            from stockade.audit.targets import api

            self._engines = api.Engines()
        name = self._engines.name(engine.name, engine.id)
        return name if name and own.NAME.fullmatch(name) else None

    def process(self, pid: int) -> Group:
        """Give a process with the others of its container. Raises StockadeError when there is none."""
        entry = self.snapshot.entries.get(pid)
        if entry is None:
            entry = _looked_at(pid)
        place, engine = self._place(entry), engines.of_cgroup(entry.cgroup)
        others: Iterable[Entry] = ()
        if place or (engine and self._has_own_namespace(entry)):
            others = [each for each in self._like(place, engine) if each.pid != entry.pid]
        kind = "container" if place or engine else "process"
        state = next((state for state in self.states if state.pid == pid), None)
        engine, _ = self._named(entry, state)
        ordered = sorted(others, key=lambda each: each.order)
        return Group(f"pid:{pid}", f"pid {pid}", kind, (entry, *ordered), engine, state)

    def _like(self, place: tuple[str, object] | None, engine: Engine | None) -> Iterable[Entry]:
        if not self._alike:
            for each in self.snapshot.entries.values():
                its = engines.of_cgroup(each.cgroup)
                keys: list[object] = list(each.inodes.items())
                if its and self._has_own_namespace(each):
                    keys.append(its)
                for key in keys:
                    self._alike.setdefault(key, []).append(each)
        found = [*self._alike.get(place, ()), *self._alike.get(engine, ())]
        return {each.pid: each for each in found}.values()

    def container(self, name: str) -> Group:
        """Give the container of this name or with an id that begins so. Raises StockadeError for none or several."""
        for state in self.states:
            if name in (state.name, state.id):
                return self._of_state(state)
        prefix = len(name) >= 3
        found = [group for group in self.containers() if group.engine and _matches(group, name, prefix=prefix)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"container:{name} means {len(found)} containers: {', '.join(group.name for group in found)}"
            )
        raise StockadeError(
            f"no running container is named {name} and none has an id that begins so",
            hint="stockade audit all lists every container of this host; pid:N names any process",
            exit_code=NOTHING,
        )

    def _of_state(self, state: own.State) -> Group:
        for group in self.containers():
            if group.state == state:
                return group
        if state.pid in self.snapshot.entries:
            entries = self.process(state.pid).entries
            engine = Engine(state.engine, state.id)
            return Group(f"container:{state.name}", state.name, "container", entries, engine, state)
        raise StockadeError(
            f"container {state.name} does not run", hint="only running ones can be audited", exit_code=NOTHING
        )


def _matches(group: Group, name: str, *, prefix: bool) -> bool:
    identity = group.engine.id if group.engine else ""
    return name in {group.name, identity} or (prefix and identity.startswith(name))


def _looked_at(pid: int) -> Entry:
    try:
        entry = look(pid)
    except (ProcessLookupError, FileNotFoundError):
        raise StockadeError(f"there is no process {pid}", exit_code=NOTHING) from None
    if entry is None:
        raise StockadeError(f"process {pid} is a kernel thread or has ended", exit_code=NOTHING)
    return entry


def own_pid() -> int:
    """Give the process that `self` means: whoever started the audit, and not the auditor."""
    return os.getppid()
