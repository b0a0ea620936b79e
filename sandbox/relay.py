"""Standard streams between a supervisor and its container.

The program must be able to open /dev/stdout by name, whoever it runs as, and must not get the caller's terminal,
sockets or files. A pipe that is the program's own already is passed on as it is; anything else becomes a pipe of ours,
and we copy. Nothing here waits for a slow reader in a way that a deadline could not
interrupt.
"""

from __future__ import annotations

import errno
import os
import select
import stat

from stockade.errors import StockadeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SPLICE_F_MOVE, SPLICE_F_NONBLOCK = 1, 2
CHUNK = 1 << 16
PIPE_BUF = 4096


def fits(descriptor: int, uid: int, *, writing: bool) -> bool:
    """Tell whether a program of this uid of ours can open the stream by name, so that it may have the stream itself."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    mode = found.st_mode
    if stat.S_ISCHR(mode):
        return found.st_rdev == os.makedev(1, 3)  # the null device; a terminal is never handed over
    if not stat.S_ISFIFO(mode) or not _nameless(descriptor):
        # A socket can't be opened by name at all. A file, or a FIFO in a directory, could be opened for more than it
        # was given for: its owner may write to what is on stdin, read what is before the output, change the mode.
        return False
    wanted = stat.S_IWUSR if writing else stat.S_IRUSR
    return found.st_uid == uid and bool(mode & wanted)


def _nameless(descriptor: int) -> bool:
    """Tell whether a FIFO is a pipe(2)."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:[")
    except OSError:
        return False


class Stream:
    """One direction of copying, from a descriptor to a descriptor, both ours to close where `owned` says so."""

    def __init__(self, source: int, target: int, *, close_source: bool, close_target: bool) -> None:
        self.source, self.target = source, target
        self.close_source, self.close_target = close_source, close_target
        self.open = True
        self.pending = b""
        self.splices = stat.S_ISFIFO(os.fstat(source).st_mode) and stat.S_ISFIFO(os.fstat(target).st_mode)
        self.patient = not stat.S_ISREG(os.fstat(target).st_mode)

    def wants(self) -> tuple[int, int]:
        """Give (descriptor, event) of what it waits for next."""
        return (self.target, select.POLLOUT) if self.pending else (self.source, select.POLLIN)

    def move(self) -> bool:
        """Copy what can be copied now without waiting; False when nothing moved."""
        try:
            if self.pending:
                return self._push()
            if self.splices:
                moved = os.splice(self.source, self.target, 1 << 20, flags=SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
                if moved == 0:
                    self.finish()
                return True
            self.pending = os.read(self.source, CHUNK)
            if not self.pending:
                self.finish()
                return False
            self._push()
            return True
        except BlockingIOError:
            return self._blocked()
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal whose other side has closed
                self.finish()
                return False
            if error.errno in {errno.EPIPE, errno.ENXIO, errno.EBADF}:
                self.finish()
                return False
            if error.errno == errno.EINVAL and self.splices:
                self.splices = False
                return True
            raise StockadeError(
                f"copying the program's standard streams: {error.strerror}",
                hint="read its input from a file or pipe, and write its output where there is room",
            ) from error

    def _blocked(self) -> bool:
        # Splice does not say which side is not ready. Read then, so that the target's readiness is waited for.
        if self.splices:
            try:
                self.pending = os.read(self.source, PIPE_BUF) if _ready(self.source) else b""
            except BlockingIOError:
                self.pending = b""
        return False

    def _push(self) -> bool:
        """Write as much as the target takes at once: PIPE_BUF bytes never block where poll(2) says writable."""
        moved = False
        while self.pending:
            if self.patient and not _writable(self.target):
                return moved
            size = PIPE_BUF if self.patient else len(self.pending)
            self.pending = self.pending[os.write(self.target, self.pending[:size]) :]
            moved = True
        return moved

    def finish(self) -> None:
        """End it and close what is ours: a reader sees the end, a writer SIGPIPE."""
        if not self.open:
            return
        self.open = False
        self.pending = b""
        if self.close_source:
            os.close(self.source)
        if self.close_target:
            os.close(self.target)


def _poll(descriptor: int, event: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(0))


def _ready(descriptor: int) -> bool:
    return _poll(descriptor, select.POLLIN)


def _writable(descriptor: int) -> bool:
    return _poll(descriptor, select.POLLOUT)


class Wiring:
    """The three streams of one container: what it gets (`given`), and what has to be copied (`streams`)."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.streams: list[Stream] = []
        self.pipes = 0  # bits of the streams that are pipes of ours
        self.inside = False
        self._close: list[int] = []

    def connect(self, *, uid: int, stdin: bool, terminal: bool, inside: bool) -> None:
        """Decide for each of our own 0, 1 and 2. `uid` is the program's, seen from here.

        `inside`: the container makes the pipes, because we may not give ours to `uid`; `received` takes their other
        ends.
        """
        self.inside = inside
        if terminal:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self.given = [null] * 3
            self._close.append(null)
            return
        self.given.append(self._input(uid) if stdin else self._null(os.O_RDONLY))
        for number in (1, 2):
            self.given.append(self._output(number, uid))

    def _null(self, flags: int) -> int:
        descriptor = os.open("/dev/null", flags | os.O_CLOEXEC)
        self._close.append(descriptor)
        return descriptor

    def _input(self, uid: int) -> int:
        if fits(0, uid, writing=False):
            return 0
        self.pipes |= 1
        if self.inside:
            return self._null(os.O_RDONLY)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._close.append(reader)
        self.streams.append(Stream(0, writer, close_source=False, close_target=True))
        return reader

    def _output(self, number: int, uid: int) -> int:
        if fits(number, uid, writing=True):
            return number
        if not _is_open(number):
            return self._null(os.O_WRONLY)
        self.pipes |= 1 << number
        if self.inside:
            return self._null(os.O_WRONLY)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self._close.append(writer)
        self.streams.append(Stream(reader, number, close_source=True, close_target=False))
        return writer

    def received(self, ends: tuple[tuple[int, int], ...]) -> None:
        """Copy from and to the pipes that the container made: stream number → our end."""
        for number, end in ends:
            if number == 0:
                self.streams.append(Stream(0, end, close_source=False, close_target=True))
            else:
                os.set_blocking(end, False)
                self.streams.append(Stream(end, number, close_source=True, close_target=False))

    def started(self) -> None:
        """Close our copies of what the container has now."""
        for descriptor in self._close:
            os.close(descriptor)
        self._close.clear()

    def close(self) -> None:
        """Close all, after the container has ended or when it didn't start."""
        self.started()
        for stream in self.streams:
            stream.finish()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def drain(streams: list[Stream], expired: Callable[[], bool]) -> None:
    """Copy what a container has left in its pipes; an end that nobody reads does not hold us."""
    for stream in streams:
        while stream.open and not expired():
            if stream.move():
                continue
            if not stream.pending or not _wait(stream.target):
                break
        stream.finish()


def _wait(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(200))
