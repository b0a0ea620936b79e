"""Reports of recorded facts: no kernel is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stockade.audit import recorded
from stockade.audit.engine import audit
from stockade.audit.report import Severity
from stockade.audit.rules import RULES

if TYPE_CHECKING:
    from stockade.audit.report import Report

SOCKET = """
[[EngineSocket]]
path = "/run/docker.sock"
engine = "docker"
permitted = true

[NoNewPrivs]
value = false

[[CgroupLimit]]
name = "pids"
value = "max"

[Host]
apparmor = false
selinux = false
"""
HOST = """
[[Namespace]]
kind = "user"
host = true
"""
BLIND = """
absent = ["SeccompFilter", "Mount", "CgroupLimit"]

[NoNewPrivs]
value = false
"""


def three() -> Report:
    """One container that is privileged, one with an engine's socket, one of which little is known."""
    (bad, *_) = [example.text for example in RULES["privileged"].text.examples if example.bad]
    targets = [recorded.load(bad + HOST, "weak"), recorded.load(SOCKET, "socket"), recorded.load(BLIND, "blind")]
    return audit(targets, fail_on=Severity.HIGH, version="1.0", generated="2026-01-02T03:04:05Z")


def many(targets: int, findings: int) -> Report:
    """As many targets and findings as asked for; every third target is one of the three."""
    small = three()
    containers = [target for target in small.targets if target.kind != "host"]
    kinds = {f"container:web-{number}": containers[number % 3] for number in range(targets)}
    names = list(kinds)
    spread = [
        replace(
            small.findings[number % len(small.findings)], target=names[number % targets], fingerprint=f"{number:016x}"
        )
        for number in range(findings)
    ]
    spread = [replace(one, title=f"{one.title} ({number % 100})") for number, one in enumerate(spread)]
    paths = [
        replace(path, target=name, fingerprint=f"{number:016x}")
        for number, name in enumerate(names)
        for path in small.paths
        if path.target == kinds[name].id
    ]
    return replace(
        small,
        targets=tuple([replace(kind, id=name, name=name) for name, kind in kinds.items()]),
        findings=tuple(sorted(spread, key=lambda finding: (-finding.severity, finding.target))),
        paths=tuple(sorted(paths, key=lambda path: (-path.severity, path.id, path.target))),
        unknown=tuple([replace(each, target=name) for name in names for each in small.unknown[:5]]),
    )
