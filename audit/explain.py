"""What `audit --explain` prints and docs/rules.md holds: the rules in their own words.

`python -m stockade.audit.explain > docs/rules.md` writes the page; a test compares the two.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from stockade.audit.path_rule import AttackPath
from stockade.audit.paths import PATHS
from stockade.audit.rule import Need, Rule
from stockade.audit.rules import RULES
from stockade.errors import UsageError

_HEAD = """# Rules

Generated from the rules themselves by `python -m stockade.audit.explain`. `stockade audit --explain ID` shows one of
them.

A rule has a usual severity, and says what raises or lowers it. The examples are recorded facts: what differs from a
well-confined container that breaks no rule.

Some questions come before all rules:

* **Whose root is it?** The ids of a process count as they are on the host. A user namespace that maps 0 to 0 is host
  root; being in a user namespace proves nothing by itself.
* **Against what does a capability count?** Only against what the process's own user namespace owns: in the initial one
  against the host, in another one against nothing of the host's.
* **Capabilities don't guard /proc/sys.** Its files ask for the uid. Host root without any capability opens core_pattern
  for writing where /proc/sys isn't read-only; the auditor opens it with the container's credentials, and never writes.
* **Does the knob belong to the container?** Sysctls of its own network, IPC and user namespaces are no finding.
* **Does the kernel have the knob?** What it lacks is "not applicable", and so is what the procfs of a guest kernel
  (gVisor, Kata) says of the guest. Neither is a pass.
* **Is it known?** A fact that is missing makes a rule "not checked"; a gate that is not known leaves its usual
  severity.

The kernel's state decides. Where a configuration says otherwise, the difference is a finding of its own.
"""


def explain(name: str) -> str:
    """Explain a rule by its id, or every rule and path for a condition such as "MNT-SOCK", in any case.

    Raises UsageError.
    """
    rules, paths = _named(name)
    return "\n".join([*map(_rule, rules), *map(_path, paths)])


def _named(name: str) -> tuple[list[Rule], list[AttackPath]]:
    wanted = name.upper().replace("_", "-")
    rules = [rule for rule in RULES.values() if wanted in {rule.id.upper().replace("_", "-"), *rule.conditions}]
    paths = [path for path in PATHS if path.id == wanted]
    if not rules and not paths:
        raise UsageError(
            f"there is no rule, condition or path {name!r}", hint="stockade audit --list-rules lists them all"
        )
    return rules, paths


def listing() -> str:
    """Give all paths and rules, a line each."""
    rows = [(path.id, path.severity.label, path.id, path.title) for path in PATHS]
    rows += [(rule.id, rule.severity.label, " ".join(rule.conditions), rule.text.title) for rule in RULES.values()]
    width = max(len(row[0]) for row in rows)
    return "".join(f"{name:<{width}}  {severity:<8}  {title}  [{ids}]\n" for name, severity, ids, title in rows)


def as_json(name: str | None = None) -> str:
    """Give the rules and paths that a name means, by default all, as JSON: {"paths": [...], "rules": [...]}.

    Raises UsageError.
    """
    rules, paths = (list(RULES.values()), PATHS) if name is None else _named(name)
    found = {
        "paths": [
            {
                "id": path.id, "severity": path.severity.label, "title": path.title, "text": path.text,
                "effect": path.effect, "proof": path.proof, "needs": list(_needs(path.needs)),
                "rests_on": list(path.rests_on),
            }
            for path in paths
        ],
        "rules": [
            {
                "id": rule.id, "severity": rule.severity.label, "conditions": list(rule.conditions),
                "subject": rule.subject, "title": rule.text.title, "why": rule.text.why, "fix": rule.text.fix,
                "severity_note": rule.text.severity, "needs": list(_needs(rule.needs)), "covers": sorted(rule.covers),
                "references": list(rule.references), "standards": asdict(rule.standards),
            }
            for rule in rules
        ],
    }  # fmt: skip
    return json.dumps(found, indent=2, ensure_ascii=True) + "\n"


def page() -> str:
    """Give docs/rules.md: all paths, then all rules by subject, after a table of contents."""
    parts = [_HEAD, "## Attack paths\n", *map(_path, PATHS)]
    for subject, rules in _subjects().items():
        parts += [f"## {subject}\n", _index(rules), *map(_rule, rules)]
    return "\n".join(parts)


def _subjects() -> dict[str, list[Rule]]:
    subjects: dict[str, list[Rule]] = {}
    for rule in RULES.values():
        subjects.setdefault(rule.subject.replace("_", " ").capitalize(), []).append(rule)
    return subjects


def _index(rules: list[Rule]) -> str:
    rows = [f"| [{rule.id}](#{rule.id}) | {rule.severity.label} | {', '.join(rule.conditions)} |" for rule in rules]
    return "\n".join(["| rule | severity | conditions |", "| --- | --- | --- |", *rows, ""])


def _rule(rule: Rule) -> str:
    lines = [
        f"### {rule.id}\n",
        f"**{rule.text.title}.** Usual severity: {rule.severity.label}. Conditions: {', '.join(rule.conditions)}.\n",
        f"{rule.text.why}\n",
    ]
    if rule.text.severity:
        lines.append(f"Severity: {rule.text.severity}\n")
    lines.append(f"Fix: {rule.text.fix}\n")
    lines.append(f"Needs: {', '.join(_needs(rule.needs))}.\n")
    if rule.covers:
        lines.append(f"Folds into one finding: {', '.join(sorted(rule.covers))}.\n")
    lines += [
        f"{'Breaks it' if example.bad else 'Does not'}:\n\n```toml\n{example.text.strip()}\n```\n"
        for example in rule.text.examples
    ]
    lines += [f"* {each}" for each in _standards(rule)]
    lines += [f"* <{reference}>" for reference in rule.references]
    return "\n".join(lines) + "\n"


def _standards(rule: Rule) -> Iterator[str]:
    """Say what others call it, in words and links."""
    standards = rule.standards
    for family, sections in (
        ("Docker Benchmark 1.6.0", [each for each in standards.cis if not each.startswith("K8S ")]),
        ("Kubernetes Benchmark 1.8", [each[4:] for each in standards.cis if each.startswith("K8S ")]),
    ):
        if sections:
            yield f"CIS {family}: {', '.join(sections)}"
    links = [f"[{each}](https://attack.mitre.org/techniques/{each.replace('.', '/')}/)" for each in standards.attack]
    if links:
        yield f"ATT&CK: {', '.join(links)}"
    links = [f"[CWE-{each}](https://cwe.mitre.org/data/definitions/{each}.html)" for each in standards.cwe]
    if links:
        yield f"CWE: {', '.join(links)}"
    if standards.cve:
        yield f"CVE: {', '.join(standards.cve)}"


def _needs(needs: tuple[Need, ...]) -> Iterator[str]:
    for need in needs:
        yield need.kind.__name__ + (" (if known)" if need.optional else "")


def _path(path: AttackPath) -> str:
    return "\n".join(
        [
            f"### {path.id}\n",
            f"**{path.title}.** {path.text} Usual severity: {path.severity.label}.\n",
            f"Effect: {path.effect}.\n",
            f"Proof without harm: {path.proof}.\n",
            f"Needs: {', '.join(_needs(path.needs))}. Rests on: {', '.join(path.rests_on)}.\n",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(page())
