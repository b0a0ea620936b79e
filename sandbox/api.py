"""The Python API: `Sandbox`, the engine of `stockade run` for programs that run programs.

A Sandbox decides and compiles once; each `run` costs a launch and nothing else. It may be used from several threads.
One launcher serves the whole process; it and every sandboxed program end with the process, however that ends.

Nearly all of a launch does not depend on the program: namespaces, mounts, ids, capabilities. From its second run on a
Sandbox keeps a few processes that are ready up to the filter, made while programs run and after. Each is used once.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Self

from stockade.errors import StockadeError
from stockade.sandbox import arguments, container, inputs, launch, lifecycle, steps, store
from stockade.sandbox import plan as planning
from stockade.sandbox.collect import Collector
from stockade.sandbox.linux.record import Record
from stockade.sandbox.plan_identity import process_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from stockade.sandbox.cgroups import Cgroup
    from stockade.sandbox.steps import Step

#: processes that a Sandbox keeps ready; each is some 340 kB of kernel memory
AHEAD = 2
#: seconds between two runs that are parts of one loop
CLOSE = 0.002
#: bytes that a stream may hold before the program is killed
OUTPUT_LIMIT = 64 << 20


class Result(Record):
    """What a run came to.

    `exit_code` is the program's own, or -1 where `signal` ended it. `ended_by` is exit, signal, timeout, output-limit,
    out-of-memory or launcher. Times are seconds. `peak_memory` is bytes, of the whole tree where a control group counts
    it, else of the largest process: `measured_by` says which (nothing: someone
    else waited for it). `enforced` names for each limit what enforces it,
    `not_enforced` (with best_effort) why one is not.
    """

    exit_code: int
    signal: int
    stdout: bytes
    stderr: bytes
    ended_by: str
    wall_time: float
    cpu_time: float
    peak_memory: int
    measured_by: str
    enforced: Mapping[str, str]
    not_enforced: Mapping[str, str]


class _Launchers:
    """The process's one launcher. Whoever uses it first starts it; a fork of the process starts its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.current: launch.Launcher | None = None
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self.lock = threading.Lock()  # another thread may have held it
        self.current = None

    def get(self) -> launch.Launcher:
        current = self.current
        if current is not None and current.owner == os.getpid() and current.alive():
            return current
        with self.lock:
            current = self.current
            if current is None or current.owner != os.getpid() or not current.alive():
                if current is not None:
                    current.reap(os.WNOHANG)  # its socket stays open: other threads still look at it
                self.current = current = self._start()
        return current

    def _start(self) -> launch.Launcher:
        if threading.current_thread() is threading.main_thread():
            return launch.Launcher()
        # The parent-death signal of a container comes at the end of the *thread* that started the launcher (prctl(2)),
        # so that thread must live as long as the process.
        started: list[launch.Launcher | BaseException] = []
        ready = threading.Event()

        def start_and_stay() -> None:
            try:
                started.append(launch.Launcher())
            except BaseException as error:  # noqa: BLE001 - raised again in the caller
                started.append(error)
                ready.set()
                return
            ready.set()
            threading.Event().wait()

        threading.Thread(target=start_and_stay, name="stockade-launcher", daemon=True).start()
        ready.wait()
        if isinstance(started[0], BaseException):
            raise started[0]
        return started[0]


_launchers = _Launchers()


class _Ready:
    """A process that stands ready, or is on its way there, with its control groups and our ends of its own pipes."""

    def __init__(self, stack: contextlib.ExitStack, pending: launch.Pending, cgroup: Cgroup | None) -> None:
        self.stack, self.pending, self.cgroup = stack, pending, cgroup
        self.owner = os.getpid()

    def advanced(self) -> bool:
        """Take a message of it; tell whether that was the last before it can go, or it has failed."""
        try:
            self.pending.advance()
        except StockadeError:
            return True  # who takes it finds out
        return self.pending.compared

    def discard(self) -> None:
        """Kill it, and remove what was made for it; in a fork of its owner only close descriptors."""
        self.pending.abandon()
        self.stack.close()

    def __del__(self) -> None:
        """Leave nothing of one that an interrupt lost between two lines; who runs it has taken the stack over."""
        self.stack.close()


class Sandbox:
    """A way to run programs with a stated privilege.

    Takes the options of `stockade run` as keywords, written as there or as values of `Request`: `mode`, `rootfs`,
    `memory="64m"`, `volume=["./src:/src:ro"]`, `cap_add=["CHOWN"]` and so on. Without a `rootfs` the programs of the
    host are there, read-only, and nothing else of it. `ahead` is how many processes to keep ready once it has been used
    twice, 0 for none.
    """

    def __init__(self, *, ahead: int = AHEAD, **options: Any) -> None:
        """Decide everything. Raises StockadeError for what can't be had, before anything runs."""
        self._ready: collections.deque[_Ready] = collections.deque()
        self._waiting: weakref.WeakSet[_Ready] = weakref.WeakSet()  # these and those that are still looked after
        if "argv" in options:
            raise TypeError("the program is given to run()")
        options.setdefault("host_root", not options.get("rootfs"))
        self.prepared = container.prepare(arguments.from_keywords(("true",), options))
        self.process = process_of(self.prepared.spec)
        self.ahead, self._runs, self._ended = ahead, 0, 0.0
        self._owner = self.prepared.owner_outside
        self._inside = self.prepared.pipes_inside
        self._encoded: launch.Encoded | None = None
        self._options = container.options(self.prepared, None, 6 if self._inside else 0)
        self._last = self._before_execute()
        self._last_encoded = b"".join([step.encode() for step in self._last])

    def _before_execute(self) -> tuple[Step, ...]:
        """Give the last steps but one: they are the same for every program."""
        slots = [
            steps.Slot(planning.FIRST_LATE_SLOT + number, name) for number, name in enumerate(("in", "out", "err"))
        ]
        stdin, stdout, stderr = slots if not self._inside else (slots[0], steps.NONE, steps.NONE)
        late = self._options.replace(late_streams=True)
        return planning.last(self.prepared.spec, late, stdin, stdout, stderr)[:-1]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str = b"",
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        output_limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """Run a program to its end, with `input` on stdin, and collect what it writes.

        `env` is added to the sandbox's own variables. At `timeout` seconds, or when a stream exceeds `output_limit`
        bytes, the whole tree is killed and the Result says so. Raises StockadeError when the program could not be
        started.
        """
        if isinstance(argv, str):
            raise TypeError('argv is a sequence of words: ["ls", "-l"], not "ls -l"')
        started = time.monotonic()
        close = started - self._ended < CLOSE
        if timeout is None:
            timeout = self.prepared.request.timeout
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout is {timeout}, and no program ends in that time")
        self._runs += 1
        ready = self._take()
        with ready.stack as stack, self._coming() as coming:
            stack.callback(ready.pending.abandon)
            streams, collected = self._streams(stack, input.encode() if isinstance(input, str) else input)
            # In a loop of launches no processor may wait; else a program has the machine for itself.
            child = self._go(ready, streams, argv, env, (lambda: self._refill(coming)) if close else None)
            collected |= {reader: bytearray() for _, reader in child.streams}
            inputs.close(streams)
            running = container.Container(self.prepared, child, ready.cgroup)
            deadline = None if timeout is None else started + timeout
            collector = Collector(running, ready.pending.launcher.fileno(), collected, output_limit)
            why = collector.wait(deadline, {descriptor: other.advanced for descriptor, other in coming.items()})
            waited = _wait(child)
            ready.pending.waited()
            wall = time.monotonic() - started
            return self._result(waited, why, collected, wall, ready.cgroup)

    def close(self) -> None:
        """End the processes that are kept ready. The Sandbox can still be used."""
        while self._ready:
            self._ready.popleft().discard()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """End what is kept ready."""
        self.close()

    def _take(self) -> _Ready:
        """Give a process that is ready or nearly so: one made ahead, or a new one."""
        while True:
            try:
                ready = self._ready.popleft()
            except IndexError:
                return self._begin()
            self._waiting.discard(ready)
            if ready.owner != os.getpid() or not ready.pending.launcher.alive():
                ready.discard()  # of the process that this one was forked from, or without its guard
                continue
            try:
                while not ready.pending.compared:
                    ready.pending.advance()
            except StockadeError:
                ready.discard()  # something killed it meanwhile
                continue
            if not launch.readable(ready.pending.fileno()):
                return ready
            ready.discard()

    @contextlib.contextmanager
    def _coming(self) -> Generator[dict[int, _Ready]]:
        """Hold those on their way, by descriptor, while who looks after the program looks after them.

        Only then may another thread take them.
        """
        coming: dict[int, _Ready] = {}
        try:
            while self._ready:
                other = self._ready.pop()
                if other.pending.compared:
                    self._ready.append(other)
                    break
                if other.owner == os.getpid():
                    coming[other.pending.fileno()] = other
                else:
                    self._waiting.discard(other)
                    other.discard()  # of the process that this one was forked from
        except IndexError:
            pass  # another thread was quicker
        try:
            yield coming
        except StockadeError:
            self._end(coming)
            raise
        except BaseException:
            for ready in coming.values():
                ready.discard()  # a message of it may be lost
            raise
        self._end(coming)

    def _end(self, coming: dict[int, _Ready]) -> None:
        self._refill(coming)
        self._ready.extend(coming.values())
        self._ended = time.monotonic()

    def _refill(self, coming: dict[int, _Ready]) -> None:
        """Ask for the processes that are missing. Where that can't be, the next run finds out by itself."""
        with contextlib.suppress(StockadeError, OSError):
            while self._runs > 1 and len(self._waiting) < self.ahead:
                ready = self._begin()
                coming[ready.pending.fileno()] = ready
                self._waiting.add(ready)

    def _begin(self) -> _Ready:
        with contextlib.ExitStack() as stack:
            cgroup = stack.enter_context(self._cgroup())
            encoded = self._encoded
            if encoded is None:
                options = self._options.replace(**inputs.placement(cgroup))
                whole = planning.plan(self.prepared.spec, options)
                steps_ = len(planning.last(self.prepared.spec, options, steps.NONE, steps.NONE, steps.NONE))
                encoded = self._encoded = launch.encode(whole.replace(child=whole.child[:-steps_]))
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, null)
            given, opened = inputs.inputs(encoded.plan, (null, null, null), cgroup)
            try:
                pending = launch.begin(_launchers.get(), encoded, given)
            finally:
                inputs.close(opened)
            return _Ready(stack.pop_all(), pending, cgroup)

    @contextlib.contextmanager
    def _cgroup(self) -> Generator[Cgroup | None]:
        """Make the run's control groups after their intent is on disk, so that gc can remove them."""
        if not self.prepared.limited:
            yield None
            return
        owner, identity = os.getpid(), os.urandom(32).hex()
        entry = store.Entry(identity, "", lifecycle.intent(self.prepared, identity))
        cgroup = None
        try:
            cgroup = container.make_cgroup(self.prepared, identity)
            try:
                yield cgroup
            finally:
                if cgroup is not None and os.getpid() != owner:
                    cgroup.close()  # in a fork of the owner nothing is ours but the descriptors
        finally:
            if os.getpid() == owner:
                lifecycle.clean(entry, cgroup)

    def _streams(self, stack: contextlib.ExitStack, data: bytes) -> tuple[list[int], dict[int, bytearray]]:
        """Give the descriptors for the program, and our ends of its output with a place to collect it."""
        streams: list[int] = []
        stack.callback(lambda: inputs.close(streams))
        # A sealed memfd rather than a pipe: nobody has to feed it, and any uid may open it by name.
        streams.append(launch.sealed("stdin", data) if data else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        if data:
            os.lseek(streams[0], 0, os.SEEK_SET)
        collected: dict[int, bytearray] = {}
        for _ in range(0 if self._inside else 2):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            streams.append(writer)
            collected[reader] = bytearray()
            stack.callback(os.close, reader)
            inputs.give(writer, self._owner)
        return streams, collected

    def _go(
        self,
        ready: _Ready,
        streams: list[int],
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        meanwhile: Callable[[], None] | None,
    ) -> launch.Child:
        """Send the last steps: streams, filter, program."""
        variables = self.process.env
        if env:
            kept = [variable for variable in variables if variable.partition("=")[0] not in env]
            variables = (*kept, *(f"{name}={value}" for name, value in env.items()))
        words = (*argv, *variables)
        if not argv or any("\0" in word for word in words) or any("=" in name for name in env or ()):
            ready.discard()
            raise StockadeError("a program needs a name, and no argument or variable can hold a NUL byte")
        execute = planning.execute(tuple(argv), variables)
        tail = self._last_encoded + execute.encode()
        return ready.pending.go((*self._last, execute), tail, streams, meanwhile=meanwhile)

    @staticmethod
    def _result(
        waited: tuple[int, Any], why: str, collected: dict[int, bytearray], wall: float, cgroup: Cgroup | None
    ) -> Result:
        status, usage = waited
        stats = cgroup.stats() if cgroup is not None else None
        cpu, peak, measured_by = 0.0, 0, "nothing"
        if usage is not None:
            cpu, peak, measured_by = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, "getrusage"
        if stats is not None and stats.memory_peak is not None:
            peak, measured_by = stats.memory_peak, "cgroup"
        if stats is not None and stats.cpu_usec is not None:
            cpu = stats.cpu_usec / 1e6
        signaled = os.WIFSIGNALED(status)
        if not why and status and stats is not None and stats.oom_kills:
            why = "out-of-memory"
        stdout, stderr = (bytes(data) for data in collected.values())
        return Result(
            exit_code=-1 if signaled else os.WEXITSTATUS(status),
            signal=os.WTERMSIG(status) if signaled else 0,
            stdout=stdout,
            stderr=stderr,
            ended_by=why or ("signal" if signaled else "exit"),
            wall_time=wall,
            cpu_time=cpu,
            peak_memory=peak,
            measured_by=measured_by,
            enforced=cgroup.enforced if cgroup else {},
            not_enforced=cgroup.refused if cgroup else {},
        )


def _wait(child: launch.Child) -> tuple[int, Any]:
    """Give wait status and usage of a program that has ended.

    Another part of the process may have waited for all children, or ignores SIGCHLD: the pidfd tells the status then,
    and nothing the usage.
    """
    try:
        _, status, usage = os.wait4(child.pid, 0)
    except ChildProcessError:
        from stockade.sandbox.linux import pidfd

        try:
            known = pidfd.exit_status(child.pidfd)
        except OSError:
            known = None
        if known is None:
            raise StockadeError(
                "the program has ended, and something else in this process took its exit code",
                hint="while it runs, neither wait for any child (wait4(-1)) nor ignore SIGCHLD, or use Linux 6.15",
            ) from None
        return known, None
    return status, usage


__all__ = ["Result", "Sandbox", "StockadeError"]
