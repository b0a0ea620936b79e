"""The report as JSON, in the shape that reports/schema.json publishes."""

import json
from dataclasses import asdict
from typing import Any

from stockade.audit.facts import Where
from stockade.audit.report import (
    SCHEMA_VERSION,
    Finding,
    NotApplicable,
    Path,
    Problem,
    Report,
    Severity,
    TargetSummary,
    Unknown,
)


def render(report: Report) -> str:
    """Give the report as JSON in ASCII, with a newline at its end. The same report gives the same text."""
    return json.dumps(document(report), indent=2, ensure_ascii=True) + "\n"


def document(report: Report) -> dict[str, Any]:
    """Give the report as plain dictionaries and lists."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": report.tool, "version": report.version},
        **({"generated": report.generated} if report.generated else {}),
        "host": dict(report.host),
        "summary": _summary(report),
        "targets": [_target(target) for target in report.targets],
        "paths": [_path(path) for path in report.paths],
        "findings": [_finding(finding) for finding in report.findings],
        "unknown": [_unknown(unknown) for unknown in report.unknown],
        "not_applicable": [_not_applicable(each) for each in report.not_applicable],
        "errors": [_problem(problem) for problem in report.problems],
    }


def _summary(report: Report) -> dict[str, Any]:
    threshold = report.verdict.threshold
    return {
        "severities": {severity.label: report.count(severity) for severity in reversed(Severity)},
        "paths": len(report.paths),
        "unknown": len(report.unknown),
        "not_applicable": len(report.not_applicable),
        "fail_on": None if threshold is None else threshold.label,
        "failed": report.verdict.failed,
        "passed": report.verdict.passed,
        "files": None if report.files is None else asdict(report.files),
    }


def _target(target: TargetSummary) -> dict[str, Any]:
    return asdict(target)


def _path(path: Path) -> dict[str, Any]:
    return {
        "id": path.id,
        "severity": path.severity.label,
        "target": path.target,
        "title": path.title,
        "effect": path.effect,
        "evidence": list(path.evidence),
        "proof": path.proof,
        "fix": path.fix,
        "breaks": path.breaks,
        "rests_on": list(path.rests_on),
        "location": _where(path.location),
        "fingerprint": path.fingerprint,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "conditions": list(finding.conditions),
        "severity": finding.severity.label,
        "target": finding.target,
        "title": finding.title,
        "why": finding.why,
        "fix": finding.fix,
        "evidence": list(finding.evidence),
        "location": _where(finding.location),
        "references": list(finding.references),
        "fingerprint": finding.fingerprint,
    }


def _unknown(unknown: Unknown) -> dict[str, Any]:
    return {
        "rule": unknown.rule,
        "conditions": list(unknown.conditions),
        "target": unknown.target,
        "reason": unknown.reason,
        "location": _where(unknown.location) if unknown.location else None,
    }


def _not_applicable(each: NotApplicable) -> dict[str, Any]:
    return {"rule": each.rule, "conditions": list(each.conditions), "target": each.target, "reason": each.reason}


def _problem(problem: Problem) -> dict[str, Any]:
    return {"location": _where(problem.location), "message": problem.message, "hint": problem.hint}


def _where(where: Where) -> dict[str, Any]:
    # a /proc file is read as a whole: it has no line, and null says so
    return {"path": where.path, "line": where.line or None, "column": where.column or None}
