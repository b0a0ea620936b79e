"""Watches one program of a Sandbox until it has ended: its output, its deadline, its guard, and what comes after it."""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stockade.sandbox.container import Container

CHUNK = 1 << 16


class Collector:
    """Collects what a program writes.

    `guard` is the launcher's descriptor: without it the program must not go on. `collected` has a place for the bytes
    of each descriptor, of which none may take more than `limit`. `why` says what ended the program if we did.
    """

    def __init__(self, running: Container, guard: int, collected: dict[int, bytearray], limit: int) -> None:
        self.running, self.guard, self.collected, self.limit = running, guard, collected, limit
        self.coming: Mapping[int, Callable[[], bool]] = {}
        self.why = ""
        self.poll = select.poll()

    def wait(self, deadline: float | None, coming: Mapping[int, Callable[[], bool]]) -> str:
        """Read until the first process has ended or `deadline` (of time.monotonic) has come; give `why`.

        A descriptor of `coming` that becomes readable has its function called, until that gives True.
        """
        pidfd, self.coming = self.running.child.pidfd, coming
        for descriptor in (pidfd, self.guard, *self.collected, *coming):
            self.poll.register(descriptor, select.POLLIN)
        ended = False
        while not ended:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000 + 1
            for descriptor, _ in self.poll.poll(left):
                if descriptor == pidfd:
                    ended = True
                else:
                    self._serve(descriptor)
            if deadline is not None and not ended and time.monotonic() >= deadline:
                self._end("timeout")
                deadline = None
        if not self.running.prepared.contained:
            self.running.kill()
        for descriptor, data in self.collected.items():
            while len(data) <= self.limit and self._read(descriptor, data):
                pass
        return self.why

    def _serve(self, descriptor: int) -> None:
        if descriptor == self.guard:
            self.poll.unregister(descriptor)
            self._end("launcher")
        elif descriptor in self.coming:
            if self.coming[descriptor]():
                self.poll.unregister(descriptor)
        elif not self._read(descriptor, self.collected[descriptor]):
            self.poll.unregister(descriptor)
            if len(self.collected[descriptor]) > self.limit:
                self._end("output-limit")

    def _end(self, why: str) -> None:
        self.why = self.why or why
        self.running.kill()

    def _read(self, descriptor: int, data: bytearray) -> bool:
        chunk = os.read(descriptor, CHUNK)
        data += chunk
        return bool(chunk) and len(data) <= self.limit
