"""What the live audit costs: a further process, and a thousand of them."""

from __future__ import annotations

import os
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
FURTHER = 40
CONTAINERS, EACH = 20, 50
#: 1 is a verdict
VERDICTS = (0, 1)


def audits(_scratch: str, rounds: int) -> Table:
    """`stockade audit pid:N` and `audit all` over containers with a thousand processes in all."""
    with _Population() as pids:
        one = [STOCKADE, "audit", "--format", "json", f"pid:{pids[0]}"]
        many = [STOCKADE, "audit", "--format", "json", *(f"pid:{pid}" for pid in pids[: FURTHER + 1])]
        everything = [STOCKADE, "audit", "--format", "json", "all"]

        def further(_count: int) -> list[float]:
            alone = processes.command(one, allowed=VERDICTS)
            return [(processes.command(many, allowed=VERDICTS) - alone) / FURTHER]

        subjects = [
            Subject("audit pid:N, the whole command", lambda _: [processes.command(one, allowed=VERDICTS)]),
            Subject(f"each of {FURTHER} further processes", further, "goal: 5 ms"),
            Subject("audit all", lambda _: [processes.command(everything, allowed=VERDICTS)]),
        ]
        interleave(subjects, rounds=rounds, each=1)
    subjects[2].note = f"{CONTAINERS} containers of {EACH} processes, and what else runs here"
    return Table("Audit", subjects, [])


class _Population:
    """A thousand processes in containers, in threads of this process until it is left; gives the pids as seen here."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(ahead=0)
        program = f"for i in $(seq {EACH - 1}); do sleep 3600 & done; wait"
        self.threads = [threading.Thread(target=self._run, args=(program,), daemon=True) for _ in range(CONTAINERS)]

    def _run(self, program: str) -> None:
        self.sandbox.run(["/bin/sh", "-c", program], timeout=3000)

    def __enter__(self) -> list[int]:
        before = set(_sleepers())
        for thread in self.threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(found := [pid for pid in _sleepers() if pid not in before]) < CONTAINERS * (EACH - 1):
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(found)} processes came up")
            time.sleep(0.2)
        return found

    def __exit__(self, *_: object) -> None:
        """Leave the containers to the end of this process: their launcher kills them then."""


def _sleepers() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if file.read() == b"sleep\x003600\0":
                        yield int(name)
            except OSError:
                continue
