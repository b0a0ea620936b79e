"""Judges targets by the rules and assembles the report.

Pure: the same facts give the same report, in the same order.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from stockade.audit import facts, summary
from stockade.audit.facts import Fact, Host, Target, Where
from stockade.audit.path_rule import AttackPath
from stockade.audit.paths import PATHS
from stockade.audit.redact import clean
from stockade.audit.report import (
    Evaluation,
    Finding,
    Judged,
    NotApplicable,
    Path,
    Report,
    Severity,
    Unknown,
    Verdict,
)
from stockade.audit.rule import CannotTell, DoesNotApply, Found, Need, Outcome, Rule
from stockade.audit.rules import RULES

# Of a container on a kernel of its own (gVisor, Kata) these describe the guest: `Seccomp: 0` there is no finding.
_OF_THE_GUEST: frozenset[type[Fact]] = frozenset(
    {
        facts.CapabilitySets, facts.NoNewPrivs, facts.SeccompState, facts.SeccompFilter, facts.LsmLabel, facts.Mask,
        facts.ControlFile, facts.DeviceNode, facts.DevicePolicy, facts.Process, facts.UserNamespace,
    }
)  # fmt: skip

# What a collector adds where it can; that it didn't is no gap in what is known of the container.
_OPTIONAL: dict[type[Fact], str] = {
    facts.Declared: "no configuration is known that it was started from",
    facts.SharedIds: "it was not compared with other containers",
}

_E = TypeVar("_E", Unknown, NotApplicable)

#: exit codes of `stockade audit`, in every format alike
PASSED, FAILED, USAGE, NOTHING, BROKEN = range(5)


_DECLARED = "the file declares it; nothing was started and nothing was measured"
# A file says nothing of most that a kernel is asked for. Where it matters the collector told of a gap.
_NOT_HERE = DoesNotApply("")
_DECLARED_KINDS = facts.Unset.__module__
_HOST_KINDS = facts.HostSetting.__module__


class _Facts:
    """The facts of a target by kind, and what is to be said of the missing ones."""

    def __init__(self, target: Target) -> None:
        self.target = target
        runtime = target.one(facts.Runtime)
        self.sandbox = runtime.sandbox if runtime else None

    def missing(self, needs: Sequence[Need]) -> CannotTell | DoesNotApply | None:
        """Say why the needed facts don't suffice, or None."""
        if self.sandbox and any(need.kind in _OF_THE_GUEST for need in needs):
            return DoesNotApply(f"the container runs on {self.sandbox}'s own kernel; procfs describes that guest")
        for need in needs:
            if need.optional or self.target.knows(need.kind):
                continue
            gap = self.target.gap(need.kind)
            if gap is None and not self.target.all(need.kind) and self._elsewhere(need.kind):
                return _NOT_HERE
            if gap is None and need.kind in _OPTIONAL:
                return DoesNotApply(_OPTIONAL[need.kind])
            if gap and not gap.applicable:
                return DoesNotApply(gap.reason)
            if not self.target.all(need.kind):
                reason = gap.reason if gap else "the collector did not find out"
                where = gap.where if gap else None
                what = f"{need.kind.__name__} is not known: " if not self.target.declared else ""
                return CannotTell(what + reason, where, gap=True)
        return None

    def _elsewhere(self, kind: type[Fact]) -> bool:
        """Say whether this sort of target can't tell of a kind: a file of what a kernel knows, or the reverse."""
        # `audit all` looks at the host only as far as containers need it; `audit host` asks for the rest.
        host = self.target.kind == "host" and kind.__module__ == _HOST_KINDS
        return host or self.target.declared or kind.__module__ == _DECLARED_KINDS

    def arguments(self, needs: Sequence[Need]) -> Iterator[dict[str, Any]]:
        """Give the arguments for each run of a rule: one run, or one for each fact of the kind it stands for.

        It is one dictionary, in which the fact changes from run to run.
        """
        arguments: dict[str, Any] = {}
        each: Need | None = None
        for need in needs:
            if need.shape == "each":
                each = need
            elif need.shape == "all":
                found = self.target.all(need.kind)
                arguments[need.parameter] = found if found or self.target.knows(need.kind) else None
            else:
                arguments[need.parameter] = self.target.one(need.kind)
        if each is None:
            yield arguments
            return
        for fact in self.target.all(each.kind):
            arguments[each.parameter] = fact
            yield arguments

    def partial(self, needs: Sequence[Need]) -> CannotTell | None:
        """Say that a kind of many is known in part only, after what is known was judged."""
        for need in needs:
            if need.kind.many and not need.optional and not self.target.knows(need.kind):
                gap = self.target.gap(need.kind)
                if gap is None and self.target.declared:
                    continue
                what = f"{need.kind.__name__} is known in part: " if not self.target.declared else ""
                return CannotTell(
                    f"{what}{gap.reason if gap else 'the list may not be complete'}",
                    gap.where if gap else None,
                    gap=True,
                )
        return None


def evaluate(
    target: Target, rules: Iterable[Rule] | None = None, paths: Iterable[AttackPath] | None = None
) -> Evaluation:
    """Judge one target by the rules and paths that fit it; all of them when none are given."""
    known = _Facts(target)
    scope = "host" if target.kind == "host" else "container"
    findings: list[Finding] = []
    unknown: list[Unknown] = []
    not_applicable: list[NotApplicable] = []
    passed = 0
    for rule in _worthwhile(known, scope) if rules is None else rules:
        if rule.scope != scope:
            continue
        held = True
        for outcome in _judge(rule, known):
            held = False
            if not _silent(outcome, target):
                _file(outcome, rule, target, (findings, unknown, not_applicable))
        passed += held
    judged = _fold(findings)
    attacks = []
    if scope == "container":
        for path in PATHS if paths is None else paths:
            attack = _attack(path, known, judged) if target.declared or not path.declared else None
            if isinstance(attack, Path):
                attacks.append(attack)
            elif isinstance(attack, Unknown):
                unknown.append(attack)
            elif attack is not None:
                not_applicable.append(attack)
    return Evaluation(
        target,
        tuple(sorted(judged, key=_order)),
        tuple(sorted(attacks, key=lambda path: (-path.severity, path.id))),
        tuple(_once(unknown, target)),
        tuple(_once(not_applicable, target)),
        passed,
    )


# scope, sandbox, the kinds of facts that there are, those known fully, those with a gap → the rules worth asking
_WORTHWHILE: dict[tuple[object, ...], tuple[Rule, ...]] = {}


def _worthwhile(known: _Facts, scope: str) -> Iterable[Rule]:
    """Leave out the rules on which a file can't say a word: two of three, and the same ones for all alike."""
    target = known.target
    if not target.declared:
        return RULES.values()
    kinds = frozenset(fact.__class__ for fact in target.facts)
    key = (scope, known.sandbox, kinds, target.complete, frozenset(gap.kind for gap in target.gaps))
    found = _WORTHWHILE.get(key)
    if found is None:
        every = [rule for rule in RULES.values() if rule.scope == scope]
        found = tuple([rule for rule in every if known.missing(rule.needs) is not _NOT_HERE])
        _WORTHWHILE[key] = found
    return found


def _once(entries: Iterable[_E], target: Target) -> list[_E]:
    """Take what is said twice out; of a file each gap is told once, by the first of the rules that it stops."""
    if not target.declared:
        return list(dict.fromkeys(entries))
    first: dict[str, _E] = {}
    for each in entries:
        first.setdefault(each.reason, each)
    return list(first.values())


def _silent(outcome: Outcome, target: Target) -> bool:
    """Say whether an outcome isn't worth a word: what a file can't say, and what rules miss in it."""
    if isinstance(outcome, DoesNotApply):
        return not outcome.reason
    return isinstance(outcome, CannotTell) and target.declared and not outcome.gap


def _judge(rule: Rule, known: _Facts) -> Iterator[Outcome]:
    missing = known.missing(rule.needs)
    if missing:
        yield missing
        return
    for arguments in known.arguments(rule.needs):
        yield from rule.function(**arguments)
    partial = known.partial(rule.needs)
    if partial:
        yield partial


def _file(
    outcome: Outcome, rule: Rule, target: Target, piles: tuple[list[Finding], list[Unknown], list[NotApplicable]]
) -> None:
    findings, unknown, not_applicable = piles
    if isinstance(outcome, Found):
        findings.append(_finding(outcome, rule, target))
    elif isinstance(outcome, CannotTell):
        unknown.append(Unknown(rule.id, rule.conditions, target.id, clean(outcome.reason), _place(outcome.where)))
    else:
        not_applicable.append(NotApplicable(rule.id, rule.conditions, target.id, clean(outcome.reason)))


def _finding(found: Found, rule: Rule, target: Target) -> Finding:
    return Finding(
        rule=rule.id,
        conditions=found.conditions or rule.conditions,
        severity=rule.severity if found.severity is None else found.severity,
        target=target.id,
        title=clean(found.title),
        why=rule.text.why,
        fix=clean(found.fix) or rule.text.fix,
        evidence=tuple([clean(line) for line in found.evidence]) or (clean(f"{found.where}: {found.title}"),),
        location=_place(found.where),
        references=rule.references,
        standards=rule.standards,
        fingerprint=fingerprint(rule.id, target.id, found.key or found.title),
    )


def _place(where: Where | None) -> Any:
    return Where(clean(where.path), where.line, where.column) if where else None


def fingerprint(*parts: str) -> str:
    """Hash what a finding is, so that a baseline knows it again: 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _order(finding: Finding) -> tuple[object, ...]:
    return (-finding.severity, finding.target, finding.rule, finding.location, finding.title, finding.fingerprint)


def _fold(findings: Sequence[Finding]) -> list[Finding]:
    """Fold findings with the same cause into the one that covers them: their titles become its evidence.

    It then has their conditions as well and is at least as bad.
    """
    kept: list[Finding] = []
    present = {finding.rule for finding in findings}
    covered = {rule: RULES[rule].covers & present for rule in present if rule in RULES and RULES[rule].covers}
    gone = frozenset[str]().union(*covered.values())
    for finding in findings:
        if finding.rule in gone:
            continue
        folded = covered.get(finding.rule)
        if folded:
            inside = [other for other in findings if other.rule in folded]
            more = [other.title for other in inside if other.title not in finding.evidence]
            conditions = [*finding.conditions, *(each for other in inside for each in other.conditions)]
            kept.append(
                replace(
                    finding,
                    evidence=(*finding.evidence, *dict.fromkeys(more)),
                    conditions=tuple(dict.fromkeys(conditions)),
                    severity=max(finding.severity, *(other.severity for other in inside)),
                )
            )
        else:
            kept.append(finding)
    return kept


def _attack(path: AttackPath, known: _Facts, findings: Sequence[Finding]) -> Path | Unknown | NotApplicable | None:
    missing = known.missing(path.needs)
    if missing:
        if known.target.declared:  # the rules that it rests on tell of gaps
            return None
        kind = NotApplicable if isinstance(missing, DoesNotApply) else Unknown
        return kind(path.id, (path.id,), known.target.id, clean(missing.reason))
    (arguments,) = known.arguments(path.needs)
    way = path.function(**arguments)
    if isinstance(way, DoesNotApply):
        return NotApplicable(path.id, (path.id,), known.target.id, clean(way.reason))
    if way is None:
        partial = known.partial(path.needs)
        return Unknown(path.id, (path.id,), known.target.id, clean(partial.reason)) if partial else None
    present = {finding.rule for finding in findings}
    return Path(
        id=path.id,
        target=known.target.id,
        severity=path.severity if way.severity is None else way.severity,
        title=path.title,
        effect=path.effect,
        evidence=tuple([clean(line) for line in way.evidence]),
        proof=path.proof if not known.target.declared else _DECLARED,
        fix=clean(way.fix),
        breaks=clean(way.breaks),
        location=_place(way.where),
        rests_on=tuple([rule for rule in path.rests_on if rule in present]),
        fingerprint=fingerprint(path.id, known.target.id),
        basis="declared" if known.target.declared else "measured",
    )


def judge(target: Target) -> Judged:
    """Judge one target and keep what a report says of it, without its facts."""
    one = evaluate(target)
    return Judged(summary.of(one), one.findings, one.paths, one.unknown, one.not_applicable)


def audit(
    targets: Iterable[Target],
    *,
    judged: Iterable[Judged] = (),
    fail_on: Severity | None = None,
    version: str = "",
    generated: str = "",
    host: Mapping[str, str] | None = None,
) -> Report:
    """Judge all targets and assemble the report. What concerns the machine is said once, of a target of kind "host".

    `judged` are targets that other processes have judged already; they come after those of `targets`.
    """
    known = tuple(_with_host(tuple(targets)))
    every = (*(judge(target) for target in known), *judged)
    findings = sorted((finding for one in every for finding in one.findings), key=_order)
    paths = sorted(
        (path for one in every for path in one.paths), key=lambda path: (-path.severity, path.id, path.target)
    )
    return Report(
        targets=tuple([one.summary for one in every]),
        findings=tuple(findings),
        paths=tuple(paths),
        unknown=tuple([each for one in every for each in one.unknown]),
        not_applicable=_told_once(every),
        verdict=verdict(fail_on, findings, paths),
        version=version,
        generated=generated,
        host=dict(host) if host is not None else summary.host(known),
    )


def _told_once(every: Iterable[Judged]) -> tuple[NotApplicable, ...]:
    """Give each reason once. Those of files ("*") come from several processes in any order and are sorted."""
    told = dict.fromkeys(each for one in every for each in one.not_applicable)
    own = [each for each in told if each.target != "*"]
    return (*own, *sorted((each for each in told if each.target == "*"), key=lambda each: (each.rule, each.reason)))


def _with_host(targets: tuple[Target, ...]) -> Iterator[Target]:
    yield from targets
    if any(target.kind == "host" for target in targets):
        return
    known = next((fact for target in targets if (fact := target.one(Host))), None)
    if known:
        yield Target("host", "host", "host", (known,))


def verdict(fail_on: Severity | None, findings: Iterable[Finding], paths: Iterable[Path]) -> Verdict:
    """Decide a policy of one severity: what is at least as bad fails it."""
    if fail_on is None:
        return Verdict(None, 0)
    severities = [finding.severity for finding in findings] + [path.severity for path in paths]
    return Verdict(fail_on, sum(severity >= fail_on for severity in severities))


def exit_code(report: Report) -> int:
    """Give the exit code that a report means: 0 pass, 1 policy failed, 3 nothing to audit, 4 something was unreadable.

    A failed policy says more than an unreadable file; that one must not look like a pass.
    """
    if not report.verdict.passed:
        return FAILED
    if report.problems:
        return BROKEN
    return PASSED if any(target.kind != "host" for target in report.targets) else NOTHING
