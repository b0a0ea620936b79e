"""From paths to judged targets: finds files, reads them, gives each to its collector, several processes at once.

A file is one unit of work: what goes wrong with it, be it a crash of a C library, is one problem that names it, and
the others are audited all the same.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module

from stockade.audit.documents import kinds, walk
from stockade.audit.documents.load import Broken
from stockade.audit.documents.walk import Entry
from stockade.audit.facts import Target, Where
from stockade.audit.report import Files, Judged, Problem
from stockade.audit.static import COLLECTORS, companions
from stockade.errors import StockadeError

Progress = Callable[[int, int], None]

#: fewer files than this are read by the process itself: another one costs 20 ms
_FEW = 24


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file. `kind` is None where it declares no container and was passed over."""

    path: str
    kind: str | None = None
    judged: tuple[Judged, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Collected:
    """All that was found below some paths, in the order of the paths."""

    judged: tuple[Judged, ...] = ()
    problems: tuple[Problem, ...] = ()
    files: Files = field(default_factory=Files)
    passed_over: tuple[str, ...] = ()


def audit_files(paths: Sequence[str], *, jobs: int | None = None, progress: Progress | None = None) -> Collected:
    """Judge all files below `paths` ("-" is standard input) in `jobs` processes, by default one a processor.

    `progress` is called with how many of how many files are done. Raises nothing for files: they become problems.
    """
    found = list(walk.entries(paths))
    entries = [each for each in found if isinstance(each, Entry)]
    lost = [problem(each) for each in found if isinstance(each, Broken)]
    companions.remember(entry.path for entry in entries)
    wanted = jobs or len(os.sched_getaffinity(0))
    if wanted > 1 and len(entries) >= _FEW:
        from stockade.audit.static import workers

        outcomes = workers.outcomes(entries, wanted, progress)
    else:
        outcomes = [_counted(entry, number, len(entries), progress) for number, entry in enumerate(entries)]
    return _together(outcomes, lost)


def _counted(entry: Entry, number: int, of: int, progress: Progress | None) -> Outcome:
    if progress:
        progress(number, of)
    return audit_file(entry)


def _together(outcomes: Sequence[Outcome], lost: Sequence[Problem]) -> Collected:
    problems = (*lost, *(each for outcome in outcomes for each in outcome.problems))
    over = tuple([outcome.path for outcome in outcomes if outcome.kind is None and not outcome.problems])
    failed = len(lost) + sum(bool(outcome.problems) for outcome in outcomes)
    return Collected(
        judged=tuple(_unique([each for outcome in outcomes for each in outcome.judged])),
        problems=problems,
        files=Files(len(outcomes) + len(lost) - failed - len(over), len(over), failed),
        passed_over=over,
    )


def _unique(judged: Sequence[Judged]) -> list[Judged]:
    """Give each target a name of its own: a file may declare the same object twice, and both count."""
    seen: dict[str, int] = {}
    found = []
    for one in judged:
        name = one.summary.id
        seen[name] = seen.get(name, 0) + 1
        found.append(one if seen[name] == 1 else _renamed(one, f"{name}#{seen[name]}"))
    return found


def _renamed(one: Judged, name: str) -> Judged:
    return Judged(
        replace(one.summary, id=name),
        tuple([replace(each, target=name) for each in one.findings]),
        tuple([replace(each, target=name) for each in one.paths]),
        tuple([replace(each, target=name) for each in one.unknown]),
        one.not_applicable,
    )


def audit_file(entry: Entry) -> Outcome:
    """Read, recognise and judge one file. Whatever goes wrong becomes the file's problem."""
    source = walk.read(entry)
    if source is None:
        return Outcome(entry.path)
    if isinstance(source, Broken):
        return Outcome(entry.path, problems=(problem(source),))
    kind = kinds.recognise(source)
    if kind is None or kind not in COLLECTORS:
        return _unrecognised(entry)
    judged: list[Judged] = []
    problems: list[Problem] = []
    try:
        for each in _targets(source, kind):
            _keep(each, judged, problems)
    except kinds.NotOne as other:
        return _unrecognised(entry, other.broken)
    except Exception as error:  # noqa: BLE001 -- a collector that trips over one file must not hide all others
        problems.append(_from(error, source.path))
    return Outcome(source.path, kind, tuple(judged), tuple(problems))


def _from(error: Exception, path: str) -> Problem:
    """Turn what a collector raised into what is told of its file."""
    if isinstance(error, Broken):
        return problem(error)
    if isinstance(error, StockadeError):
        return Problem(Where(path), error.message, error.hint)
    if isinstance(error, OSError):
        return Problem(Where(path), (error.strerror or str(error)).lower())
    if isinstance(error, RecursionError):
        return Problem(Where(path), "nested too deep")
    if isinstance(error, MemoryError):
        return Problem(Where(path), "too big for this memory")
    return _internal(path, error)


def _keep(each: Target | Broken, judged: list[Judged], problems: list[Problem]) -> None:
    """Judge a target; a collector gives a Broken where one part of the file is, and raises it for all of it."""
    if isinstance(each, Broken):
        problems.append(problem(each))
    else:
        judged.append(_judge(each))


def _targets(source: walk.Source, kind: str) -> Iterator[Target | Broken]:
    try:
        collector = import_module(COLLECTORS[kind])
    except ModuleNotFoundError as error:
        if error.name != COLLECTORS[kind]:
            raise
        raise StockadeError(f"files of kind {kind} can't be audited by this version") from None
    if not hasattr(collector, "targets"):
        raise StockadeError(f"files of kind {kind} can't be audited by this version")
    yield from collector.targets(source)


# Of each reason why rules have no meaning for files this process has told once: there are as many as targets.
_TOLD: set[tuple[str, str]] = set()


def _judge(target: Target) -> Judged:
    """Judge a target. What has no meaning for files is told once and of them all ("*"), not of each target."""
    from stockade.audit.engine import judge

    judged = judge(target)
    news = [each for each in judged.not_applicable if (each.rule, each.reason) not in _TOLD]
    _TOLD.update([(each.rule, each.reason) for each in news])
    return replace(judged, not_applicable=tuple([replace(each, target="*") for each in news]))


def _unrecognised(entry: Entry, broken: Broken | None = None) -> Outcome:
    """Pass over what declares no container; where it was asked for by name, that is a problem."""
    if not entry.named:
        return Outcome(entry.path)
    if broken is not None:
        return Outcome(entry.path, problems=(problem(broken),))
    name = walk.STDIN if entry.path == "-" else entry.path
    return Outcome(
        name,
        problems=(
            Problem(
                Where(name),
                "this declares no container that is known here",
                "compose, Kubernetes, Dockerfile, OCI config.json, inspect output, image, Quadlet or systemd unit",
            ),
        ),
    )


def problem(broken: Broken) -> Problem:
    """Give an unreadable file the form in which it is reported."""
    return Problem(broken.where, broken.text, broken.hint)


def _internal(path: str, error: Exception) -> Problem:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})" if trace else ""
    return Problem(
        Where(path), f"internal error: {type(error).__name__}: {error}{place}", "please report it with the file"
    )
