"""Hooks that run on the host's side of a container: prestart, createRuntime, poststart, poststop.

A hook reads the state as JSON on its standard input and has the environment that the configuration gives it, and
nothing else of ours: its streams are files in memory, so that neither a hook that does not read nor one that leaves a
process behind makes anybody wait. runtime-spec, runtime.md "Lifecycle" and config.md "POSIX-platform Hooks".
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time

from stockade.errors import StockadeError
from stockade.sandbox.inputs import memory_file
from stockade.sandbox.runtime import logs
from stockade.sandbox.steps_hooks import HOOK_STATUS, SAID_BYTES, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Sequence

    from stockade.sandbox.oci.spec import Hook
else:
    import _signal  # without the enumerations of `signal`, which cost 4 ms

#: the container goes on when one of these fails: "the runtime MUST log a warning"
LENIENT = ("poststart", "poststop")
SIGKILL, SIGSTOP = 9, 19  # on all architectures but alpha, mips, parisc and sparc
LONGEST_WAIT = 3600.0


def run_hooks(hooks: Sequence[Hook], state: bytes, when: str, warn: Callable[[str], None] | None = None) -> None:
    """Run hooks one after the other; `when` is OCI's name of the point, `state` the JSON that they read.

    Raises StockadeError for the first that fails, is killed or takes longer than its timeout; after the start and at
    the end of a container each failure is a warning instead, for `warn` (by default the runtime's log).
    """
    for index, hook in enumerate(hooks):
        code, said = run(hook, state)
        if not code:
            continue
        message = failed(when, index, hook.path, code, said)
        if when not in LENIENT:
            raise StockadeError(message, hint="config.json names the hook under $.hooks: repair or remove it there")
        tell = warn or logs.warn
        tell(message)


def run(hook: Hook, state: bytes) -> tuple[int, bytes]:
    """Run one hook. Give 0, an errno, or HOOK_STATUS with the status of waitpid(2); and how its output begins."""
    standing, said = memory_file("state", state), memory_file("said")
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()]
    actions += [(os.POSIX_SPAWN_DUP2, standing, 0), (os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
    pairs = [_encoded(variable).partition(b"=") for variable in hook.env]
    try:
        try:
            pid = os.posix_spawn(
                _encoded(hook.path),
                [_encoded(word) for word in hook.args or (hook.path,)],
                {name: value for name, _, value in pairs},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_signal.valid_signals()
                - {SIGKILL, SIGSTOP},  # ignored by the interpreter, or whoever called us
            )
        except OSError as error:
            return error.errno or errno.EIO, b""
        status = _wait(pid, hook.timeout)
        code = errno.ETIMEDOUT if status is None else status and HOOK_STATUS | status
        return code, os.pread(said, SAID_BYTES, 0) if code else b""
    finally:
        os.close(standing)
        os.close(said)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _inherited() -> list[int]:
    """Give the descriptors above 2 that an execve(2) would pass on: the caller's, such as those of conmon(8)."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.append(int(name))
        except OSError:
            continue  # the directory's own, closed by now
    return found


def _wait(pid: int, timeout: int | None) -> int | None:
    """Give the status of waitpid(2), or None where the time has passed; what it started is killed with it then."""
    try:
        if timeout and not _ends_in(pid, timeout):
            _kill(pid)
            return None
        return os.waitpid(pid, 0)[1]
    except BaseException:
        _kill(pid)
        raise


def _ends_in(pid: int, timeout: int) -> bool:
    deadline = time.monotonic() + timeout
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        while (rest := deadline - time.monotonic()) > 0:
            if poll.poll(min(rest, LONGEST_WAIT) * 1000):
                return True
        return bool(poll.poll(0))
    finally:
        os.close(pidfd)


def _kill(pid: int) -> None:
    """Kill the process group of a hook, which it leads, and wait for it."""
    try:
        os.killpg(pid, SIGKILL)
    except ProcessLookupError:
        pass
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass
