"""The table of targets side by side in the HTML report: what each may do, what is risky of it, where they differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from stockade.audit.report import Severity
from stockade.sandbox.linux import capabilities as caps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stockade.audit.report import TargetSummary

#: "risk" counts against the host, "weak" is less than usual confinement, "tight" is confined, "unknown" wasn't read
Tone = Literal["risk", "weak", "tight", "plain", "unknown"]
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
#: so many targets stand beside each other; of more, the worst do, and a list names all
BESIDE = 6
#: of a longer list this many are shown, the others open on a click
_SHOWN = 12
#: and at most this many of the others: a file with two hundred sysctls for each of two hundred targets helps nobody
_MORE = 60
#: a score from which on a way to the host is likely
_HIGH_EXPOSURE = 50
_KINDS = ("pid", "mnt", "net", "ipc", "uts", "cgroup", "time")
_RISING: tuple[Tone, ...] = ("unknown", "weak", "risk")
#: what it means to share a namespace with the host; weak where not named
_HOSTS: dict[str, Tone] = {"pid": "risk", "mnt": "risk", "net": "risk", "ipc": "risk", "time": "plain"}


@dataclass(frozen=True, slots=True)
class Item:
    """One of several things in a cell, such as a capability."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one target has: a few words, a note on them, then a list; `more` opens on a click and `folded` counts it."""

    text: str
    tone: Tone = "plain"
    items: tuple[Item, ...] = ()
    more: tuple[Item, ...] = ()
    folded: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One property of all targets. `note` explains its name."""

    name: str
    cells: tuple[Cell, ...]
    note: str = ""

    @property
    def differs(self) -> bool:
        """Whether the targets differ in it."""
        return len(set(self.cells)) > 1


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one heading."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A capability and the letters of the sets that hold it, target by target: "BEP"."""

    name: str
    dangerous: bool
    sets: tuple[tuple[str, ...], ...]

    @property
    def differs(self) -> bool:
        """Whether the targets differ in it."""
        return len(set(self.sets)) > 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Targets side by side: rows by subject, and capability by capability."""

    targets: tuple[TargetSummary, ...]
    groups: tuple[Group, ...]
    capabilities: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One target in the list of all: its most telling cells, and everything about it."""

    id: str
    target: TargetSummary
    cells: tuple[Cell, ...]
    all: Comparison


@dataclass(frozen=True, slots=True)
class Targets:
    """The whole section. `lines` is empty where all targets stand beside each other."""

    beside: Comparison
    heads: tuple[str, ...]
    lines: tuple[Line, ...]


def build(targets: Sequence[TargetSummary]) -> Targets:
    """Make the section. Of many targets the worst stand beside each other, in the order of their danger."""
    if len(targets) <= BESIDE:
        return Targets(compare(targets), (), ())
    ranked = sorted(targets, key=_danger)
    telling = ("Runs as", "Root is", "User namespace", "Effective", "Seccomp", "no_new_privs", "Control files")
    lines = tuple([_line(number, target, telling) for number, target in enumerate(ranked, 1)])
    return Targets(compare(ranked[:BESIDE]), telling, lines)


def _danger(target: TargetSummary) -> tuple[object, ...]:
    counts = [target.counts.get(severity.label, 0) for severity in reversed(Severity)]
    return (-target.paths, *(-number for number in counts), target.id)


def _line(number: int, target: TargetSummary, telling: tuple[str, ...]) -> Line:
    everything = compare([target])
    cells = {row.name: row.cells[0] for group in everything.groups for row in group.rows}
    return Line(f"target-{number}", target, tuple([cells[name] for name in telling]), everything)


def compare(targets: Sequence[TargetSummary]) -> Comparison:
    """Put targets side by side."""

    def row(name: str, of: Callable[[TargetSummary], Cell], note: str = "") -> Row:
        return Row(name, tuple([of(target) for target in targets]), note)

    limits = list(dict.fromkeys(name for target in targets for name in target.limits))
    groups = (
        Group("Result", tuple([row(name, of, note) for name, of, note in _RESULT])),
        Group(
            "Identity",
            (
                row("Runs as", _user, "user id inside → on the host"),
                row("Root is", _root, "what user id 0 inside is on the host"),
                row("User namespace", lambda target: _userns(target.namespaces.get("user", "unknown"))),
                row("uid map", lambda target: _map(target.uid_map), "container:host:size"),
                row("gid map", lambda target: _map(target.gid_map), "container:host:size"),
            ),
        ),
        Group("Capabilities", tuple([row(kind.capitalize(), _set_of(kind)) for kind in SETS])),
        Group(
            "Kernel",
            (
                row("Other namespaces", _namespaces),
                row("Seccomp", _seccomp),
                row("Dangerous calls", _calls, "system calls that no container needs and its filter lets through"),
                row("no_new_privs", _no_new_privs),
                row("Security module", _lsm),
                row("Control files", _control_files, "of the host's kernel, opened for writing with its credentials"),
            ),
        ),
        Group(
            "Resources",
            (row("Host files", _mounts), *(row(f"Limit of {name}", _limit_of(name)) for name in limits)),
        ),
    )
    return Comparison(tuple(targets), groups, tuple(_capabilities(targets)))


def _list(text: str, tone: Tone, items: Sequence[Item]) -> Cell:
    """Make a cell of many things; of a long list the risky ones and the first are shown."""
    if len(items) <= _SHOWN:
        return Cell(text, tone, tuple(items))
    risky = [item for item in items if item.tone == "risk"]
    shown = risky or items[: _SHOWN // 2]
    more = [item for item in items if item not in shown]
    folded = len(more)
    if folded > _MORE:
        more[_MORE:] = [Item(f"and {folded - _MORE} others, which the JSON report names")]
    return Cell(text, tone, tuple(shown), tuple(more), folded)


def _unknown(text: str = "not known") -> Cell:
    return Cell(text, "unknown")


def _exposure(target: TargetSummary) -> Cell:
    lines = [Item(f"{each.points:g} {each.source} ({each.reason})") for each in target.exposure.lines]
    score = target.exposure.score
    return _list(f"{score:g}", "risk" if score >= _HIGH_EXPOSURE else "plain", lines)


def _paths(target: TargetSummary) -> Cell:
    if target.paths:
        return Cell(str(target.paths), "risk")
    if target.unknown:
        return Cell("none found", "unknown", note="not everything could be checked")
    return Cell("none found", "tight")


def _findings(target: TargetSummary) -> Cell:
    found = [Item(f"{number} {label}") for label, number in target.counts.items() if number]
    return Cell(str(sum(target.counts.values())), "plain", tuple(found))


def _checks(target: TargetSummary) -> Cell:
    items = (
        Item(f"{target.unknown} not checked", "unknown" if target.unknown else "plain"),
        Item(f"{target.not_applicable} not applicable"),
    )
    return Cell(f"{target.passed} held", "plain", items)


def _user(target: TargetSummary) -> Cell:
    inside = "?" if target.uid is None else str(target.uid)
    if target.host_uid is None:
        return _unknown(f"{inside} → not known")
    return Cell(f"{inside} → {target.host_uid}", "tight" if target.host_uid else "risk")


def _root(target: TargetSummary) -> Cell:
    if target.uid_map is None:
        return _unknown()
    for extent in target.uid_map:
        first, host, _ = extent.split(":")
        if first == "0":
            return Cell("host root (0)", "risk") if host == "0" else Cell(f"host user {host}", "tight")
    return Cell("nobody: 0 has no mapping", "tight")


def _userns(sharing: str) -> Cell:
    tones: dict[str, Tone] = {"own": "tight", "host": "weak", "shared": "weak"}
    return Cell(sharing, tones[sharing]) if sharing in tones else _unknown()


def _map(extents: tuple[str, ...] | None) -> Cell:
    if extents is None:
        return _unknown()
    return Cell("" if extents else "empty", "plain", tuple([Item(extent) for extent in extents]))


def _set_of(kind: str) -> Callable[[TargetSummary], Cell]:
    def cell(target: TargetSummary) -> Cell:
        if target.capabilities is None:
            return _unknown()
        names = _names(target, kind)
        counts = target.namespaces.get("user") != "own"
        tone: Tone = "tight" if not names else "risk" if counts and dangerous() & set(names) else "plain"
        text = f"{len(names)} of {len(caps.NAMES)}" if names else "none"
        note = "" if counts or not names else "count in its own user namespace only"
        if names and kind != "bounding" and names == _names(target, "bounding"):
            return Cell(f"{text}, as bounding", tone, note=note)
        return replace(_list(text, tone, [_item(name, counts=counts) for name in names]), note=note)

    return cell


def _names(target: TargetSummary, kind: str) -> tuple[str, ...]:
    held: tuple[str, ...] = getattr(target.capabilities, kind) if target.capabilities else ()
    return tuple(caps.NAMES) if held == ("ALL",) else held


def _item(name: str, *, counts: bool) -> Item:
    return Item(name.removeprefix("CAP_"), "risk" if counts and name in dangerous() else "plain")


@lru_cache(maxsize=1)
def dangerous() -> frozenset[str]:
    """Give the capabilities whose holding is a finding of at least medium severity where it counts against the host."""
    from stockade.audit.rules import RULES

    found = {
        "CAP_" + condition.removeprefix("CAP-")
        for rule in RULES.values()
        for condition in rule.conditions
        if rule.subject == "capabilities" and condition.startswith("CAP-") and rule.severity >= Severity.MEDIUM
    }
    return frozenset(found & set(caps.NAMES))


def _capabilities(targets: Sequence[TargetSummary]) -> Iterator[Held]:
    held = {kind: [set(_names(target, kind)) for target in targets] for kind in SETS}
    known = dict.fromkeys((*caps.NAMES, *sorted({name for sets in held.values() for each in sets for name in each})))
    for name in known:
        sets = [tuple([kind for kind in SETS if name in held[kind][place]]) for place in range(len(targets))]
        if any(sets):
            yield Held(name.removeprefix("CAP_"), name in dangerous(), tuple(sets))


def _namespaces(target: TargetSummary) -> Cell:
    if not target.namespaces:
        return _unknown()
    sharing = {kind: target.namespaces.get(kind, "unknown") for kind in _KINDS}
    own = [Item(kind) for kind in _KINDS if sharing[kind] == "own"]
    others = [Item(f"{kind}: {sharing[kind]}", _tone(kind, sharing[kind])) for kind in _KINDS if sharing[kind] != "own"]
    tones = {item.tone for item in others}
    worst: Tone = "tight"
    for tone in _RISING:
        worst = tone if tone in tones else worst
    return Cell(f"{len(own)} of {len(_KINDS)} own", worst, (*others, *own))


def _tone(kind: str, sharing: str) -> Tone:
    if sharing == "unknown":
        return "unknown"
    return _HOSTS.get(kind, "weak") if sharing == "host" else "weak"


def _seccomp(target: TargetSummary) -> Cell:
    if target.seccomp is None:
        return _unknown()
    return Cell(target.seccomp, "risk") if target.seccomp == "none" else Cell(target.seccomp, "tight")


def _calls(target: TargetSummary) -> Cell:
    if target.dangerous_calls is None:
        return _unknown("not known: the filter wasn't read")
    if not target.dangerous_calls:
        return Cell("none", "tight")
    text = "every call is open" if target.seccomp == "none" else str(len(target.dangerous_calls))
    return _list(text, "risk", [Item(call) for call in target.dangerous_calls])


def _no_new_privs(target: TargetSummary) -> Cell:
    if target.no_new_privs is None:
        return _unknown()
    return Cell("on", "tight") if target.no_new_privs else Cell("off", "weak")


def _lsm(target: TargetSummary) -> Cell:
    if target.lsm is None:
        return _unknown()
    return Cell(target.lsm, "weak" if target.lsm == "none" or "unconfined" in target.lsm else "tight")


def _control_files(target: TargetSummary) -> Cell:
    if target.control_files is None:
        return _unknown()
    if not target.control_files:
        return Cell("none", "tight")
    from stockade.audit.targets.controls import WRITE  # by name what every target is asked for; the rest are sysctls

    named = [path for path in WRITE if path in target.control_files]
    rest = [path for path in target.control_files if path not in WRITE]
    return _list(str(len(target.control_files)), "risk", [Item(path) for path in (*named, *rest)])


def _mounts(target: TargetSummary) -> Cell:
    if target.host_mounts is None:
        return _unknown()
    if not target.host_mounts:
        return Cell("none", "tight")
    items = [Item(mount, "risk" if mount.endswith("(rw)") else "plain") for mount in target.host_mounts]
    writable = sum(item.tone == "risk" for item in items)
    text = f"{len(items)} mounts, {writable or 'none'} writable"
    return _list(text, "risk" if writable else "plain", items)


def _limit_of(name: str) -> Callable[[TargetSummary], Cell]:
    def cell(target: TargetSummary) -> Cell:
        amount = target.limits.get(name)
        if amount is None:
            return _unknown()
        return Cell(amount, "weak" if amount == "unlimited" else "tight")

    return cell


_RESULT: tuple[tuple[str, Callable[[TargetSummary], Cell], str], ...] = (
    ("Exposure", _exposure, "0 to 100, the sum of its lines"),
    ("Attack paths", _paths, ""),
    ("Findings", _findings, ""),
    ("Checks", _checks, ""),
)
