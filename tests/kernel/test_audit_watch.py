"""`stockade audit watch`: what it tells of containers that come and go."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Any

import pytest

from stockade.audit.watch import Bucket
from tests.kernel.bundles import Runtime, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel


class Watch:
    """The command as it runs; `until` gives the next line that fits."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "stockade", "audit", "watch", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.text = b""
        self.lines: list[dict[str, Any]] = []

    @property
    def out(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def until(self, event: str, seconds: float = 20, **fields: object) -> dict[str, Any]:
        """Wait for a line of this event with these fields."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.lines:
                if line["event"] == event and all(line.get(name) == value for name, value in fields.items()):
                    return line
            if select.select([self.out], [], [], 0.5)[0]:
                self.text += os.read(self.out.fileno(), 1 << 16)
                *whole, self.text = self.text.split(b"\n")
                self.lines += [json.loads(line) for line in whole]
        raise AssertionError(f"no {event} with {fields} in {self.lines}")


@pytest.fixture
def early(public_tmp: Path, rootfs: Path) -> Iterator[Runtime]:
    """Start a container before the watch; `state` is the runtime's root."""
    runtime = Runtime(public_tmp / "state")
    runtime.ok("create", "--bundle", write(public_tmp / "early", rootfs, cgroupsPath="/watched-early"), "early")
    runtime.ok("start", "early")
    yield runtime
    for name in os.listdir(public_tmp / "state"):
        runtime("delete", "--force", name)


@pytest.fixture
def watch(early: Runtime) -> Iterator[Watch]:
    """Run the command, from the moment on at which it knows the container that was there before."""
    watching = Watch("--fail-on", "info")
    watching.until("started", pid=pid_of(early, "early"))
    yield watching
    watching.process.kill()
    watching.process.communicate()


def pid_of(runtime: Runtime, name: str) -> int:
    return int(json.loads(runtime.ok("state", name))["pid"])


def test_a_container_is_told_when_it_starts_is_audited_once_and_told_when_it_ends(
    watch: Watch, early: Runtime, public_tmp: Path, rootfs: Path
) -> None:
    assert watch.until("started", pid=pid_of(early, "early"))["early"] is True
    early.ok("create", "--bundle", write(public_tmp / "late", rootfs, cgroupsPath="/watched-late"), "late")
    early.ok("start", "late")
    begun = time.monotonic()
    pid = pid_of(early, "late")

    started = watch.until("started", pid=pid)
    assert started["early"] is False
    assert time.monotonic() - begun < 4, "a change was seen, and not the next look"
    audited = watch.until("audited", pid=pid)
    assert {"no_new_privs", "worst"} & audited.keys()
    assert any("PRV-NNP" in finding["conditions"] for finding in audited["findings"])
    early.ok("kill", "late", "KILL")
    assert watch.until("stopped", pid=pid)["audited"] is True
    assert sum(line["event"] == "audited" and line["pid"] == pid for line in watch.lines) == 1


def test_an_interrupt_ends_it_cleanly_with_the_verdict_of_fail_on(watch: Watch, early: Runtime) -> None:
    watch.until("audited", pid=pid_of(early, "early"))
    watch.process.send_signal(signal.SIGINT)

    rest, errors = watch.process.communicate(timeout=20)
    assert (watch.process.returncode, errors) == (1, b"")
    assert all(json.loads(line) for line in (watch.text + rest).splitlines())


def test_so_many_pass_at_once_and_then_so_many_a_second() -> None:
    now = [0.0]
    bucket = Bucket(rate=2, burst=3, clock=lambda: now[0])

    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]
    assert bucket.wait() == pytest.approx(0.5)
    now[0] = 0.5
    assert [bucket.take(), bucket.take()] == [True, False]
    now[0] = 100
    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]
