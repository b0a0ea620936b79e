"""The report as one HTML file: nothing is fetched, nothing runs but one script whose hash the file itself names.

The content security policy allows exactly the style sheet and the script in templates/, by their hashes. What comes
from a container is data: jinja2 escapes it, and control characters and those that reorder text are shown as escapes.
Without the script everything can be read; the script filters and opens what a link points at.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from stockade.audit.redact import visible
from stockade.audit.report import Severity
from stockade.errors import printable
from stockade.reports import html_targets, svg

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jinja2 import Environment, Template

    from stockade.audit.report import Finding, NotApplicable, Path, Report, Unknown

_TEMPLATES = os.path.join(os.path.dirname(__file__), "templates")
#: a chain of more facts shows the first few and the one that the fix removes; the others open on a click
_CHAIN = 7
#: so many findings may stand open from the beginning
_OPEN = 12
_SOURCE = re.compile(r"(?P<source>(?:/[^\s:]*|[\w.+@/-]+\.[a-z]+)(?::[0-9]+){0,2}): (?P<text>.+)")
_OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*(?:=[\w./:-]*\w)?)")
_WORD = re.compile(r"[a-z]+(?:'s)?[ ,]")
_WEB = re.compile(r"https?://[!-~]+\Z")


def render(report: Report) -> str:
    """Give the report as a self-contained HTML document. The same report gives the same text."""
    return _template().render(_context(report))


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # 30 ms: only who wants HTML pays for it

    environment: Environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Any] = environment.filters
    filters.update(many=many, pieces=pieces, sentence=sentence, drawn=drawn)
    return environment.get_template("report.html")


def drawn(path: Path) -> Any:
    """Give the drawing of a path, as markup."""
    from markupsafe import Markup  # comes with jinja2

    return Markup(svg.draw(path))  # noqa: S704 -- svg.draw escapes every text


def _shown(value: Any) -> Any:
    """Make what a container chose visible before it is escaped; markup of our own templates stays as it is."""
    if hasattr(value, "__html__"):
        return value
    return printable(visible(value)) if isinstance(value, str) else value


def many(number: int, noun: str, plural: str = "") -> str:
    """Give a number with its noun: "no findings", "1 finding", "2 findings"."""
    return f"{number or 'no'} {noun if number == 1 else plural or noun + 's'}"


def sentence(text: str) -> str:
    """Begin a text with a capital letter if it begins with a plain word: core_pattern and /dev/vda stay themselves."""
    return text[:1].upper() + text[1:] if _WORD.match(text) else text


def pieces(text: str) -> list[tuple[str, bool]]:
    """Split a text at command line options, such as --pids-limit: each part, and whether it is one."""
    return [(part, number % 2 == 1) for number, part in enumerate(_OPTION.split(text)) if part]


def _context(report: Report) -> dict[str, Any]:
    containers = [target for target in report.targets if target.kind != "host"]
    ids = _Ids()
    cards = _cards(report.findings, ids)
    places = _places(cards)
    return {
        **_assets(),
        "report": report,
        "severities": [severity.label for severity in reversed(Severity)],
        "counts": {severity.label: report.count(severity) for severity in Severity},
        "headline": _headline(report, len(containers)),
        "starts": _starts(report.paths),
        "names": sorted({target.id for target in report.targets}),
        "audited": len(containers),
        "of_host": sum(sum(target.counts.values()) for target in report.targets if target.kind == "host"),
        "routes": _routes(report.paths, ids, places),
        "targets": html_targets.build(containers),
        "cards": cards,
        "rules": _rules(report),
        "opened": {severity.label for severity in _opened(report)},
        "unknown": _missing(report.unknown),
        "not_applicable": _missing(report.not_applicable),
    }


def _assets() -> dict[str, Any]:
    from markupsafe import Markup

    style, script = _read("report.css"), _read("report.js")
    # Nothing here is of a report: two files of ours without a closing tag in them, and a policy made of their digests.
    # Escaped they would not match those digests.
    return {
        "style": Markup(style),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "policy": Markup(  # noqa: S704
            f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
    }


def _read(name: str) -> str:
    with open(os.path.join(_TEMPLATES, name), encoding="utf-8", newline="") as file:
        return file.read()


def digest(text: str) -> str:
    """Give the source expression that allows an inline element of exactly this text (Content Security Policy 3)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _headline(report: Report, audited: int) -> str:
    reaching = len({path.target for path in report.paths})
    if not audited:
        return "No container was audited"
    if not reaching:
        return "No attack path to the host was found"
    if audited == 1:
        return "The container can reach the host"
    return f"{reaching} of {audited} containers can reach the host"


def _starts(paths: Iterable[Path]) -> list[tuple[str, int]]:
    """Count the paths by target, most first."""
    counts: dict[str, int] = {}
    for path in paths:
        counts[path.target] = counts.get(path.target, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _opened(report: Report) -> Iterable[Severity]:
    """Give the severities whose findings stand open: from the worst on, as many as are read at one go."""
    seen = 0
    for severity in (Severity.CRITICAL, Severity.HIGH):
        seen += report.count(severity)
        if seen <= _OPEN:
            yield severity


class _Ids:
    """Gives anchors: an entry's fingerprint, which stays the same in the next audit, made unique in the document."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def give(self, prefix: str, fingerprint: str) -> str:
        anchor = f"{prefix}-{fingerprint if fingerprint.isascii() and fingerprint.isalnum() else 'x'}"
        self._used[anchor] = number = self._used.get(anchor, 0) + 1
        return anchor if number == 1 else f"{anchor}-{number}"


class Line(NamedTuple):
    """A line of evidence: where it was read, which may be empty, and what was read there."""

    source: str
    text: str


def line_of(evidence: str) -> Line:
    """Take the place, such as /proc/17/status:3, from the beginning of a line of evidence."""
    match = _SOURCE.fullmatch(evidence)
    return Line(match["source"], match["text"]) if match else Line("", evidence)


@dataclass(frozen=True, slots=True)
class Fact:
    """A link of an attack path's chain, numbered from 1. `breaks`: the cheapest fix takes it away."""

    number: int
    line: Line
    breaks: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """The chain of one target. `folded` are facts between `facts` and `last` that open on a click.

    `rests_on` are rules with the anchor of their finding on the target; `uncut`: no fact is what the fix takes away.
    """

    id: str
    target: str
    facts: tuple[Fact, ...]
    folded: tuple[Fact, ...]
    last: tuple[Fact, ...]
    uncut: str
    rests_on: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Attack paths that differ in target and evidence only, as a card."""

    path: Path
    chains: tuple[Chain, ...]


def _routes(paths: Iterable[Path], ids: _Ids, places: dict[tuple[str, str], str]) -> list[Route]:
    groups: dict[tuple[object, ...], list[Path]] = {}
    for path in paths:
        same = (path.severity, path.id, path.title, path.effect, path.fix, path.proof)
        groups.setdefault(same, []).append(path)
    return [Route(group[0], tuple([_chain(path, ids, places) for path in group])) for group in groups.values()]


def _chain(path: Path, ids: _Ids, places: dict[tuple[str, str], str]) -> Chain:
    lines = enumerate(path.evidence, 1)
    facts = tuple([Fact(number, line_of(line), line == path.breaks) for number, line in lines])
    shown = 3 if len(facts) > _CHAIN else len(facts)
    return Chain(
        id=ids.give("path", path.fingerprint),
        target=path.target,
        facts=facts[:shown],
        folded=tuple([fact for fact in facts[shown:] if not fact.breaks]),
        last=tuple([fact for fact in facts[shown:] if fact.breaks]),
        uncut="" if path.breaks in path.evidence else path.breaks,
        rests_on=tuple([(rule, places.get((rule, path.target), "")) for rule in path.rests_on]),
    )


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A finding in a card: whose it is and what was read. `place` is empty where the evidence names it."""

    id: str
    target: str
    evidence: tuple[Line, ...]
    place: str


@dataclass(frozen=True, slots=True)
class Card:
    """Findings that differ in target and evidence only: many containers with one fault are read once."""

    finding: Finding
    category: str
    why: tuple[str, ...]
    references: tuple[tuple[str, bool], ...]
    occurrences: tuple[Occurrence, ...]


def _cards(findings: Iterable[Finding], ids: _Ids) -> dict[str, list[Card]]:
    """Give the cards by severity, worst first, each in the order of the report."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        same = (finding.severity, finding.rule, finding.title, finding.fix, finding.conditions, finding.why)
        groups.setdefault(same, []).append(finding)
    cards: dict[str, list[Card]] = {}
    for group in groups.values():
        cards.setdefault(group[0].severity.label, []).append(_card(group, ids))
    return {severity.label: cards[severity.label] for severity in reversed(Severity) if severity.label in cards}


def _card(group: Sequence[Finding], ids: _Ids) -> Card:
    first = group[0]
    return Card(
        finding=first,
        category=category(first.rule),
        why=tuple([" ".join(paragraph.split()) for paragraph in first.why.split("\n\n")]),
        # A link is only what is one; anything else, such as javascript:, is text.
        references=tuple([(address, bool(_WEB.match(address))) for address in first.references]),
        occurrences=tuple([_occurrence(finding, ids) for finding in group]),
    )


def _occurrence(finding: Finding, ids: _Ids) -> Occurrence:
    named = any(finding.location.path in line for line in finding.evidence)
    return Occurrence(
        id=ids.give("finding", finding.fingerprint),
        target=finding.target,
        evidence=tuple([line_of(line) for line in finding.evidence]),
        place="" if named else str(finding.location),
    )


def _places(cards: dict[str, list[Card]]) -> dict[tuple[str, str], str]:
    """Map a rule and a target to the anchor of the worst such finding."""
    places: dict[tuple[str, str], str] = {}
    for same in cards.values():
        for card in same:
            for each in card.occurrences:
                places.setdefault((card.finding.rule, each.target), each.id)
    return places


def category(rule: str) -> str:
    """Give the subject that a rule belongs to, such as "capability sets"; attack paths are their own."""
    from stockade.audit.rules import RULES

    if rule.startswith("AP-"):
        return "attack paths"
    return RULES[rule].subject.replace("_", " ") if rule in RULES else "other"


def _rules(report: Report) -> list[tuple[str, list[str]]]:
    """Give all rules that the report names, by category, for the filter."""
    named = {finding.rule for finding in report.findings} | {path.id for path in report.paths}
    named |= {each.rule for each in report.unknown} | {each.rule for each in report.not_applicable}
    groups: dict[str, list[str]] = {}
    for rule in sorted(named):
        groups.setdefault(category(rule), []).append(rule)
    return sorted(groups.items())


@dataclass(frozen=True, slots=True)
class Missing:
    """Rules that lack the same things of the same targets."""

    reasons: tuple[str, ...]
    rules: tuple[str, ...]
    targets: tuple[str, ...]


def _missing(entries: Iterable[Unknown | NotApplicable]) -> list[Missing]:
    """Say once what many targets and rules lack."""
    lacks: dict[tuple[str, str], list[str]] = {}
    for each in entries:
        lacks.setdefault((each.rule, each.target), []).append(each.reason)
    targets: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (rule, target), reasons in lacks.items():
        targets.setdefault((rule, tuple(dict.fromkeys(reasons))), []).append(target)
    rules: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (rule, why), names in targets.items():
        rules.setdefault((why, tuple(names)), []).append(rule)
    return [Missing(reasons, tuple(same), names) for (reasons, names), same in rules.items()]
