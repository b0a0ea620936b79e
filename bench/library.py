"""The library path: `Sandbox.run(["/bin/true"])` against plain C and against bubblewrap."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench import description, processes
from bench.measure import Subject, Table, interleave, repeat
from stockade import Sandbox
from stockade.sandbox import container, steps
from stockade.sandbox.plan import plan

if TYPE_CHECKING:
    from collections.abc import Callable

    Batch = Callable[[int], list[float]]

PROGRAM = "/bin/true"
#: seconds between single calls
PAUSE = 0.01
#: the call that bwrap(1) shows first, with what makes it a sandbox
USUAL = [
    *("bwrap", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
    *("--unshare-all", "--die-with-parent", PROGRAM),
]


def launches(scratch: str, rounds: int) -> Table:
    """One launch after another, each waited for: how much of them a machine can do."""
    title = "Library, without a pause: one program with all seven namespaces and the default filter"
    return _compared(title, scratch, rounds, 20, lambda batch: batch)


def calls(scratch: str, rounds: int) -> Table:
    """One launch at a time, with a pause before each: how long a caller waits who has something else to do between."""
    title = f"Library, single calls with {PAUSE * 1e3:.0f} ms between them: the same program, the same sandbox"
    return _compared(title, scratch, rounds, 10, _paused)


def _paused(batch: Batch) -> Batch:
    def measured(count: int) -> list[float]:
        times = []
        for _ in range(count):
            time.sleep(PAUSE)  # what the call before has left to do is done then
            times += batch(1)
        return times

    return measured


def _compared(title: str, scratch: str, rounds: int, each: int, how: Callable[[Batch], Batch]) -> Table:
    prepared = description.prepare()
    baseline = _baseline(prepared, scratch)
    warm, cold = Sandbox(), Sandbox(ahead=0)
    subjects = [
        Subject("plain C, fork and mount(2)", how(baseline.batch)),
        Subject("Sandbox.run", how(repeat(lambda: warm.run([PROGRAM])))),
        Subject("Sandbox(ahead=0).run", how(repeat(lambda: cold.run([PROGRAM])))),
    ]
    goals = [(1, 0, 1.5), (2, 0, 0.0)]
    if shutil.which("bwrap"):
        subjects.append(Subject("bwrap, the same sandbox", how(_bubblewrap(prepared))))
        subjects.append(Subject("bwrap, a usual call, no filter", how(repeat(lambda: processes.captured(USUAL)))))
        goals += [(1, 3, 0.25), (1, 4, 0.0)]
    interleave(subjects, rounds=rounds, each=each)
    baseline.close()
    warm.close()
    return Table(title, subjects, goals)


def _baseline(prepared: container.Prepared, scratch: str) -> processes.Timed:
    program = processes.compiled("baseline", scratch)
    root, described, filter_file = (os.path.join(scratch, name) for name in ("root", "description", "filter"))
    os.mkdir(root)
    with open(described, "w", encoding="utf-8") as file:
        file.write(description.describe(prepared, root))
    with open(filter_file, "wb") as binary:
        binary.write(prepared.program)
    return processes.Timed(program, described, filter_file, PROGRAM)


def _bubblewrap(prepared: container.Prepared) -> Callable[[int], list[float]]:
    walked = plan(prepared.spec, container.options(prepared, None, 0)).child
    files = {step.name: processes.memfd(step.data) for step in walked if isinstance(step, steps.WriteFile)}
    program = processes.memfd(prepared.program)
    argv = description.bubblewrap(prepared, program, files)
    descriptors = (program, *files.values())
    return lambda count: [processes.captured(argv, descriptors) for _ in range(count)]


def threads(_scratch: str, rounds: int) -> Table:
    """Seconds for a launch when so many threads of one process share a Sandbox, each launching without a pause."""
    each = 24
    sandbox = Sandbox()
    sandbox.run([PROGRAM])

    def batch(workers: int) -> Callable[[int], list[float]]:
        def measured(_count: int) -> list[float]:
            with ThreadPoolExecutor(workers) as pool:
                before = time.perf_counter()
                list(pool.map(lambda _: sandbox.run([PROGRAM]), range(each * workers)))
                return [(time.perf_counter() - before) / (each * workers)]

        return measured

    subjects = [Subject(f"{count} thread{'s' * (count > 1)}", batch(count)) for count in (1, 2, 4)]
    interleave(subjects, rounds=rounds, each=1)
    sandbox.close()
    for subject in subjects:
        subject.note = f"{1 / subject.median:.0f} launches/s"
    return Table("Threads that share one Sandbox: seconds for a launch", subjects, [(1, 0, 0.0), (2, 0, 0.0)])
