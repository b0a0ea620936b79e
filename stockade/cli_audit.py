"""The command `stockade audit`: collect, judge, render. It stands beside stockade.cli since it needs reports and audit.

Exit codes in every format: 0 pass, 1 the policy of --fail-on failed, 2 usage, 3 nothing to audit, 4 it failed itself.
"""

from __future__ import annotations

import gc
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from stockade import __version__
from stockade.errors import UsageError, coloured, printable
from stockade.help import Command

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from stockade.audit.report import Report

FORMATS = ("text", "json", "html")
SEVERITIES = ("info", "low", "medium", "high", "critical")

_EXAMPLES = (
    ("stockade audit", "every container of this host, as root"),
    ("stockade audit pid:1234 --seccomp-filters", "one process, with the system calls that its filter lets through"),
    ("stockade audit container:web --format html --output web.html", "a report to hand over"),
    ("stockade audit all --fail-on high", "a gate for CI: exit code 1 when something is high or critical"),
    ("stockade audit --explain MNT-SOCK", "what a finding means and what to do about it"),
)


def complete_target(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the forms of a target and the names of Stockade's own containers."""
    from click.shell_completion import CompletionItem

    from stockade.audit.targets import own

    names = ["all", "self", "pid:", *(f"container:{state.name}" for state in own.states())]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_rule(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the ids of rules, conditions and paths."""
    from click.shell_completion import CompletionItem

    from stockade.audit.paths import PATHS
    from stockade.audit.rules import RULES

    ids = {*RULES, *(path.id for path in PATHS), *(each for rule in RULES.values() for each in rule.conditions)}
    return [CompletionItem(name) for name in sorted(ids) if name.startswith(incomplete)]


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("targets", nargs=-1, metavar="[TARGET...]", shell_complete=complete_target)
@click.option("--format", "style", type=click.Choice(FORMATS), default="text", show_default=True, help="How to say it.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write to this file, whole or not at all.")
@click.option("--fail-on", type=click.Choice(SEVERITIES), help="Exit with 1 when a finding is at least this bad.")
@click.option(
    "--seccomp-filters", is_flag=True, help="Read the real filters: stops each process for 0.2 ms, needs CAP_SYS_ADMIN."
)
@click.option("--explain", metavar="RULE", shell_complete=complete_rule, help="Explain a rule, condition or path.")
@click.option("--list-rules", is_flag=True, help="List all rules and attack paths.")
def audit(targets: tuple[str, ...], style: str, output: str | None, **options: Any) -> int:
    """Tell how a container could reach the host, from what the kernel says of it while it runs.

    A TARGET is pid:N, container:NAME (a name, or the beginning of an id, of Stockade, Docker, Podman and others), self
    (whoever started the audit) or all, which is the default: every container-like group of processes of this host.

    Nothing is changed: files that could be written are opened and closed, filters are evaluated and not fired at.
    """
    if output is not None:
        from stockade.output import check

        check(output)
    if options["list_rules"] or options["explain"] is not None:
        _write(_explained(options["explain"], style), output)
        return 0
    report = _report(targets, options["fail_on"], seccomp_filters=options["seccomp_filters"])
    _write(_rendered(report, style, output), output)
    from stockade.audit.engine import exit_code

    code = exit_code(report)
    if code == 3:
        _note("there is no container on this host")
    return code


def _explained(name: str | None, style: str) -> str:
    from stockade.audit import explain

    if style == "html":
        raise UsageError("the rules have no HTML form", hint="--format text or json")
    if style == "json":
        return explain.as_json(name)
    return explain.listing() if name is None else explain.explain(name)


def _report(targets: tuple[str, ...], fail_on: str | None, *, seccomp_filters: bool) -> Report:
    from stockade.audit import engine
    from stockade.audit.report import Severity
    from stockade.audit.targets import live
    from stockade.audit.targets.shared import Options

    # The facts of a thousand targets are millions of objects without a circle, and each collection walks them all.
    gc.disable()
    try:
        collected = live.audit_targets(targets, Options(seccomp_filters=seccomp_filters), _progress())
        for note in collected.notes:
            _note(note)
        report = engine.audit(
            collected.targets,
            fail_on=Severity[fail_on.upper()] if fail_on else None,
            version=__version__,
            generated=live.stamp(),
        )
    finally:
        gc.enable()
    # What was not looked at belongs into the report as well as on the terminal.
    notes = {"not looked at": "; ".join(collected.notes)} if collected.notes else {}
    return replace(report, host={**report.host, **notes})


def _rendered(report: Report, style: str, output: str | None) -> str:
    if style == "json":
        from stockade.reports import json_

        return json_.render(report)
    if style == "html":
        from stockade.reports import html

        return html.render(report)
    from stockade.reports import text

    if output is None and coloured(sys.stdout):
        return text.render(report, colour=True, width=shutil.get_terminal_size().columns)
    return text.render(report)


def _write(text: str, output: str | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    from stockade.output import write

    write(text, output)


def _note(text: str) -> None:
    click.echo(f"stockade: {printable(text)}", err=True)


def _progress() -> Any:
    """Show how far it is, on a terminal and for many targets only. Without a thread: the probe forks."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None

    def show(done: int, of: int) -> None:
        if of >= 50 and done % 10 == 0:
            sys.stderr.write(f"\r\x1b[K{done} of {of} containers" if done + 10 < of else "\r\x1b[K")
            sys.stderr.flush()

    return show
