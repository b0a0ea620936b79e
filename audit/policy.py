"""Which findings count, and how much: policies are data in profiles/policies/, or a file of the user's own.

name = "house"
fail_on = "high"            # unless --fail-on says otherwise
standard = "baseline"       # judge pods by a Pod Security Standard, and nothing else

[[change]]                  # the first that fits a finding decides
conditions = ["RES-*"]      # all of its conditions are among these
rules = ["latest_tag"]      # or its rule is
severity = "info"           # or "off"
targets = "declared"        # or "live", by default any
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal, cast

from stockade import profiles
from stockade.audit import engine, pod_security
from stockade.audit.facts import LIVE
from stockade.audit.report import (
    Finding,
    Level,
    PodVerdict,
    PolicyVerdict,
    Report,
    Severity,
    TargetSummary,
    Violation,
)
from stockade.errors import UsageError

_PSS = "https://kubernetes.io/docs/concepts/security/pod-security-standards/"
_LEVELS: dict[str, tuple[Level, ...]] = {"baseline": ("baseline",), "restricted": ("baseline", "restricted")}
_TARGETS = ("any", "declared", "live")


@lru_cache(maxsize=4096)  # thousands of files have the same few dozen findings
def _match(patterns: tuple[str, ...], conditions: tuple[str, ...]) -> bool:
    return all(any(fnmatchcase(condition, pattern) for pattern in patterns) for condition in conditions)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry: which findings, on which targets, and the severity that they count with; None takes them out."""

    conditions: tuple[str, ...]
    rules: tuple[str, ...]
    severity: Severity | None
    targets: Literal["any", "declared", "live"] = "any"

    def fits(self, finding: Finding, *, live: bool) -> bool:
        """Say whether the entry speaks of a finding."""
        if self.targets != "any" and live != (self.targets == "live"):
            return False
        if finding.rule in self.rules:
            return True
        return bool(self.conditions) and _match(self.conditions, finding.conditions)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as it was read. `standard` judges pods alone; `fail_on` holds where the caller names no severity."""

    name: str
    description: str = ""
    standard: Level | None = None
    fail_on: Severity | None = None
    changes: tuple[Change, ...] = ()

    def apply(self, report: Report) -> Report:
        """Give the report as the policy has it: findings, paths and verdict."""
        threshold = report.verdict.threshold if report.verdict.threshold is not None else self.fail_on
        if self.standard is not None:
            return _standard(report, self, self.standard, threshold)
        live = {target.id: target.kind in LIVE for target in report.targets}
        findings = tuple(sorted(self._changed(report.findings, live), key=_order)) if self.changes else report.findings
        return replace(
            report,
            findings=findings,
            targets=tuple(_counted(report.targets, findings)) if self.changes else report.targets,
            verdict=engine.verdict(threshold, findings, report.paths),
            policy=PolicyVerdict(self.name),
        )

    def _changed(self, findings: Iterable[Finding], live: Mapping[str, bool]) -> Iterator[Finding]:
        for finding in findings:
            change = next(
                (each for each in self.changes if each.fits(finding, live=live.get(finding.target, True))), None
            )
            if change is None:
                yield finding
            elif change.severity is not None:
                yield finding if finding.severity <= change.severity else replace(finding, severity=change.severity)


def load(name_or_path: str) -> Policy:
    """Read a policy that comes with Stockade by its name, or one by its path. Raises UsageError."""
    try:
        read = tomllib.loads(profiles.read("policy", name_or_path).decode())
    except FileNotFoundError:
        known = ", ".join(profiles.names("policy"))
        raise UsageError(f"there is no policy {name_or_path!r}", hint=f"{known}, or the path of a file") from None
    except OSError as error:
        raise UsageError(f"policy {name_or_path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"policy {name_or_path}: {error}") from None
    try:
        return _policy(read)
    except (TypeError, ValueError) as error:
        raise UsageError(f"policy {name_or_path}: {error}") from None


def apply(report: Report, policy: Policy) -> Report:
    """Give the report as a policy has it."""
    return policy.apply(report)


def _policy(read: Mapping[str, Any]) -> Policy:
    _only(read, {"name", "description", "standard", "fail_on", "change"})
    standard = read.get("standard")
    if standard is not None and standard not in _LEVELS:
        raise ValueError(f"standard is baseline or restricted, not {standard!r}")
    changes = read.get("change", [])
    if not isinstance(changes, list) or not all(isinstance(each, dict) for each in changes):
        raise TypeError("change is written [[change]]")
    return Policy(
        name=_text(read, "name"),
        description=_text(read, "description", ""),
        standard=cast("Level | None", standard),
        fail_on=_severity(read["fail_on"]) if "fail_on" in read else None,
        changes=tuple([_change(each) for each in changes]),
    )


def _change(read: Mapping[str, Any]) -> Change:
    _only(read, {"conditions", "rules", "severity", "targets"})
    targets = _text(read, "targets", "any")
    if targets not in _TARGETS:
        raise ValueError(f"targets is one of {', '.join(_TARGETS)}, not {targets!r}")
    severity = _text(read, "severity")
    conditions, rules = _texts(read, "conditions"), _texts(read, "rules")
    if not conditions and not rules:
        raise ValueError("a change names conditions or rules")
    return Change(conditions, rules, None if severity == "off" else _severity(severity), cast("Any", targets))


def _only(read: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(read.keys() - known)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")


def _text(read: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = read.get(key, default)
    if not isinstance(value, str):
        raise TypeError(f"{key} is missing" if value is None else f"{key} is a text")
    return value


def _texts(read: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = read.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{key} is a list of texts")
    return tuple(value)


def _severity(word: Any) -> Severity:
    found = next((severity for severity in Severity if severity.label == word), None)
    if found is None:
        raise ValueError(f"{word!r} is no severity")
    return found


def _standard(report: Report, policy: Policy, standard: Level, threshold: Severity | None) -> Report:
    """Judge the pods of a report by a Pod Security Standard; the findings are its violations, and no paths count."""
    levels = _LEVELS[standard]
    findings: list[Finding] = []
    pods: dict[str, int] = {}
    for target in report.targets:
        if target.pod is None:
            continue
        violations = [each for each in target.pod.violations if each.level in levels]
        pods[target.pod.pod] = pods.get(target.pod.pod, 0) + len(violations)
        findings += [_violation(each, target) for each in violations]
    told = tuple(sorted(findings, key=_order))
    return replace(
        report,
        findings=told,
        paths=(),
        unknown=(),
        not_applicable=(),
        targets=tuple(_counted(report.targets, told)),
        verdict=engine.verdict(threshold, told, ()),
        policy=PolicyVerdict(policy.name, tuple([PodVerdict(pod, not n, n) for pod, n in sorted(pods.items())])),
    )


def _violation(violation: Violation, target: TargetSummary) -> Finding:
    severity = Severity.HIGH if violation.level == "baseline" else Severity.MEDIUM
    return Finding(
        rule=violation.control,
        conditions=pod_security.CONDITIONS[violation.control],
        severity=severity,
        target=target.id,
        title=violation.title,
        why=f"The Pod Security Standard {violation.level} forbids it (check {violation.control}).",
        fix=pod_security.FIXES[violation.control],
        evidence=(f"{violation.location}: {violation.title}",),
        location=violation.location,
        references=(_PSS,),
        fingerprint=engine.fingerprint(violation.control, target.id, violation.title),
    )


def _counted(targets: Iterable[TargetSummary], findings: Iterable[Finding]) -> Iterator[TargetSummary]:
    """Count the findings of each target anew."""
    labels = {each: each.label for each in reversed(Severity)}
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(labels.values(), 0))
    for finding in findings:
        counts[finding.target][labels[finding.severity]] += 1
    for target in targets:
        yield replace(target, counts=counts[target.id])


def _order(finding: Finding) -> tuple[object, ...]:
    return (-finding.severity, finding.target, finding.rule, finding.location, finding.title, finding.fingerprint)
