"""The report as JSON, in the shape that reports/schema.json publishes."""

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from itertools import islice
from typing import Any

from stockade.audit import graph
from stockade.audit.facts import Where
from stockade.audit.report import (
    SCHEMA_VERSION,
    Exposure,
    Finding,
    NotApplicable,
    Path,
    PodStandards,
    Problem,
    Report,
    Severity,
    Standards,
    TargetSummary,
    Unknown,
)

#: a report of more targets has an entry a line: json indents in Python, ten times as slowly
_MANY = 500
_PIECE = 256


def render(report: Report) -> str:
    """Give the report as JSON in ASCII, with a newline at its end. The same report gives the same text."""
    return "".join(pieces(report))


def pieces(report: Report) -> Iterator[str]:
    """Give what `render` gives in pieces, since the report on thousands of files is a hundred megabytes."""
    if len(report.targets) <= _MANY:
        yield json.dumps(document(report), indent=2, ensure_ascii=True) + "\n"
        return
    head = json.dumps(_head(report), indent=2, ensure_ascii=True)
    yield head.removesuffix("\n}")
    encode = json.JSONEncoder(ensure_ascii=True).encode
    for name, entries in _lists(report).items():
        yield f',\n  "{name}": ['
        separator = "\n    "
        while batch := [encode(entry) for entry in islice(entries, _PIECE)]:
            yield separator + ",\n    ".join(batch)
            separator = ",\n    "
        yield "\n  ]" if separator.startswith(",") else "]"
    yield "\n}\n"


def document(report: Report) -> dict[str, Any]:
    """Give the report as plain dictionaries and lists."""
    return {**_head(report), **{name: list(entries) for name, entries in _lists(report).items()}}


def _head(report: Report) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": report.tool, "version": report.version},
        **({"generated": report.generated} if report.generated else {}),
        "host": dict(report.host),
        "summary": _summary(report),
    }


def _lists(report: Report) -> dict[str, Iterator[dict[str, Any]]]:
    return {
        "targets": map(_target, report.targets),
        "paths": map(_path, report.paths),
        "findings": map(_finding, report.findings),
        "unknown": map(_unknown, report.unknown),
        "not_applicable": map(_not_applicable, report.not_applicable),
        "errors": map(_problem, report.problems),
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
        "policy": None if report.policy is None else asdict(report.policy),
        "files": None if report.files is None else asdict(report.files),
    }


#: by name, since asdict() copies each of their values
_SUMMARY = tuple([each.name for each in fields(TargetSummary) if each.name not in {"exposure", "pod"}])


def _target(target: TargetSummary) -> dict[str, Any]:
    values = [(name, getattr(target, name)) for name in _SUMMARY]
    plain = {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value for name, value in values
    }
    plain["exposure"] = _exposure(target.exposure)
    plain["pod"] = None if target.pod is None else _pod(target.pod)
    return plain


def _exposure(exposure: Exposure) -> dict[str, Any]:
    lines = [{"points": each.points, "source": each.source, "reason": each.reason} for each in exposure.lines]
    return {"score": exposure.score, "lines": lines}


def _pod(pod: PodStandards) -> dict[str, Any]:
    violations = [
        {"level": each.level, "control": each.control, "title": each.title, "location": _where(each.location)}
        for each in pod.violations
    ]
    return {"pod": pod.pod, "violations": violations}


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
        "basis": path.basis,
        "graph": graph.of(path),
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
        "standards": _standards(finding.standards),
        "fingerprint": finding.fingerprint,
    }


def _standards(standards: Standards) -> dict[str, Any]:
    return {
        "cis": list(standards.cis),
        "attack": list(standards.attack),
        "cwe": list(standards.cwe),
        "cve": list(standards.cve),
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
