"""Several processes that audit files, each at its own; one that dies takes one file with it and is replaced.

The processes are forked after everything was imported, so that they share that memory, and talk over pipes: numbers of
entries in, pickled outcomes out.
"""

import gc
import io
import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

from stockade.audit.documents import kinds
from stockade.audit.documents.walk import Entry
from stockade.audit.facts import Where
from stockade.audit.report import Exposure, ExposureLine, Finding, Judged, Problem, TargetSummary, Unknown
from stockade.audit.static.files import Outcome, audit_file

#: files that a process is given at once; enough to keep it busy while its answers are read
_BATCH = 16
#: seconds that one document may take; honest ones take milliseconds
PATIENCE = 120.0
#: and an image, which may have gigabytes to decompress
PATIENCE_WITH_IMAGES = 3600.0
_HEADER = 8
#: the last one that numbers each entry of the memo; later ones count them, and a copied memo counts from 0
_PROTOCOL = 3


@dataclass(slots=True)
class _Worker:
    pid: int
    orders: int
    answers: int
    pending: list[int] = field(default_factory=list)
    buffer: bytearray = field(default_factory=bytearray)
    since: float = 0.0


def outcomes(entries: Sequence[Entry], jobs: int, progress: Callable[[int, int], None] | None = None) -> list[Outcome]:
    """Audit all entries in `jobs` processes and give what became of each, in the same order."""
    return _Pool(entries, progress).run(min(jobs, (len(entries) + _BATCH - 1) // _BATCH))


class _Pool:
    def __init__(self, entries: Sequence[Entry], progress: Callable[[int, int], None] | None) -> None:
        self.entries = entries
        self.progress = progress
        self.waiting = list(range(len(entries) - 1, -1, -1))
        self.done: dict[int, Outcome] = {}
        self.workers: dict[int, _Worker] = {}
        _prepare()
        self.shared = _Shared()

    def run(self, jobs: int) -> list[Outcome]:
        try:
            for _ in range(jobs):
                self._start()
            while self.workers:
                self._step()
        finally:
            for worker in tuple(self.workers.values()):
                _end(worker, kill=True)
        return [self.done[number] for number in range(len(self.entries))]

    def _start(self) -> None:
        orders, orders_in = os.pipe2(os.O_CLOEXEC)
        answers_out, answers = os.pipe2(os.O_CLOEXEC)
        others = [end for each in self.workers.values() for end in (each.orders, each.answers)]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for end in (*others, orders_in, answers_out):
                    os.close(end)
                _serve(self.entries, orders, answers, self.shared)
                code = 0
            finally:
                os._exit(code)
        os.close(orders)
        os.close(answers)
        worker = _Worker(pid, orders_in, answers_out)
        self.workers[answers_out] = worker
        self._order(worker)

    def _order(self, worker: _Worker) -> None:
        """Give a worker its next files; without any it ends."""
        while self.waiting and len(worker.pending) < _BATCH:
            worker.pending.append(self.waiting.pop())
            try:
                os.write(worker.orders, worker.pending[-1].to_bytes(_HEADER, "little"))
            except BrokenPipeError:
                return  # it died: seen at the end of its answers
        worker.since = time.monotonic()
        if not worker.pending:
            del self.workers[worker.answers]
            _end(worker)

    def _step(self) -> None:
        ready, _, _ = select.select(list(self.workers), [], [], 1.0)
        for descriptor in ready:
            worker = self.workers[descriptor]
            part = os.read(descriptor, 1 << 20)
            if part:
                worker.buffer += part
                self._take(worker)
            else:
                self._died(worker)
        for worker in tuple(self.workers.values()):
            patience = self._patience(worker)
            if time.monotonic() - worker.since > patience:
                self._died(worker, f"not done after {patience:.0f} s")

    def _patience(self, worker: _Worker) -> float:
        path = self.entries[worker.pending[0]].path if worker.pending else ""
        image = path == "-" or kinds.may_be_archive(path) or os.path.isdir(path)
        return PATIENCE_WITH_IMAGES if image else PATIENCE

    def _take(self, worker: _Worker) -> None:
        taken = 0
        while len(worker.buffer) - taken >= _HEADER:
            size = int.from_bytes(worker.buffer[taken : taken + _HEADER], "little")
            if len(worker.buffer) - taken - _HEADER < size:
                break
            start = taken + _HEADER
            self._keep(worker.pending.pop(0), self.shared.load(bytes(worker.buffer[start : start + size])))
            worker.since = time.monotonic()
            taken = start + size
        del worker.buffer[:taken]
        if taken and len(worker.pending) <= _BATCH // 2:
            self._order(worker)

    def _keep(self, number: int, outcome: Outcome) -> None:
        self.done[number] = outcome
        if self.progress:
            self.progress(len(self.done), len(self.entries))

    def _died(self, worker: _Worker, why: str = "") -> None:
        """Blame the file that a dead process was at, and let another one do the rest."""
        del self.workers[worker.answers]
        status = _end(worker, kill=True)
        if worker.pending:
            number = worker.pending[0]
            path = self.entries[number].path
            text = why or f"reading it ended the process with {_how(status)}"
            self._keep(number, Outcome(path, problems=(Problem(Where(path), text, "please report it with the file"),)))
            self.waiting += reversed(worker.pending[1:])
        if self.waiting:
            self._start()


def _prepare() -> None:
    """Import what every process needs, before there are any."""
    from importlib import import_module

    for module in ("stockade.audit.engine", "stockade.audit.documents.load"):
        import_module(module)
    gc.freeze()  # so that a collection in a child doesn't copy all of this memory


def _end(worker: _Worker, *, kill: bool = False) -> int:
    os.close(worker.orders)
    os.close(worker.answers)
    if kill:
        os.kill(worker.pid, signal.SIGKILL)
    return os.waitpid(worker.pid, 0)[1]


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {signal.Signals(number).name if number in set(signal.Signals) else number}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def _parts(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Give the function that pickles a data class as a call with its fields; its own way asks for each of them."""
    values = attrgetter(*[each.name for each in fields(kind)])

    def reduce(value: Any) -> tuple[Any, ...]:
        return kind, values(value)

    return reduce


class _Shared:
    """Pickles outcomes without the texts of the rules, which each of them holds and both sides have already.

    A pickle refers to what it has in its memo: both sides begin each one with the memo of the same texts.
    """

    KINDS = (Where, Finding, TargetSummary, ExposureLine, Exposure, Unknown)

    def __init__(self) -> None:
        self.table: dict[type, Any] = {kind: _parts(kind) for kind in self.KINDS}
        self.same: dict[Any, Any] = {}
        from stockade.audit.paths import PATHS
        from stockade.audit.rules import RULES

        known = (
            Outcome,
            [(rule.id, rule.conditions, rule.references, rule.text.why, rule.text.fix) for rule in RULES.values()],
            [(path.id, path.title, path.effect, path.proof) for path in PATHS],
        )
        buffer = io.BytesIO()
        self.writer = pickle.Pickler(buffer, _PROTOCOL)
        self.writer.dump(known)
        self.reader = pickle.Unpickler(io.BytesIO(buffer.getvalue()))  # noqa: S301 - we wrote it
        self.reader.load()

    def dump(self, outcome: Outcome) -> bytes:
        """Give an outcome as bytes."""
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, _PROTOCOL)
        pickler.memo = self.writer.memo
        pickler.dispatch_table = self.table
        pickler.dump(outcome)
        return buffer.getvalue()

    def load(self, data: bytes) -> Outcome:
        """Give the outcome that `dump` wrote; trusted, since a process of ours wrote it."""
        unpickler = pickle.Unpickler(io.BytesIO(data))  # noqa: S301 - from our own workers
        unpickler.memo = self.reader.memo
        outcome: Outcome = unpickler.load()
        return replace(outcome, judged=tuple([self._slim(one) for one in outcome.judged]))

    def _slim(self, one: Judged) -> Judged:
        """Keep one of what thousands of targets have alike."""
        summary = one.summary
        exposure = self.same.setdefault(summary.exposure, summary.exposure)
        capabilities = self.same.setdefault(summary.capabilities, summary.capabilities)
        return replace(one, summary=replace(summary, exposure=exposure, capabilities=capabilities))


def _serve(entries: Sequence[Entry], orders: int, answers: int, shared: _Shared) -> None:
    """Be the process: audit the files that are asked for until there are no more orders."""
    while True:
        order = os.read(orders, _HEADER)
        if len(order) < _HEADER:
            return
        data = shared.dump(audit_file(entries[int.from_bytes(order, "little")]))
        view = memoryview(len(data).to_bytes(_HEADER, "little") + data)
        while view:
            view = view[os.write(answers, view) :]
