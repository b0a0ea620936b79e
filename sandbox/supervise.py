"""Watches one container in the foreground: its streams, its signals, its deadline, its end."""

from __future__ import annotations

import os
import select
import time

from stockade.sandbox import relay
from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any, Self

    from stockade.sandbox.container import Container
    from stockade.sandbox.launch import Launcher
    from stockade.sandbox.relay import Stream
else:
    import _signal  # without the enumerations of `signal`, which cost 4 ms

#: what the caller sends us is meant for the program
FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT", "SIGWINCH")
#: so many interrupts that the program ignores end it, as with docker run
PATIENCE = 3
#: what ends no process that has no handler for it, signal(7)
HARMLESS = ("SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH")


class Ending(Record):
    """How a container ended: exit code or signal, why (exit, timeout, interrupt, launcher), and what it used.

    Times are seconds, `peak_memory` is bytes: the largest process (getrusage(2)), not the sum.
    """

    exit_code: int
    signal: int
    why: str
    wall: float
    cpu: float
    peak_memory: int

    @property
    def code(self) -> int:
        """Give the code for the shell: the program's own, or 128 + the signal."""
        return 128 + self.signal if self.signal else self.exit_code


class Signals:
    """While it is entered, signals come as bytes on `reader`; afterwards all is as before."""

    def __init__(self) -> None:
        self.reader = self.writer = -1
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals over."""
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for name in FORWARDED:
            number = getattr(_signal, name)
            if _signal.getsignal(number) != _signal.SIG_IGN:  # nohup(1) stays in force
                self.before[number] = _signal.signal(number, _ignore)
        self.old = _signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        _signal.set_wakeup_fd(self.old)
        for number, handler in self.before.items():
            _signal.signal(number, handler)
        os.close(self.reader)
        os.close(self.writer)

    def read(self) -> bytes:
        """Give the numbers that have come."""
        try:
            return os.read(self.reader, 64)
        except BlockingIOError:
            return b""


def _ignore(_number: int, _frame: object) -> None:
    """Let set_wakeup_fd write the number; this handler only has to exist."""


class Supervisor:
    """The loop. `deadline` is in seconds from now, None for none."""

    def __init__(
        self, container: Container, streams: list[Stream], signals: Signals, launcher: Launcher, deadline: float | None
    ) -> None:
        self.container, self.streams, self.signals, self.launcher = container, streams, signals, launcher
        self.started = time.monotonic()
        self.deadline = None if deadline is None else self.started + deadline
        self.why = "exit"
        self.interrupts = 0
        self.fatal = 0  # the signal that we ended it for

    def wait(self) -> Ending:
        """Serve until the first process has ended, then empty the pipes."""
        pidfd = self.container.child.pidfd
        while True:
            ready = self._poll()
            if pidfd in ready:
                break
            self._serve(ready)
        _, status, usage = os.wait4(self.container.child.pid, 0)
        if not self.container.prepared.contained:
            self.container.kill()
        wall = time.monotonic() - self.started
        relay.drain(
            [stream for stream in self.streams if stream.close_source or stream.source == self._terminal()],
            self._expired,
        )
        return Ending(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
            signal=self.fatal or os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            why=self.why,
            wall=wall,
            cpu=usage.ru_utime + usage.ru_stime,
            peak_memory=usage.ru_maxrss * 1024,
        )

    def _terminal(self) -> int:
        return self.container.child.terminal

    def _poll(self) -> set[int]:
        poll = select.poll()
        for descriptor in (self.container.child.pidfd, self.signals.reader, self.launcher.fileno()):
            poll.register(descriptor, select.POLLIN)
        events: dict[int, int] = {}
        for stream in self.streams:
            if stream.open:
                descriptor, event = stream.wants()
                events[descriptor] = events.get(descriptor, 0) | event
        for descriptor, event in events.items():
            poll.register(descriptor, event)
        timeout = None if self.deadline is None else max(0.0, self.deadline - time.monotonic()) * 1000 + 1
        ready = {descriptor for descriptor, _ in poll.poll(timeout)}
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self._stop("timeout")
        return ready

    def _serve(self, ready: set[int]) -> None:
        if self.launcher.fileno() in ready:
            self._stop("launcher")  # without its guard it must not go on
        if self.signals.reader in ready:
            for number in self.signals.read():
                self._signal(number)
        for stream in self.streams:
            if stream.open and stream.wants()[0] in ready:
                stream.move()

    def _signal(self, number: int) -> None:
        if number == _signal.SIGWINCH:
            if self._terminal() >= 0:
                from stockade.sandbox import terminal

                terminal.copy_size(self._terminal())
            return
        if number in {_signal.SIGINT, _signal.SIGTERM}:
            self.interrupts += 1
            if self.interrupts >= PATIENCE:
                self._stop("interrupt")
                return
        if number == _signal.SIGTERM:
            number = self.container.prepared.request.stop_signal or number
        if self.container.prepared.contained and _would_end(self.container.child.pid, number):
            self.fatal = self.fatal or number
            self.container.kill()
        else:
            self.container.signal(number)

    def _stop(self, why: str) -> None:
        if self.why == "exit":
            self.why = why
        self.deadline = None
        self.container.kill()

    def _expired(self) -> bool:
        return self.why != "exit" and time.monotonic() > self.started + 3600


def _would_end(pid: int, number: int) -> bool:
    """Tell whether a signal would end the process, were it not the first of its PID namespace.

    That one gets no signal which it neither handles nor waits for, pid_namespaces(7): `timeout 5 stockade run sleep 60`
    would wait for the minute. False where it can't be told.
    """
    if number in [getattr(_signal, name) for name in HARMLESS]:
        return False
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file if line.startswith(("SigBlk:", "SigIgn:", "SigCgt:"))]
        with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
            call = file.read().split()[0]
    except OSError:
        return False
    from stockade.sandbox.linux import syscalls

    # What sigtimedwait(2) waits for doesn't count as blocked meanwhile, do_sigtimedwait() in kernel/signal.c.
    waits = call == str(syscalls.numbers(os.uname().machine).get("rt_sigtimedwait", call))
    return not waits and not any(int(mask, 16) >> number - 1 & 1 for _, mask in lines)
