"""The command `stockade audit`: collect, judge, render. It stands beside stockade.cli since it needs reports and audit.

Exit codes in every format: 0 pass, 1 the policy of --fail-on failed, 2 usage, 3 nothing to audit, 4 it failed itself.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from stockade import __version__
from stockade.errors import StockadeError, UsageError, coloured, printable, show
from stockade.help import Command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem

    from stockade.audit.facts import Target
    from stockade.audit.report import Report
    from stockade.audit.static.files import Collected

FORMATS = ("text", "json", "html")
#: so many unreadable files are named on the terminal
_TOLD = 20
SEVERITIES = ("info", "low", "medium", "high", "critical")

#: what runs is named by its kind and a colon, such as pid:17
_LIVE = re.compile(r"[a-z]{2,}:(?!.*/)")

_EXAMPLES = (
    ("stockade audit", "every container of this host, as root"),
    ("stockade audit pid:1234 --seccomp-filters", "one process, with the system calls that its filter lets through"),
    ("stockade audit host", "the host itself: its kernel's settings, its engines and who may use them"),
    ("stockade audit watch", "each container as it starts, until Ctrl-C"),
    ("stockade audit container:web --format html --output web.html", "a report to hand over"),
    ("stockade audit compose.yml Dockerfile k8s/", "what files declare; directories are searched"),
    ("helm template . | stockade audit - --fail-on high", "a gate for CI: exit code 1 when something is high or worse"),
    ("stockade audit --explain MNT-SOCK", "what a finding means and what to do about it"),
)


def complete_target(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the forms of a target and the names of Stockade's own containers."""
    from click.shell_completion import CompletionItem

    from stockade.audit.targets import own

    names = ["all", "host", "self", "watch", "pid:", *(f"container:{state.name}" for state in own.states())]
    offered = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    # the shell itself completes paths, which it knows better; it replaces the names, so only where none fits
    return offered if offered and "/" not in incomplete else [CompletionItem(incomplete, type="file")]


def complete_rule(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the ids of rules, conditions and paths."""
    from click.shell_completion import CompletionItem

    from stockade.audit.paths import PATHS
    from stockade.audit.rules import RULES

    ids = {*RULES, *(path.id for path in PATHS), *(each for rule in RULES.values() for each in rule.conditions)}
    return [CompletionItem(name) for name in sorted(ids) if name.startswith(incomplete)]


def complete_policy(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the policies that come with Stockade, and files."""
    from click.shell_completion import CompletionItem

    from stockade import profiles

    names = [CompletionItem(name) for name in profiles.names("policy") if name.startswith(incomplete)]
    return names if names and "/" not in incomplete else [CompletionItem(incomplete, type="file")]


@click.command(cls=Command, examples=_EXAMPLES)
@click.argument("targets", nargs=-1, metavar="[TARGET|FILE|DIR|-]...", shell_complete=complete_target)
@click.option("--format", "style", type=click.Choice(FORMATS), default="text", show_default=True, help="How to say it.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write to this file, whole or not at all.")
@click.option("--policy", default="default", show_default=True, metavar="NAME|FILE", shell_complete=complete_policy,
              help="Which rules count: default, all, pss-baseline, pss-restricted, or a TOML file.")  # fmt: skip
@click.option("--fail-on", type=click.Choice(SEVERITIES), help="Exit with 1 when a finding is at least this bad.")
@click.option(
    "--seccomp-filters", is_flag=True, help="Read the real filters: stops each process for 0.2 ms, needs CAP_SYS_ADMIN."
)
@click.option("--explain", metavar="RULE", shell_complete=complete_rule, help="Explain a rule, condition or path.")
@click.option("--list-rules", is_flag=True, help="List all rules and attack paths.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes that read files.  [default: one a processor]")
@click.option("-v", "--verbose", is_flag=True, help="Name the files that were passed over.")
def audit(targets: tuple[str, ...], style: str, output: str | None, **options: Any) -> int:
    """Tell how a container could reach the host: what the kernel says of a running one, what a file declares of one.

    A TARGET is pid:N, container:NAME (a name, or the beginning of an id, of Stockade, Docker, Podman and others), self
    (whoever started the audit), host (its kernel and its engines) or all, which is the default: every container-like
    group of processes of this host.

    watch alone follows containers as they start and stop, audits each once, and prints a JSON line for each event.

    A FILE is a compose file, a Kubernetes manifest, a Dockerfile, an OCI config.json, the output of docker inspect or
    podman inspect, an image, a Quadlet or a systemd unit; which one is told by its content. A DIR is searched for them,
    without what .gitignore excludes; - is standard input. Targets and files can be mixed.

    Nothing is changed: files that could be written are opened and closed, filters are evaluated and not fired at.
    """
    if output is not None:
        from stockade.output import check

        check(output)
    if options["list_rules"] or options["explain"] is not None:
        _write(_explained(options["explain"], style), output)
        return 0
    if targets == ("watch",):
        return _watched(output, options)
    report = _report(targets, options)
    _write(_rendered(report, style, output), output)
    from stockade.audit.engine import exit_code

    code = exit_code(report)
    if code == 3 and "host" in targets:
        return 0
    if code == 3:
        _note("there is no container on this host" if report.files is None else "no file there declares a container")
    return code


def _watched(output: str | None, options: dict[str, Any]) -> int:
    """Follow containers until an interrupt; with --fail-on the exit code tells of the worst."""
    from stockade.audit import watch
    from stockade.audit.report import Severity
    from stockade.audit.targets.shared import Options

    if output is not None:
        raise UsageError("watch writes as it goes, and has no --output", hint="stockade audit watch > FILE")
    worst = watch.watch(_streamed, Options(seccomp_filters=options["seccomp_filters"]))
    fail_on = options["fail_on"]
    return int(worst is not None and fail_on is not None and worst >= Severity[fail_on.upper()])


def _streamed(line: str) -> None:
    click.echo(line, nl=False)  # flushes


def _explained(name: str | None, style: str) -> str:
    from stockade.audit import explain

    if style == "html":
        raise UsageError("the rules have no HTML form", hint="--format text or json")
    if style == "json":
        return explain.as_json(name)
    return explain.listing() if name is None else explain.explain(name)


def _report(arguments: tuple[str, ...], options: dict[str, Any]) -> Report:
    from stockade.audit import engine, policy
    from stockade.audit.report import Severity

    chosen = policy.load(options["policy"])  # a wrong name is told before an hour of work

    files = tuple([argument for argument in arguments if _is_file(argument)])
    live = tuple([argument for argument in arguments if not _is_file(argument)])
    # The facts of a thousand targets are millions of objects without a circle, and each collection walks them all.
    gc.disable()
    try:
        targets, notes = _live(live, options) if live or not files else ((), ())
        declared = _declared(files, options) if files else None
        report = engine.audit(
            targets,
            judged=declared.judged if declared else (),
            fail_on=Severity[options["fail_on"].upper()] if options["fail_on"] else None,
            version=__version__,
            generated=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
    finally:
        gc.enable()
    report = chosen.apply(report)
    # What was not looked at belongs into the report as well as on the terminal.
    rows = {"not looked at": "; ".join(notes)} if notes else {}
    report = replace(report, host={**report.host, **rows})
    return replace(report, problems=declared.problems, files=declared.files) if declared else report


def _is_file(argument: str) -> bool:
    """Tell a path from the name of something that runs; a file that is called like a target is written ./all."""
    if argument in {"all", "self", "host", "watch"} or _LIVE.match(argument):
        return False
    return argument == "-" or "/" in argument or "." in argument or os.path.lexists(argument)


def _live(arguments: tuple[str, ...], options: dict[str, Any]) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    from stockade.audit.targets import live
    from stockade.audit.targets.shared import Options

    collected = live.audit_targets(
        arguments, Options(seccomp_filters=options["seccomp_filters"]), _progress("containers")
    )
    for note in collected.notes:
        _note(note)
    return collected.targets, collected.notes


def _declared(paths: tuple[str, ...], options: dict[str, Any]) -> Collected:
    from stockade.audit.static import files

    collected = files.audit_files(paths, jobs=options["jobs"], progress=_progress("files"))
    for problem in collected.problems[:_TOLD]:
        show(StockadeError(f"{problem.location}: {problem.message}", hint=problem.hint))
    if collected.problems[_TOLD:]:
        _note(f"and {len(collected.problems) - _TOLD} more errors, which are in the report")
    if options["verbose"]:
        for path in collected.passed_over:
            _note(f"{path}: passed over, it declares no container")
    return collected


def _rendered(report: Report, style: str, output: str | None) -> str | Iterable[str]:
    if style == "json":
        from stockade.reports import json_

        return json_.pieces(report)
    if style == "html":
        from stockade.reports import html

        return html.render(report)
    from stockade.reports import text

    if output is None and coloured(sys.stdout):
        return text.render(report, colour=True, width=shutil.get_terminal_size().columns)
    return text.render(report)


def _write(text: str | Iterable[str], output: str | None) -> None:
    if output is None:
        for piece in (text,) if isinstance(text, str) else text:
            click.echo(piece, nl=False)
        return
    from stockade.output import write

    write(text, output)


def _note(text: str) -> None:
    click.echo(f"stockade: {printable(text)}", err=True)


def _progress(noun: str) -> Any:
    """Show how far it is, on a terminal and for many targets only. Without a thread: the probe forks."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None

    def tell(done: int, of: int) -> None:
        if of >= 50 and done % 10 == 0:
            sys.stderr.write(f"\r\x1b[K{done} of {of} {noun}" if done + 10 < of else "\r\x1b[K")
            sys.stderr.flush()

    return tell
