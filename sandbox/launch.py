"""Plan → running process: the launcher, the hand-shake with a new process, and the comparison before it may go on.

One launcher serves a Python process. A launch is one packet to it; everything after that is said on a socket pair of
the launch's own, so that launches from several threads don't wait for each other.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
from _struct import Struct

from stockade.errors import StockadeError
from stockade.sandbox import verify
from stockade.sandbox.linux.record import Record
from stockade.sandbox.plan import MAGIC, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Sequence

    from stockade.sandbox.plan import Plan
    from stockade.sandbox.steps import Step
else:
    import _signal  # without the enumerations of `signal`, which cost 4 ms

CLONED, PREPARED, FAILED, TERMINAL_MASTER, STREAM, HELD, HOOK_SAID, LISTENER = 1, 2, 3, 4, 5, 6, 7, 8
RELEASE = 0x454C4552
PACKET_LIMIT = 190_000
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 1, 2, 0x10
F_ADD_SEALS, ALL_SEALS = 1033, 0xF
P_PIDFD = 3
_answer = Struct("<IIiI")
_descriptor = Struct("<i")

LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native", "launcher")


class Child(Record):
    """A process that runs: its pid and a pidfd; where it has a terminal, the master of that.

    `streams` are (number, our end) of pipes that it made for itself. The descriptors are the caller's.
    """

    pid: int
    pidfd: int
    terminal: int = -1
    streams: tuple[tuple[int, int], ...] = ()


class Encoded(Record):
    """A plan as bytes. `plan` serves errors, `check` the comparison."""

    plan: Plan
    parent: bytes
    child: bytes
    check: verify.Check


def encode(plan: Plan) -> Encoded:
    """Turn a plan into bytes once, for any number of launches."""
    parent, child = plan.encode()
    return Encoded(plan, parent, child, verify.Check(plan.expected))


def sealed(name: str, data: bytes) -> int:
    """Give a memfd with `data` that nobody can change any more, memfd_create(2)."""
    try:
        descriptor = os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)  # before Linux 6.3
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    fcntl.fcntl(descriptor, F_ADD_SEALS, ALL_SEALS)
    return descriptor


#: the open control sockets of this process's launchers
_controls: list[_socket.socket] = []


def _forget() -> None:
    """Close them in a fork of this process: while a copy is open, a launcher does not see its supervisor's end."""
    for control in _controls:
        control.close()
    _controls.clear()


os.register_at_fork(after_in_child=_forget)


def hold_standard_streams() -> None:
    """Open the null device on those of 0, 1 and 2 that are closed.

    The next descriptor would get the number otherwise: the state's lock or the launcher's socket would be taken for
    the caller's stdin or stdout and go to the program.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)  # the lowest free number


class Launcher:
    """The running launcher of this process. Its end of the control socket closes with us, however we end."""

    def __init__(self) -> None:
        """Start it. Raises StockadeError when it is not there or can't be executed."""
        hold_standard_streams()
        try:
            with open(LAUNCHER, "rb") as file:
                image = file.read()
        except OSError as error:
            raise StockadeError(
                f"the launcher can't be read: {error.strerror}: {LAUNCHER}",
                hint="install the package, or build it in place: pip install -e .",
            ) from error
        program = -1
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ]
        try:
            program = sealed("stockade-init", image)
            # A session of its own: who kills the supervisor's process group does not kill the guard with it.
            self.pid = os.posix_spawn(
                f"/proc/self/fd/{program}", ["stockade-init"], {}, file_actions=actions, setsid=True
            )
        except OSError as error:
            ours.close()
            from stockade.sandbox.remedies import SPAWN

            raise StockadeError(
                f"the launcher can't be executed: {error.strerror}", hint=SPAWN.get(error.errno or 0, "")
            ) from error
        finally:
            theirs.close()
            if program >= 0:
                os.close(program)
        self.control = ours
        self.owner = os.getpid()
        _controls.append(ours)

    def fileno(self) -> int:
        """Give the control socket's number: it becomes readable when the launcher has died."""
        return self.control.fileno()

    def alive(self) -> bool:
        """Tell whether it can still launch, in this process: a fork of its owner must start its own."""
        if self.owner != os.getpid():
            return False
        return not readable(self.fileno())

    def send(self, message: bytes, descriptors: Sequence[int]) -> None:
        """Ask for a launch."""
        rights = Struct(f"<{len(descriptors)}i").pack(*descriptors)
        try:
            self.control.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        except OSError as error:
            raise StockadeError(
                f"the launcher is gone: {error.strerror}", hint="start again; `stockade gc` cleans up"
            ) from error

    def leave(self) -> None:
        """End it and leave its processes alone: they have been handed over to whoever reads our record of them."""
        self.control.send(RELEASE.to_bytes(4, "little"))
        self.close()

    def close(self) -> None:
        """End it, and with it every container it still guards."""
        self.control.close()
        if self.control in _controls:
            _controls.remove(self.control)
        if self.owner == os.getpid():
            self.reap()

    def reap(self, options: int = 0) -> None:
        """Wait for its end; a program that waits for all of its children may have done so already."""
        try:
            os.waitpid(self.pid, options)
        except ChildProcessError:
            pass


def readable(descriptor: int) -> bool:
    """Tell whether there is something to read now, or the other end is closed."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def launch(
    launcher: Launcher, encoded: Encoded, descriptors: Sequence[int], meanwhile: Callable[[], None] | None = None
) -> Child:
    """Start what the plan says; return when the program runs.

    `descriptors` are the plan's inputs in order, and stay the caller's. Raises StockadeError with step, cause and
    remedy; nothing of the child is left then. `meanwhile` is done while the process sets up, before the program starts.
    """
    pending = begin(launcher, encoded, descriptors)
    if meanwhile is not None:
        meanwhile()
    child = pending.go()
    pending.release()
    return child


def begin(launcher: Launcher, encoded: Encoded, descriptors: Sequence[int]) -> Pending:
    """Ask the launcher for a process and don't wait for it."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    pending, memfd = Pending(ours, encoded, launcher), -1
    given = zip(encoded.plan.inputs, descriptors, strict=True)
    pending.namespaces = [descriptor for wanted, descriptor in given if wanted.kind == "namespace"]
    try:
        with_socket = [theirs.fileno(), *descriptors]
        parent, child = encoded.parent, encoded.child
        if len(parent) + len(child) > PACKET_LIMIT:
            memfd = sealed("plan", parent + child)
            with_socket.insert(1, memfd)
        head = header(parent, child, len(encoded.plan.parent), len(descriptors), in_memfd=memfd >= 0)
        launcher.send(head if memfd >= 0 else head + parent + child, with_socket)
    except BaseException:
        theirs.close()  # so that `abandon` sees the end where nothing was sent
        pending.abandon()
        raise
    finally:
        theirs.close()
        if memfd >= 0:
            os.close(memfd)
    return pending


class Pending:
    """A process on its way: what it and the launcher say, up to the execve that closes the socket.

    The process and its descriptors belong to this object until `release`: when it goes, they go.
    """

    def __init__(self, socket: _socket.socket, encoded: Encoded, launcher: Launcher) -> None:
        self.socket = socket
        self.plan, self.check = encoded.plan, encoded.check
        self.launcher = launcher
        self.owner = os.getpid()
        self.pid = self.pidfd = self.terminal = -1
        self.compared = self.ended = self.released = False
        self.streams: dict[int, int] = {}
        self.namespaces: list[int] = []
        self.said = b""
        self.last: tuple[Step, ...] = ()
        self.held: Callable[[int], None] | None = None
        self.listener: Callable[[int, int], None] | None = None
        self.listener_number = -1

    def fileno(self) -> int:
        """Give the socket's number: when it is readable, `advance` has something to do."""
        return self.socket.fileno()

    def advance(self) -> None:
        """Take one message. Raises StockadeError when the launch has failed; `abandon` it then."""
        if not self._next():
            raise self._gone()

    def go(
        self,
        last: tuple[Step, ...] = (),
        tail: bytes = b"",
        descriptors: Sequence[int] = (),
        *,
        waits: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> Child:
        """Wait until the process is ready and compared, let it go with its last steps, wait until the program runs.

        `tail` are the steps `last` as bytes, `descriptors` what they find from slot FIRST_LATE_SLOT on. `waits`: it
        stops at WaitStart, where its filter is not loaded yet. `meanwhile` is done while the process takes them.
        """
        try:
            while not self.compared:
                self.advance()
            self.last = last
            self._send(tail, descriptors)
            if meanwhile is not None:
                meanwhile()
            while self._next():
                pass
            if not waits:
                self._compare()
        except BaseException:
            self.abandon()
            raise
        self.socket.close()
        self.ended = True
        return Child(self.pid, self.pidfd, self.terminal, tuple(sorted(self.streams.items())))

    def _compare(self) -> None:
        try:
            self.check.after(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended, and who waits for any child was quicker
        except StockadeError as error:
            if readable(self.pidfd):  # killed before its last steps: a zombie has no filter
                raise self._gone() from error
            raise

    def abandon(self) -> None:
        """Kill it, wait for its end and close what belongs to it; in a fork of its owner only close."""
        if self.owner == os.getpid():
            self._end()
        self.socket.close()
        descriptors = (self.pidfd, self.terminal, *self.streams.values())
        self.release()
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def waited(self) -> None:
        """Note that the caller has waited for the process: what is left to `abandon` is descriptors."""
        self.pid, self.ended = -1, True

    def release(self) -> None:
        """Leave the process and its descriptors to the caller."""
        self.terminal = self.pidfd = -1
        self.streams = {}
        self.ended = self.released = True

    def __del__(self) -> None:
        """Leave nothing of what nobody has taken, whatever exception came between."""
        self.abandon()

    def _end(self) -> None:
        if self.ended and self.pid < 0:
            return  # nothing has begun, or it was waited for
        try:
            self.socket.shutdown(_socket.SHUT_WR)  # who waits for our word ends, so the other end does get closed
            while self.pid < 0 and self._receive():
                pass  # it must be known before it can be waited for
        except OSError:
            pass  # closed already
        try:
            if self.pidfd >= 0:
                kill(self.pidfd)
                os.waitid(P_PIDFD, self.pidfd, os.WEXITED)
            elif self.pid > 0 and not self.released:
                os.kill(self.pid, 9)
                os.waitpid(self.pid, 0)
        except (ChildProcessError, ProcessLookupError):
            pass  # waited for already

    def _send(self, tail: bytes, descriptors: Sequence[int]) -> None:
        given, memfd = list(descriptors), -1
        try:
            if len(tail) > PACKET_LIMIT:
                memfd = sealed("steps", tail)
                given.append(memfd)
            head = Struct("<4I").pack(MAGIC, memfd >= 0, len(descriptors), len(tail))
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, Struct(f"<{len(given)}i").pack(*given))] if given else []
            self.socket.sendmsg([head if memfd >= 0 else head + tail], rights)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._gone() from error
        finally:
            if memfd >= 0:
                os.close(memfd)

    def _gone(self) -> StockadeError:
        return StockadeError(
            "the new process ended before its program was started",
            hint="the launcher or the process was killed: see the kernel's log for the out-of-memory killer",
        )

    def _receive(self) -> tuple[int, int, int] | None:
        """Take one message and keep its descriptor: kind, step, errno; None when the other ends are closed."""
        if self.ended:
            return None
        if self.pid < 0:  # looked at first: an interrupt after the next line loses the message, not the child
            first = self.socket.recv(_answer.size, _socket.MSG_PEEK)
            self.pid = (_answer.unpack(first)[3] if first else 0) or -1
        data, ancillary, _, _ = self.socket.recvmsg(_answer.size, 64, _socket.MSG_CMSG_CLOEXEC)
        received = -1
        for _level, _type, rights in ancillary:
            (received,) = _descriptor.unpack(rights[: _descriptor.size])
        if not data:
            self.ended = True
            return None
        kind, step, error, value = _answer.unpack(data)
        if kind == TERMINAL_MASTER:
            self.terminal = received
        elif kind == STREAM:
            self.streams[value] = received
        elif kind == LISTENER:
            self.listener_number = value
        elif kind == HOOK_SAID:
            self.said = os.pread(received, 1024, 0)
            os.close(received)
        elif received >= 0:
            self.pid, self.pidfd = value, received
        self.ended = kind == FAILED
        return kind, step, error

    def _next(self) -> bool:
        message = self._receive()
        if message is None:
            return False
        kind, step, error = message
        if kind == FAILED:
            from stockade.sandbox.remedies import failure

            raise failure(self.plan.steps + self.last, step, error, self.said)
        if kind == CLONED and self.plan.external_maps:
            from stockade.sandbox.external_maps import write_maps

            write_maps(self.pid, self.plan)
            self.socket.send(b"g")
        elif kind == HELD:
            if self.held is not None:
                self.held(self.pid)
            self.socket.send(b"g")
        elif kind == LISTENER:
            if self.listener is not None:
                self.listener(self.pidfd, self.listener_number)
            self.socket.send(b"g")
        elif kind == PREPARED:
            try:
                self.check.before(self.pid, self.namespaces)
            except (FileNotFoundError, ProcessLookupError) as error_:
                raise self._gone() from error_
            self.compared = True
        return True


def kill(pidfd: int, number: int = 9) -> None:
    """Send a signal to the process behind a pidfd; one that has ended is no error."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return
