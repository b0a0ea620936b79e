"""A program in the foreground: its terminal is relayed, signals to us reach it, its exit code becomes ours."""

from __future__ import annotations

import os
import select

from stockade.sandbox import launch, relay
from stockade.sandbox.supervise import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from stockade.sandbox.terminal import Raw
else:
    import _signal  # without the enumerations of `signal`, which cost 4 ms

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Let orphans of the program become ours, so that nothing of it outlives us unseen; prctl(2)."""
    from stockade.sandbox.linux import calls

    calls.prctl(PR_SET_CHILD_SUBREAPER, 1)


def follow(child: launch.Child, signals: Signals | None = None) -> int:
    """Wait for the end of a child of ours; give the code for the shell: its own, or 128 + the signal.

    `signals` that were taken over before, so that none is lost which came since.
    """
    raw = None
    streams: list[relay.Stream] = []
    if child.terminal >= 0:
        from stockade.sandbox import terminal

        raw = terminal.Raw() if os.isatty(0) else None
        terminal.copy_size(child.terminal)
        os.set_blocking(child.terminal, False)
        streams = [
            relay.Stream(child.terminal, 1, close_source=False, close_target=False),
            relay.Stream(0, child.terminal, close_source=False, close_target=False),
        ]
    if signals is None:
        with Signals() as taken:
            return _follow(child, taken, streams, raw)
    return _follow(child, signals, streams, raw)


def _follow(child: launch.Child, signals: Signals, streams: list[relay.Stream], raw: Raw | None) -> int:
    if raw is None:
        return _serve(child, signals, streams)
    with raw:
        return _serve(child, signals, streams)


def _serve(child: launch.Child, signals: Signals, streams: list[relay.Stream]) -> int:
    while True:
        ready = _poll(child, signals, streams)
        if signals.reader in ready:
            for number in signals.read():
                _pass_on(child, number)
        for stream in streams:
            if stream.open and stream.wants()[0] in ready:
                stream.move()
        if child.pidfd in ready:
            break
    _, status = os.waitpid(child.pid, 0)
    relay.drain(streams[:1], lambda: False)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _poll(child: launch.Child, signals: Signals, streams: list[relay.Stream]) -> set[int]:
    poll = select.poll()
    events: dict[int, int] = {child.pidfd: select.POLLIN, signals.reader: select.POLLIN}
    for stream in streams:
        if stream.open:
            descriptor, event = stream.wants()
            events[descriptor] = events.get(descriptor, 0) | event
    for descriptor, event in events.items():
        poll.register(descriptor, event)
    return {descriptor for descriptor, _ in poll.poll()}


def _pass_on(child: launch.Child, number: int) -> None:
    if number == _signal.SIGWINCH:
        if child.terminal >= 0:
            from stockade.sandbox import terminal

            terminal.copy_size(child.terminal)
        return
    launch.kill(child.pidfd, number)
