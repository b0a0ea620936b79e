"""Interleaved measurement: all subjects in turn, batch by batch, so that what else the machine does meets all alike."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Subject:
    """Something that is measured: `batch(n)` does it n times and gives n durations in seconds."""

    name: str
    batch: Callable[[int], list[float]]
    note: str = ""
    rounds: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # seconds of processor time, where they are known

    @property
    def times(self) -> list[float]:
        return sorted(value for batch in self.rounds for value in batch)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def minimum(self) -> float:
        return self.times[0]

    def line(self) -> str:
        figures = f"{self.minimum * 1e3:9.3f} {self.median * 1e3:9.3f} {len(self.times):6}"
        cpu = f"{statistics.median(self.cpu) * 1e3:8.2f}" if self.cpu else " " * 8
        return f"  {self.name:38} {figures} {cpu}  {self.note}".rstrip()

    def over(self, other: Subject) -> float:
        """The median, over the rounds, of the ratio of both medians of a round: both ran within the same moment."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(statistics.median(mine) / statistics.median(its) for mine, its in pairs)


def repeat(once: Callable[[], object]) -> Callable[[int], list[float]]:
    """Make a batch of a function."""

    def batch(count: int) -> list[float]:
        times = []
        for _ in range(count):
            before = time.perf_counter()
            once()
            times.append(time.perf_counter() - before)
        return times

    return batch


def interleave(subjects: list[Subject], *, rounds: int, each: int) -> None:
    """Measure all of them `rounds` times `each`, after a batch that doesn't count; the order turns with each round."""
    for subject in subjects:
        subject.batch(min(each, 5))
    for number in range(rounds):
        turn = number % len(subjects)
        for subject in subjects[turn:] + subjects[:turn]:
            subject.rounds.append(subject.batch(each))


def machine() -> dict[str, object]:
    """What the figures depend on."""
    with open("/proc/cpuinfo", encoding="ascii") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "model": model,
        "load": [round(value, 1) for value in os.getloadavg()],
    }


@dataclass
class Table:
    """Subjects that were measured together. `goals` are (subject, other, limit): the ratio of both, 0 for no limit."""

    title: str
    subjects: list[Subject]
    goals: list[tuple[int, int, float]]

    def ratios(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for mine, other, limit in self.goals:
            one, two = self.subjects[mine], self.subjects[other]
            row: dict[str, object] = {"what": one.name, "over": two.name, "medians": round(one.over(two), 3)}
            row["minima"] = round(one.minimum / two.minimum, 3)
            if one.cpu and two.cpu:
                row["cpu"] = round(statistics.median(one.cpu) / statistics.median(two.cpu), 3)
            found.append(row | {"goal": limit or None})
        return found

    def to_json(self) -> dict[str, object]:
        rows = [
            {
                "name": s.name,
                "min_ms": s.minimum * 1e3,
                "median_ms": s.median * 1e3,
                "cpu_ms": statistics.median(s.cpu) * 1e3 if s.cpu else None,
                "runs": len(s.times),
                "note": s.note,
            }
            for s in self.subjects
        ]
        return {"title": self.title, "rows": rows, "ratios": self.ratios()}

    def __str__(self) -> str:
        lines = [self.title, f"  {'':38} {'min ms':>9} {'median':>9} {'runs':>6} {'CPU':>8}"]
        lines += [subject.line() for subject in self.subjects]
        for ratio in self.ratios():
            goal = f"  goal: at most {ratio['goal']}" if ratio["goal"] else ""
            others = f"of minima {ratio['minima']}" + (f", of CPU time {ratio['cpu']}" if "cpu" in ratio else "")
            lines.append(f"  {ratio['what']} / {ratio['over']}: {ratio['medians']} ({others}){goal}")
        return "\n".join(lines) + "\n"
