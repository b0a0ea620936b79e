"""`stockade audit watch`: follows containers as they start and stop, and audits each once. One JSON line an event.

    {"event": "started", "time": …, "target": "container:web", "pid": 17, "name": "web", "engine": "docker", …}
    {"event": "audited", "time": …, "target": …, "pid": 17, "worst": "high", "paths": […], "findings": […], …}
    {"event": "stopped", "time": …, "target": …, "pid": 17, "audited": true}
    {"event": "missed", "time": …, "count": 5}

`early`: it ran before the watch began. The end of a container is seen by its pidfd. Its start is seen by a change of a
cgroup or a runtime's directory (inotify), and by a look at all processes every few seconds where neither tells. No more
than a few audits a second are made: the rest waits, and what ended before its turn is stopped without an audit. Of
containers that end before anyone looked nothing is known at all; while so many come and go that lines are held back,
`missed` counts those.
"""

import json
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stockade.audit import facts
from stockade.audit.engine import evaluate
from stockade.audit.facts import Target
from stockade.audit.redact import clean
from stockade.audit.report import Evaluation, Severity
from stockade.audit.targets import host as hosts
from stockade.audit.targets import live, own, snapshot
from stockade.audit.targets.discovery import Finder, Group
from stockade.audit.targets.notify import Directories
from stockade.audit.targets.shared import Options
from stockade.errors import StockadeError
from stockade.sandbox.linux import cgroups

#: seconds between two looks without a reason, and at least between two with one
IDLE, BUSY = 5.0, 0.2
#: seconds after a change at which to look: directories are made before the container is in them
AFTER = (0.05, 0.3, 1.0)
#: audits a second in the long run, and at once after a pause
RATE, BURST = 4.0, 8
#: lines about starts and ends a second in the long run, and at once after a pause
LINES, LINES_BURST = 50.0, 200
# by which a runtime lets a container wait for its start: until then it isn't what it will be
_WAITING = ("start.sock", "exec.fifo")
_EARLIEST = 0.25


class Bucket:
    """Lets so many pass at once and so many a second in the long run."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self.level, self.then = burst, clock()

    def wait(self) -> float:
        """Give the seconds until one more may pass; 0 is now."""
        now = self.clock()
        self.level, self.then = min(self.burst, self.level + (now - self.then) * self.rate), now
        return max(0.0, (1 - self.level) / self.rate)

    def take(self) -> bool:
        """Let one pass; False when it has to wait."""
        if self.wait() > 0:
            return False
        self.level -= 1
        return True


@dataclass
class Known:
    """A container that runs. `pidfd` is -1 where there is none; `since` is when it was first seen."""

    group: Group
    pidfd: int
    since: float
    told: bool = True
    audited: bool = False


@dataclass
class Watcher:
    """Looks, and writes a line for what has changed by calling `write`."""

    write: Callable[[str], object]
    options: Options = field(default_factory=Options)
    worst: Severity | None = None
    known: dict[tuple[int, int], Known] = field(default_factory=dict)
    queue: deque[tuple[int, int]] = field(default_factory=deque)
    audits: Bucket = field(default_factory=lambda: Bucket(RATE, BURST))
    lines: Bucket = field(default_factory=lambda: Bucket(LINES, LINES_BURST))
    missed: int = 0

    def look(self, *, early: bool = False) -> Finder:
        """Compare the containers that run with those that are known."""
        host = hosts.probe()
        if not host.trusted:
            raise StockadeError(host.outside_reason, hint="run it on the host")
        finder = Finder(host, snapshot.take(), own.states(host.remote))
        for group in finder.containers():
            members = {(entry.pid, entry.start) for entry in group.entries}
            if self.known.keys().isdisjoint(members):
                self._start(group, early=early)
        alive = {(entry.pid, entry.start) for entry in finder.snapshot.entries.values()}
        for key in [key for key, each in self.known.items() if each.pidfd < 0 and key not in alive]:
            self.end(key)
        return finder

    def _start(self, group: Group, *, early: bool) -> None:
        key = group.first.pid, group.first.start
        try:
            descriptor = os.pidfd_open(group.first.pid)
        except OSError:
            descriptor = -1  # a thread stands for it, or it has ended: the next look finds out
        each = self.known[key] = Known(group, descriptor, time.monotonic())
        self.queue.append(key)
        engine = group.engine.name if group.engine else None
        more = {"name": clean(group.name), "engine": engine, "early": early}
        each.told = self._tell("started", group, limited=True, **more)

    def end(self, key: tuple[int, int]) -> None:
        """Forget a container whose first process has ended."""
        each = self.known.pop(key)
        if each.pidfd >= 0:
            os.close(each.pidfd)
        if key in self.queue:
            self.queue.remove(key)
        if each.told:  # a start that was told has its end told
            self._tell("stopped", each.group, audited=each.audited)

    def judge(self, finder: Finder | None = None) -> float | None:
        """Audit what waits and may be. Gives the seconds until the next may be, None where none waits."""
        soonest: float | None = None
        batch: list[tuple[int, int]] = []
        for key in list(self.queue):
            each = self.known[key]
            settles = _EARLIEST - (time.monotonic() - each.since)
            pause = max(settles, IDLE / 10 if _waits(each.group) else 0.0, 0.0)
            if pause <= 0:
                if self.audits.take():
                    batch.append(key)
                    self.queue.remove(key)
                    continue
                pause = self.audits.wait()
            soonest = pause if soonest is None else min(soonest, pause)
        if batch:
            self._audit(batch, finder or self.look())
        return soonest

    def _audit(self, batch: list[tuple[int, int]], finder: Finder) -> None:
        now = {(entry.pid, entry.start): group for group in finder.containers() for entry in group.entries}
        groups = [now[key] for key in batch if key in self.known and key in now]
        keys = {group.id: key for key in batch if (group := now.get(key))}
        for target in live.collect(groups, finder, self.options, []):
            key = keys.get(target.id)
            if key in self.known:
                self.known[key].audited = True
            self._audited(evaluate(target), target)

    def _audited(self, judged: Evaluation, target: Target) -> None:
        severities = [finding.severity for finding in judged.findings] + [path.severity for path in judged.paths]
        worst = max(severities, default=None)
        if worst is not None:
            self.worst = worst if self.worst is None else max(worst, self.worst)
        self._line(
            "audited",
            target=target.id,
            pid=target.pids[0] if target.pids else None,
            engine=runtime.engine if (runtime := target.one(facts.Runtime)) else None,
            worst=worst.label if worst is not None else None,
            paths=[_path(path) for path in judged.paths],
            findings=[_finding(finding) for finding in judged.findings],
            unknown=len(judged.unknown),
        )

    def _tell(self, event: str, group: Group, *, limited: bool = False, **more: object) -> bool:
        if limited and not self.lines.take():
            self.missed += 1
            return False
        self.flush()
        self._line(event, target=group.id, pid=group.first.pid, **more)
        return True

    def flush(self) -> None:
        """Say how many lines were held back, if any were and the rate permits it."""
        if self.missed and self.lines.wait() <= 0:
            count, self.missed = self.missed, 0
            self._line("missed", count=count)

    def _line(self, event: str, **more: object) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03d}Z"
        line = {"event": event, "time": stamp, **more}
        self.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close what is open."""
        for each in self.known.values():
            if each.pidfd >= 0:
                os.close(each.pidfd)
        self.known.clear()


def _waits(group: Group) -> bool:
    directory = group.state.path.rpartition("/")[0] if group.state else ""
    return bool(directory) and any(os.path.lexists(f"{directory}/{name}") for name in _WAITING)


def _path(path: Any) -> dict[str, object]:
    return {"id": path.id, "severity": path.severity.label, "title": path.title, "fix": path.fix}


def _finding(finding: Any) -> dict[str, object]:
    return {
        "rule": finding.rule,
        "conditions": list(finding.conditions),
        "severity": finding.severity.label,
        "title": finding.title,
        "fingerprint": finding.fingerprint,
    }


def watch(write: Callable[[str], object], options: Options | None = None) -> Severity | None:
    """Watch until an interrupt (SIGINT, SIGTERM). Gives the worst severity that was met.

    `write` takes one line at a time. Raises StockadeError where the auditor doesn't stand on the host.
    """
    watcher = Watcher(write, options or Options())
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Directories() as directories:
            directories.add(_hierarchies())
            directories.add(_states(), below=1)
            watcher.look(early=True)
            _follow(watcher, directories)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        watcher.close()
    return watcher.worst


def _follow(watcher: Watcher, directories: Directories) -> None:
    looks: list[float] = []  # when to look, the soonest first
    last = time.monotonic()
    while True:
        pause = watcher.judge()
        watcher.flush()
        asked: list[float] = [last + IDLE, *looks[:1], *([time.monotonic() + pause] if pause is not None else [])]
        due = min(asked)
        changed, ended = _wait(watcher, directories, max(0.0, due - time.monotonic()))
        for key in ended:
            watcher.end(key)
        now = time.monotonic()
        if changed:
            looks = sorted({*looks, *(now + after for after in AFTER)})[: 4 * len(AFTER)]
        if now - last >= IDLE or (looks and looks[0] <= now and now - last >= BUSY):
            watcher.look()
            last = time.monotonic()
            looks = [each for each in looks if each > now]
        elif looks and looks[0] <= now:
            looks[0] = last + BUSY


def _wait(watcher: Watcher, directories: Directories, seconds: float) -> tuple[bool, list[tuple[int, int]]]:
    """Wait for a change of a directory or the end of a container; say what it was."""
    poll = select.poll()
    poll.register(directories, select.POLLIN)
    keys = {each.pidfd: key for key, each in watcher.known.items() if each.pidfd >= 0}
    for descriptor in keys:
        poll.register(descriptor, select.POLLIN)
    ready = [descriptor for descriptor, _ in poll.poll(seconds * 1000 + 1)]
    changed = directories.fileno() in ready and directories.changed()
    return changed, [keys[descriptor] for descriptor in ready if descriptor in keys]


def _hierarchies() -> Iterator[str]:
    """Give the mount points of the hierarchies in which a container gets a group: v2's, and one of v1's."""
    layout = cgroups.layout()
    found = [
        layout.v2,
        next((layout.v1[name] for name in ("pids", "name=systemd", "memory") if name in layout.v1), None),
    ]
    yield from (directory for directory in found if directory)


def _states() -> Iterator[str]:
    yield from ("/run", "/run/containerd")
    yield from (directory for directory, _ in own.directories())
    yield from (directory for directory, _, _ in own.runtimes())
