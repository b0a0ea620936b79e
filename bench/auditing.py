"""What the live audit costs: a further process, and a thousand of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from bench import processes
from bench.measure import Subject, Table, interleave
from stockade import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

STOCKADE = os.path.join(os.path.dirname(sys.executable), "stockade")
FURTHER = 100
CONTAINERS, EACH = 20, 50
#: 1 is a verdict
VERDICTS = (0, 1)


def audits(_scratch: str, rounds: int) -> Table:
    """`stockade audit pid:N` and `audit all` over containers with a thousand processes in all."""
    with _Population(FURTHER + 1, 1) as apart, _Population(CONTAINERS, EACH) as crowd:
        subjects = [
            _whole("audit pid:N, the whole command", apart[:1]),
            _further(f"each of {FURTHER} more, in a container each", apart),
            _further(f"each of {FURTHER} more, among {EACH} processes", crowd),
            _whole("audit all", []),
        ]
        interleave(subjects, rounds=rounds, each=1)
    subjects[1].note = subjects[2].note = "goal: 5 ms"
    subjects[3].note = f"{CONTAINERS} containers of {EACH} processes, {FURTHER + 1} of one, and what else runs here"
    return Table("Audit", subjects, [])


def _command(pids: list[int]) -> list[str]:
    return [STOCKADE, "audit", "--format", "json", *([f"pid:{pid}" for pid in pids] or ["all"])]


def _whole(name: str, pids: list[int]) -> Subject:
    argv = _command(pids)
    subject = Subject(name, lambda _: [processes.command(argv, allowed=VERDICTS, cpu=subject.cpu)])
    return subject


def _further(name: str, pids: list[int]) -> Subject:
    one, many = _command(pids[:1]), _command(pids[: FURTHER + 1])

    def batch(_count: int) -> list[float]:
        cpu: list[float] = []
        alone = processes.command(one, allowed=VERDICTS, cpu=cpu)
        all_of_them = processes.command(many, allowed=VERDICTS, cpu=cpu)
        subject.cpu.append((cpu[1] - cpu[0]) / FURTHER)
        return [(all_of_them - alone) / FURTHER]

    subject = Subject(name, batch)
    return subject


class _Population:
    """Containers of so many processes each, run by threads of ours until it is left; gives the sleepers' pids."""

    def __init__(self, containers: int, each: int) -> None:
        self.sandbox = Sandbox(ahead=0)
        self.wanted = containers * max(1, each - 1)
        self.program = f"for i in $(seq {each - 1}); do sleep 3600 & done; wait" if each > 1 else "exec sleep 3600"
        self.threads = [threading.Thread(target=self._run) for _ in range(containers)]
        self.pids: list[int] = []

    def _run(self) -> None:
        self.sandbox.run(["/bin/sh", "-c", self.program], timeout=3000)

    def __enter__(self) -> list[int]:
        before = set(_sleepers())
        for thread in self.threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(self.pids) < self.wanted:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(self.pids)} processes came up")
            time.sleep(0.2)
            self.pids = [pid for pid in _sleepers() if pid not in before]
        return self.pids

    def __exit__(self, *_: object) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        for thread in self.threads:
            thread.join()


def _sleepers() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if file.read() == b"sleep\x003600\0":
                        yield int(name)
            except OSError:
                continue
