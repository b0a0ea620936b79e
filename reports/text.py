"""The report as text: for a terminal with colour, for a pipe or a file without and with one line a line."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from stockade.audit.redact import visible
from stockade.audit.report import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.table import Table
    from rich.text import Text

    from stockade.audit.report import Finding, NotApplicable, Path, Report, TargetSummary, Unknown

_STYLES = {
    Severity.CRITICAL: "bold white on red",
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}
_KINDS = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time")
#: so many conditions of one finding are named
_CONDITIONS = 5
#: so many targets' scores are explained
_EXPLAINED = 20
#: of more targets only the worst are in the table, which takes milliseconds a row
_ROWS = 100
#: what a pipe gets: no line is ever broken, only the table's cells
_PLAIN_WIDTH = 120


def render(report: Report, *, colour: bool = False, width: int = _PLAIN_WIDTH) -> str:
    """Give the report as text, attack paths first. Without `colour` it is plain and the same everywhere.

    `width` is the terminal's in columns; without colour lines aren't wrapped.
    """
    from rich.console import Console  # 100 ms: only who wants text pays for it
    from rich.padding import Padding

    out = io.StringIO()
    console = Console(
        file=out,
        width=max(width, 60),
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},
    )
    for block in _blocks(report):
        if isinstance(block, _Line) and colour:
            console.print(Padding(block.text, (0, 0, 0, block.indent), expand=False))
        elif isinstance(block, _Line):
            out.write(" " * block.indent + block.text.plain + "\n")
        else:
            console.print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().split("\n"))


class _Line(NamedTuple):
    text: Text
    indent: int


def _blocks(report: Report) -> Iterator[_Line | Table]:
    yield _head(report)
    if report.paths:
        yield from _title("Attack paths")
        for path in report.paths:
            yield from _path(path)
    containers = [target for target in report.targets if target.kind != "host"]
    if containers:
        yield from _title("Targets")
        yield _table(_worst(containers))
        if len(containers) > _ROWS:
            yield _text(f"and {len(containers) - _ROWS} more with less to say; --format json has all")
        yield from _exposures(containers)
    if report.findings:
        yield from _title("Findings")
        for finding in report.findings:
            yield from _finding(finding)
    if report.problems:
        yield from _title("Not read")
        for problem in report.problems:
            yield _text((f"{problem.location}: ", "bold"), problem.message)
    yield from _missing("Not checked", report.unknown)
    yield from _missing("Not applicable", report.not_applicable)
    yield from _pods(report)
    yield from _verdict(report)


def _text(*parts: tuple[str, str] | str, indent: int = 0) -> _Line:
    """Make a line of parts with styles; what a container chose is made visible and can't style itself."""
    from rich.text import Text

    line = Text.assemble(
        *[(visible(part), "") if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts]
    )
    return _Line(line, indent)


def _title(title: str) -> Iterator[_Line]:
    yield _text("")
    yield _text((title.upper(), "bold"))


def _severity(severity: Severity) -> tuple[str, str]:
    return (f"{severity.label:<8}", _STYLES[severity])


def _head(report: Report) -> _Line:
    counts = [(severity, report.count(severity)) for severity in reversed(Severity)]
    parts: list[tuple[str, str] | str] = [(_many(len(report.paths), "attack path"), "bold")]
    for severity, number in counts:
        if number:
            parts += [", ", (f"{number} {severity.label}", _STYLES[severity])]
    audited = sum(target.kind != "host" for target in report.targets)
    parts.append(f" in {_many(audited, 'target')}, {len(report.unknown)} not checked")
    if report.files:
        parts.append(f"; {_many(report.files.audited, 'file')}, {report.files.passed_over} passed over")
    if report.problems:
        parts += [", ", (f"{_many(report.files.failed if report.files else 0, 'file')} not read", "bold red")]
    return _text(*parts)


def _many(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _path(path: Path) -> Iterator[_Line]:
    yield _text(_severity(path.severity), " ", (path.id, "bold"), f" {path.target}: {path.title}")
    for number, line in enumerate(path.evidence, 1):
        yield _text((f"{number}. ", "dim"), line, indent=9)
    yield _text(("effect: ", "bold"), path.effect, indent=9)
    yield _text(("break it: ", "bold green"), path.fix, indent=9)
    yield _text(("shown by: ", "dim"), (path.proof, "dim"), indent=9)


def _finding(finding: Finding) -> Iterator[_Line]:
    more = f" and {len(finding.conditions) - _CONDITIONS} more" if len(finding.conditions) > _CONDITIONS + 1 else ""
    named = finding.conditions[:_CONDITIONS] if more else finding.conditions
    rule = f"  [{finding.rule}: {', '.join(named)}{more}]"
    yield _text(_severity(finding.severity), f" {finding.target}: ", (finding.title, "bold"), (rule, "dim"))
    for line in finding.evidence:
        yield _text(line, indent=9)
    yield _text(("why: ", "bold"), " ".join(finding.why.split()), indent=9)
    yield _text(("fix: ", "bold green"), finding.fix, indent=9)


def _worst(targets: list[TargetSummary]) -> list[TargetSummary]:
    """Give all targets, or of very many those with the worst findings, in the report's order."""
    if len(targets) <= _ROWS:
        return targets
    worst = sorted(targets, key=lambda target: [-number for number in target.counts.values()])[:_ROWS]
    names = {target.id for target in worst}
    return [target for target in targets if target.id in names]


def _table(targets: Iterable[TargetSummary]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    heads = ("target", "user", "capabilities", "nnp", "seccomp", "shared with host", "limits", "findings", "exposure")
    for head in heads:
        table.add_column(head, overflow="fold")
    for target in targets:
        cells = (target.id, _user(target), _capabilities(target), _known(target.no_new_privs), target.seccomp or "?",
                 _shared(target), _limits(target), _counts(target), f"{target.exposure.score:g}")  # fmt: skip
        table.add_row(*[Text(visible(cell)) for cell in cells])
    return table


def _exposures(targets: Iterable[TargetSummary]) -> Iterator[_Line]:
    """Explain the scores, the most exposed targets first."""
    exposed = sorted((each for each in targets if each.exposure.lines), key=lambda each: -each.exposure.score)
    if exposed:
        yield from _title("Exposure, 0 to 100")
    for target in exposed[:_EXPLAINED]:
        lines = [f"{each.points:g} {each.source} ({each.reason})" for each in target.exposure.lines]
        yield _text((f"{target.exposure.score:>5g}", "bold"), f" {target.id} = {' + '.join(lines)}")
    if exposed[_EXPLAINED:]:
        yield _text(f"      and {len(exposed) - _EXPLAINED} more targets, which the JSON report explains")


def _pods(report: Report) -> Iterator[_Line]:
    if report.policy is None or report.policy.pods is None:
        return
    yield from _title(f"Pods by {report.policy.name}")
    for pod in report.policy.pods:
        word = ("passed", "green") if pod.passed else ("failed", "bold red")
        yield _text(word, f"  {pod.pod}" + ("" if pod.passed else f": {_many(pod.violations, 'violation')}"))


def _user(target: TargetSummary) -> str:
    return f"{_known(target.uid)}, host {_known(target.host_uid)}"


def _known(value: object) -> str:
    return "?" if value is None else "yes" if value is True else "no" if value is False else str(value)


def _capabilities(target: TargetSummary) -> str:
    if target.capabilities is None:
        return "?"
    names = target.capabilities.effective
    return (
        " ".join(name.removeprefix("CAP_") for name in names[:6]) + (f" +{len(names) - 6}" if names[6:] else "")
        or "none"
    )


def _shared(target: TargetSummary) -> str:
    shared = [kind for kind in _KINDS if target.namespaces.get(kind) == "host"]
    unknown = [f"{kind}?" for kind in _KINDS if target.namespaces.get(kind, "unknown") == "unknown"]
    return " ".join(shared + unknown) or "none"


def _limits(target: TargetSummary) -> str:
    return ", ".join(f"{name} {amount}" for name, amount in target.limits.items()) or "?"


def _counts(target: TargetSummary) -> str:
    found = [f"{number} {label}" for label, number in target.counts.items() if number]
    return ", ".join(found) or "none"


def _missing(title: str, entries: Iterable[Unknown | NotApplicable]) -> Iterator[_Line]:
    # what holds for many targets is said once, and what a rule lacks in one line
    lacks: dict[tuple[str, str], list[str]] = {}
    for each in entries:
        lacks.setdefault((each.target, each.rule), []).append(each.reason)
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for (target, rule), reasons in lacks.items():
        rules, targets = groups.setdefault("; ".join(dict.fromkeys(reasons)), ([], []))
        rules.append(rule)
        targets.append(target)
    if groups:
        yield from _title(title)
    for reason, (rules, targets) in groups.items():
        names = list(dict.fromkeys(targets))
        who = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
        yield _text(f"{who}: {reason}  ", (f"[{', '.join(dict.fromkeys(rules))}]", "dim"))


def _verdict(report: Report) -> Iterator[_Line]:
    threshold = report.verdict.threshold
    if threshold is None:
        return
    yield _text("")
    if report.verdict.passed:
        yield _text(("PASSED: ", "bold green"), f"nothing of severity {threshold.label} or worse")
    else:
        yield _text(("FAILED: ", "bold red"), f"{report.verdict.failed} of severity {threshold.label} or worse")
